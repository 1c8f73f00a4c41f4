"""Audio codecs against transformers' own: ids and waveforms of every length, mono and stereo, batch 1 and 3."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import soundfile
import torch
import transformers as tf
from onnx_ir.passes.common import InlinePass
from torch.nn import functional

from edgetok import api, devices, native
from edgetok.bundle import open_bundle
from edgetok.exporters.heads import rvq
from edgetok.exporters.sources.pytorch import capture_module
from edgetok.exporters.tokenizers import dac, encodec, mimi, xcodec, xcodec2
from edgetok.lint import lint
from edgetok.model import Origin
from edgetok.plugins import add_functions
from edgetok.retype import retype
from edgetok.tokenizer.overlap import Chunks
from tests import codecs, near_ties
from tests.comparison import check_values, run, session

LENGTHS = (1, 7, 8, 9, 56, 57, 1001)  # a token is 8 or 16 samples; 1001 are more than Mimi's window


@dataclass(frozen=True)
class Case:
    """A codec, and its ids and waveforms by transformers.

    Attributes:
        build: makes the model.
        family: the module with `Encode` and `Decode`.
        encode: (model, waveform) -> ids (B, N, L), in the type of the waveform.
        decode: (model, ids) -> waveform.
        levels: how many ids a token has.
    """

    build: Callable[[], Any]
    family: Any
    encode: Callable[[Any, torch.Tensor], torch.Tensor]
    decode: Callable[[Any, torch.Tensor], torch.Tensor]
    levels: int


def encodec_ids(model: tf.EncodecModel, waveform: torch.Tensor) -> torch.Tensor:
    bandwidth = model.config.target_bandwidths[-1]
    return model.encode(waveform, bandwidth=bandwidth).audio_codes[0].mT


def encodec_waveform(model: tf.EncodecModel, ids: torch.Tensor) -> torch.Tensor:
    return model.decode(ids.mT[None], [None])[0]


def dac_ids(model: tf.DacModel, waveform: torch.Tensor) -> torch.Tensor:
    """The waveform is filled up as transformers' feature extractor does it."""
    return model.encode(functional.pad(waveform, (0, -waveform.shape[2] % model.config.hop_length))).audio_codes.mT


def mimi_ids(model: tf.MimiModel, waveform: torch.Tensor) -> torch.Tensor:
    """transformers rounds distances to fp32 whatever its type; behind its latents stands the head that has arrays."""
    if waveform.dtype == torch.float32:
        return model.encode(waveform).audio_codes.mT
    latents, ids = model.encoder(waveform).latents, []
    for of in (model.quantizer.semantic_residual_vector_quantizer, model.quantizer.acoustic_residual_vector_quantizer):
        books = torch.stack([layer.codebook.embed_sum for layer in of.layers]).to(waveform.dtype)
        config = rvq.Config(levels=len(books), codes=books.shape[1], width=books.shape[2])
        found = rvq.reference_encode(of.input_proj(latents).mT, {"codebooks": books}, config)
        ids.append(found.reshape(*found.shape[:2], -1))
    return torch.cat(ids, dim=-1)


CASES = {
    "dac": Case(codecs.dac, dac, dac_ids, lambda m, ids: m.decode(audio_codes=ids.mT).audio_values[:, None], 3),
    "encodec": Case(codecs.encodec, encodec, encodec_ids, encodec_waveform, 4),
    "mimi": Case(codecs.mimi, mimi, mimi_ids, lambda m, ids: m.decode(ids.mT).audio_values, 4),
    "encodec-stereo": Case(
        partial(codecs.encodec, audio_channels=2, use_causal_conv=False, norm_type="time_group_norm"),
        encodec,
        encodec_ids,
        encodec_waveform,
        4,
    ),
}
NAMES = [pytest.param(name, marks=pytest.mark.more) if name == "encodec-stereo" else name for name in CASES]


@cache
def graphs(name: str) -> tuple[Any, Any, Any]:
    """A case's model, and its two graphs in sessions, each with a free time axis."""
    case = CASES[name]
    model, origin = case.build(), Origin("callable", name)
    channels = getattr(model.config, "audio_channels", 1)
    waveform, ids = torch.randn(2, channels, 100), torch.zeros(2, 9, case.levels, dtype=torch.int64)
    parts = (
        (case.family.Encode(model, case.levels), {"waveform": waveform}, {2: "samples"}),
        (case.family.Decode(model, case.levels), {"ids": ids}, {1: "tokens"}),
    )
    made = [capture_module(part, example, origin, free={next(iter(example)): axes}) for part, example, axes in parts]
    return model, *(session(each.model) for each in made)


