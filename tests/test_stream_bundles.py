"""Codecs that stream in bundles: files and live sources chunk by chunk give what the whole gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch

from edgetok import api
from edgetok.api.streaming import stream, through
from edgetok.bundle import Bundle, open_bundle
from edgetok.errors import BundleError, SourceError, UsageError
from tests import codecs
from tests.test_cli import edgetok


def mimi() -> torch.nn.Module:
    """One layer of its transformer: what is exported four times."""
    return codecs.mimi(num_hidden_layers=1)


# source, rate, samples of a token
MAKERS = {"mimi": ("tests.test_stream_bundles:mimi", 1600, 16), "encodec": ("tests.codecs:encodec", 24000, 8)}


@pytest.fixture(scope="module", params=["mimi", pytest.param("encodec", marks=pytest.mark.more)])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, int, int]:
    source, rate, hop = MAKERS[request.param]
    out = tmp_path_factory.mktemp("stream") / request.param
    return api.export(source, out=out, stream=3000 * hop / rate), rate, hop


def test_the_manifest_says_chunk_and_state(exported: tuple[Bundle, int, int]) -> None:
    bundle, _, hop = exported
    described = bundle.manifest.tokenizer
    assert described is not None and described.streaming is not None
    said = described.streaming
    assert (said.chunk, said.hop, said.first) == (3, hop, 3 if described.family == "mimi" else 7)
    for given, file in (("waveform", "encode_stream.onnx"), ("ids", "decode_stream.onnx")):
        inputs = {each.name: each for each in onnx.load(bundle.path / file).graph.input}
        assert set(inputs) == {given, "position", "state"}
        assert inputs["state"].type.tensor_type.shape.dim[1].dim_value == said.width(given) > 0
    assert "streams in chunks of" in edgetok("inspect", bundle.path).stdout


@pytest.mark.parametrize("batch", [1, 3])
def test_a_live_source(exported: tuple[Bundle, int, int], batch: int) -> None:
    """Shorter than a chunk, one sample off, and long; pushed in pieces that fit nothing."""
    bundle, rate, hop = exported
    with api.load(bundle.path) as model:
        for samples in (1, hop - 1, 2 * hop, 3 * hop, 3 * hop + 1, 7 * hop + 3, 60 * hop + 5):
            sound = codecs.speech(8000, samples, batch).numpy()
            with stream(bundle.path, "waveform") as encoder:
                pieces = [made for part in np.split(sound, range(7, samples, 7), axis=2) for made in encoder.push(part)]
                ids = np.concatenate([*pieces, encoder.finish()], axis=1)
            np.testing.assert_array_equal(ids, model.run({"waveform": sound})["ids"])
            if batch == 1:
                tokens = api.tokenize(bundle.path, _written(bundle.path.parent / "x.wav", sound, rate))
                whole = api.detokenize(bundle.path, tokens)
                with stream(bundle.path, "ids") as decoder:
                    chunked = through(decoder, tokens.arrays["ids"])[..., :samples]
                np.testing.assert_allclose(chunked, whole, rtol=0, atol=1e-5 * np.abs(whole).max())


def _written(file: Path, sound: np.ndarray, rate: int) -> Path:
    soundfile.write(file, sound[0].T, rate, subtype="FLOAT")
    return file


def test_files_by_the_commands(exported: tuple[Bundle, int, int], tmp_path: Path) -> None:
    """The same tokens and the same sound with --stream as without, with fewer levels too."""
    bundle, rate, hop = exported
    _written(tmp_path / "in.wav", codecs.speech(8000, 41 * hop + 3).numpy(), rate)
    for extra in ([], ["--stream"]):
        name = "stream" if extra else "whole"
        for command, given, made in (("tokenize", "in.wav", f"{name}.npz"), ("detokenize", "whole.npz", f"{name}.wav")):
            keep = ["--keep", "3"] if command == "tokenize" else []
            done = edgetok(command, bundle.path, tmp_path / given, "-o", tmp_path / made, *extra, *keep)
            assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "stream.npz") as chunked:
        assert whole["ids"].shape[2] == 3
        np.testing.assert_array_equal(whole["ids"], chunked["ids"])
    sounds = [soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("whole", "stream")]
    np.testing.assert_allclose(sounds[1], sounds[0], atol=2e-4)  # 16 bits of a file


def test_what_does_not_stream(exported: tuple[Bundle, int, int], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the family 'dac' does not stream as it is here: it is not causal"):
        api.export("tests.codecs:dac", out=tmp_path / "dac", stream=20)
    with pytest.raises(UsageError, match="does not stream: EnCodec at 24 kHz and Mimi do"):
        api.export("zoo:speech-pq", out=tmp_path / "own", stream=20)
    with pytest.raises(UsageError, match="--stream is for a codec as it is, in fp32"):
        api.export("tests.codecs:mimi", out=tmp_path / "half", stream=20, dtype="fp16")
    api.export("zoo:speech-pq", out=tmp_path / "own")
    _written(tmp_path / "a.wav", np.zeros((1, 1, 900), np.float32), 16000)
    with pytest.raises(UsageError, match="has no graphs for streams: export EnCodec"):
        api.tokenize(tmp_path / "own", tmp_path / "a.wav", stream=True)


def test_a_changed_stream_is_refused(exported: tuple[Bundle, int, int], tmp_path: Path) -> None:
    from shutil import copytree

    copy = copytree(exported[0].path, tmp_path / "copy")
    data = bytearray((copy / "decode_stream.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "decode_stream.onnx").write_bytes(data)
    with pytest.raises(BundleError, match="decode_stream.onnx"):
        open_bundle(copy)