def encoders(family: Any, model: Any, exact: Any, levels: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    """What a family makes of a model, in fp32 and, of the model in fp64, in fp64: with no weight rounded in between."""
    part = family.Encode(model, levels)
    torch.set_default_dtype(torch.float64)
    try:
        right = family.Encode(exact, levels)
    finally:
        torch.set_default_dtype(torch.float32)
    return part.requires_grad_(False), right.requires_grad_(False)


@pytest.mark.parametrize("name", NAMES)
def test_ids_and_waveforms(name: str) -> None:
    case, (model, encode, decode) = CASES[name], graphs(name)
    channels, exact, differ, count = getattr(model.config, "audio_channels", 1), codecs.doubled(model), 0, 0
    part, right = encoders(case.family, model, exact, case.levels)
    family = name.partition("-")[0]
    for length in LENGTHS:
        for batch in (1, 3):
            x = codecs.speech(8000, length, batch, channels)
            ids = run(encode, {"waveform": x})["ids"]
            assert ids.dtype == torch.int64
            differ += near_ties.differing(ids, case.encode(model, x), family, part, x, right)
            both = right(x.double())["ids"], case.encode(exact, x.double())
            near_ties.differing(*both, family, part, x, right)  # both encoders in fp64: no more than a few near-ties
            count += ids.numel()
            wanted, plain = ({"waveform": case.decode(each, ids)} for each in (exact, model))
            check_values(run(decode, {"ids": ids}), wanted, plain)
    assert differ <= count // 1000, f"{differ} of {count} ids differ at near-ties"


def test_the_activation_of_dac_is_one_operator() -> None:
    """In C++ too the waveform is transformers'."""
    model, ids = codecs.dac(), torch.randint(0, 32, (2, 9, 3), generator=torch.Generator().manual_seed(0))
    decode = capture_module(dac.Decode(model, 3), {"ids": ids}, Origin("callable", "dac"), free={"ids": {1: "tokens"}})
    operators = [node.op_type for node in decode.model.graph]
    activations = sum(type(module).__name__ == "Snake1d" for module in model.decoder.modules())
    assert operators.count("Snake") == activations and "Sin" not in operators
    if native.library() is None:
        pytest.skip(native.status().detail)
    decoded = CASES["dac"].decode
    plain, exact = ({"waveform": decoded(each, ids)} for each in (model, codecs.doubled(model)))
    check_values(run(session(decode.model, native=True), {"ids": ids}), exact, plain)


@pytest.mark.parametrize("name", NAMES)
def test_first_levels_suffice(name: str) -> None:
    """A level that is left out is -1; the decoder then gives what transformers gives for fewer levels."""
    case, (model, _, decode) = CASES[name], graphs(name)
    ids = case.encode(model, codecs.speech(8000, 333, 2, getattr(model.config, "audio_channels", 1)))
    for keep in range(1, case.levels):
        cut = ids.masked_fill(torch.arange(case.levels) >= keep, -1)
        wanted = {"waveform": case.decode(model, ids[..., :keep])}
        check_values(run(decode, {"ids": cut}), wanted, wanted)
        fewer = case.family.Encode(model, keep)(codecs.speech(8000, 333, 2, getattr(model.config, "audio_channels", 1)))
        torch.testing.assert_close(fewer["ids"], ids[..., :keep], rtol=0, atol=0)


@pytest.mark.more
@pytest.mark.parametrize("tokens", [10, 25])
def test_xcodec_at_a_fixed_length(tokens: int) -> None:
    model, origin = codecs.xcodec(), Origin("callable", "xcodec")
    x = codecs.speech(8000, 40 * tokens, 3)
    encode = capture_module(xcodec.Encode(model, 4), {"waveform": x[:2]}, origin)
    ids = run(session(encode.model), {"waveform": x})["ids"]
    assert ids.shape == (3, tokens, 4)
    exact = codecs.doubled(model)
    part, right = encoders(xcodec, model, exact, 4)
    assert near_ties.differing(ids, model.encode(x).audio_codes.mT, "xcodec", part, x, right) <= ids.numel() // 1000
    assert torch.equal(right(x.double())["ids"], exact.encode(x.double()).audio_codes.mT)
    decode = capture_module(xcodec.Decode(model, 4), {"ids": ids[:2]}, origin, free={"ids": {1: "tokens"}})
    for some in (ids, ids[:1, :7]):
        wanted, plain = ({"waveform": each.decode(some.mT).audio_values} for each in (exact, model))
        check_values(run(session(decode.model), {"ids": some}), wanted, plain)


def xcodec2_ids(model: tf.Xcodec2Model, waveform: torch.Tensor) -> torch.Tensor:
    """With the filter bank of SeamlessM4TFeatureExtractor, on the host, as transformers does by torchaudio."""
    filled, heard = functional.pad(waveform, (0, 320 - waveform.shape[2] % 320)), []
    for row in functional.pad(filled[:, 0].float(), (160, 160)):
        bands = torch.from_numpy(tf.SeamlessM4TFeatureExtractor()._extract_fbank_features(row.numpy()))
        bands = (bands - bands.mean(dim=0)) / (bands.var(dim=0) + 1e-7).sqrt()
        heard.append(bands[: len(bands) // 2 * 2].reshape(-1, 160))
    return model.encode(filled, torch.stack(heard).to(waveform.dtype)).audio_codes[:, 0].long()


@pytest.mark.more
def test_xcodec2_at_a_fixed_length() -> None:
    model, origin, x = codecs.xcodec2(), Origin("callable", "xcodec2"), codecs.speech(16000, 5000, 3)
    encode = capture_module(xcodec2.Encode(model), {"waveform": x[:2]}, origin)
    ids = run(session(encode.model), {"waveform": x})["ids"]
    assert ids.shape == (3, 16) and len(ids.unique()) > 3
    differ = near_ties.differing(ids, xcodec2_ids(model, x), "xcodec2", xcodec2.Encode(model), x)
    print(f"{differ} of {ids.numel()} ids differ, at near-ties")
    decode = capture_module(xcodec2.Decode(model), {"ids": ids[:2]}, origin, free={"ids": {1: "tokens"}})
    assert {node.op_type for node in decode.model.graph}.isdisjoint({"DFT", "Col2Im"})
    for some in (ids, ids[:1, :7]):
        wanted = {"waveform": model.decode(some[:, None]).audio_values}  # its head computes in fp32 whatever the type
        check_values(run(session(decode.model), {"ids": some}), wanted, wanted)


@pytest.mark.more
def test_xcodec2_of_files(tmp_path: Path) -> None:
    """A whole number of tokens, a sample more, as much as a piece holds: the tokens that transformers gives."""
    api.export("tests.codecs:xcodec2", out=tmp_path / "b", length=16 * 320)
    described, model = open_bundle(tmp_path / "b").manifest.tokenizer, codecs.xcodec2()
    assert described is not None and described.signal.length == 17 * 320 - 1 and described.tokens == 17
    assert described.rate == pytest.approx(17 * 6 / (17 * 320 - 1) * 16000, abs=1e-5)
    for samples, pieces in ((16 * 320, 1), (16 * 320 + 1, 1), (17 * 320 - 1, 1), (17 * 320, 2)):
        x = codecs.speech(16000, samples)
        soundfile.write(tmp_path / "x.wav", x[0].T.numpy(), 16000, subtype="FLOAT")
        tokens = api.tokenize(tmp_path / "b", tmp_path / "x.wav")
        assert tokens.arrays["ids"].shape == (pieces, 17)
        if pieces == 1:
            assert torch.equal(torch.from_numpy(tokens.arrays["ids"]), xcodec2_ids(model, x))
        assert api.detokenize(tmp_path / "b", tokens).shape == (1, 1, samples)


REFUSED = [("dac", set()), ("encodec", {"elu_behind_lstm"}), ("mimi", {"narrow_heads"})]


@pytest.mark.more
@pytest.mark.parametrize(("name", "said"), REFUSED)
def test_lint_says_what_tensorrt_rtx_does_not_build(name: str, said: set[str], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    case = CASES[name]
    model = case.build()
    decode = case.family.Decode(model, case.levels)
    ids = torch.zeros(2, 40, case.levels, dtype=torch.int64)
    graph = capture_module(decode, {"ids": ids}, Origin("callable", name), batch=2).model
    retype(graph, "fp16")
    assert {finding.rule for finding in lint(graph, devices.load("rtx-4090")) if finding.severity == "error"} == said
    add_functions(graph)
    InlinePass()(graph)
    ir.save(graph, tmp_path / "decode.onnx")
    program = [sys.executable, Path(__file__).with_name("rtx_build.py"), tmp_path / "decode.onnx", "SM86"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert (done.returncode == 0) == (not said), done.stderr


def test_48_khz_in_chunks() -> None:
    """Each chunk with its scale, and overlapping ones joined, as transformers' EncodecModel does it on the host."""
    model = codecs.encodec_48k()
    encode, decode = (part(model, 4).requires_grad_(False) for part in (encodec.Encode, encodec.Decode))
    chunks = Chunks(model.config.chunk_length, model.config.chunk_stride)
    for length in (1, 359, 360, 361, 400, 401, 1000):
        x = codecs.speech(1600, length, 3, 2)
        wanted = model.encode(x, bandwidth=model.config.target_bandwidths[-1])
        made = [encode(torch.from_numpy(chunk)) for chunk in chunks.cut(x.numpy())]
        codes = [each["ids"].mT for each in made]
        last = wanted.last_frame_pad_length
        for k, (got, want) in enumerate(zip(codes, wanted.audio_codes, strict=True)):
            torch.testing.assert_close(got, want[..., : want.shape[2] - last] if k + 1 == len(codes) else want)
        for each, scale in zip(made, wanted.audio_scales, strict=True):
            torch.testing.assert_close(each["scale"], scale, rtol=1e-6, atol=0)
        y = chunks.join([decode(**each)["waveform"].numpy() for each in made])
        right = model.decode(wanted.audio_codes, wanted.audio_scales, last_frame_pad_length=last)[0].numpy()
        assert y.shape == right.shape
        np.testing.assert_allclose(y, right, rtol=0, atol=2e-6 * np.abs(right).max())
