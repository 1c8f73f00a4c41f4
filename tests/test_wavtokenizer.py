"""WavTokenizer: its encoder against transformers' EnCodec, its decoder against one written apart, and exported."""

from __future__ import annotations

from copy import deepcopy
from functools import cache, partial

import numpy as np
import pytest
import torch
import transformers as tf
from torch.nn import functional

from edgetok.errors import ParityError
from edgetok.exporters.sources.pytorch import capture_module
from edgetok.exporters.tokenizers import _seanet, wavtokenizer
from edgetok.fidelity import check_exact
from edgetok.model import Origin
from edgetok.modules.residual_quantiser import ResidualQuantiser
from edgetok.modules.wavtokenizer import Config, WavTokenizer
from edgetok.tokenizer import near_ties as tie
from tests import codecs, near_ties
from tests.comparison import check_values, run, session

SMALL = Config(
    rate=8000, filters=4, strides=(4, 2), latent=16, codes=64, width=32, inner=48, layers=2, groups=4, n_fft=32
)


@cache
def model() -> WavTokenizer:
    """Its codes are what its encoder makes of places in a recording, each as far from those before as there is one.

    With drawn ones all ids would be one; of silent places many codes would be as good as equal.
    """
    torch.manual_seed(0)
    built = WavTokenizer(SMALL).requires_grad_(False)
    for parameter in built.parameters():
        if parameter.dim() == 1:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    for parameter in built.encoder.parameters():
        if parameter.dim() == 1:
            parameter.mul_(0.003)  # else they outweigh what it hears
    latents = built.encoder(codecs.speech(8000, 8000)).mT[0]
    codes = latents[:1]
    while len(codes) < SMALL.codes:
        farthest = torch.cdist(latents, codes).amin(dim=1).argmax()
        codes = torch.cat([codes, latents[farthest, None]])
    built.quantiser = ResidualQuantiser(codes[None])
    return built.eval().requires_grad_(False)


def written_apart(of: WavTokenizer, ids: torch.Tensor) -> torch.Tensor:
    """The decoder by plain functions, and torch's inverse FFT frame by frame."""
    w, config, double = {key: value.double() for key, value in of.state_dict().items()}, of.config, torch.float64

    def conv(name: str, x: torch.Tensor, padding: int = 0, groups: int = 1) -> torch.Tensor:
        return functional.conv1d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding, groups=groups)

    def grouped(name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.group_norm(x, config.groups, w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    def layered(name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = conv("backbone.embed", w["quantiser.codebooks.0"][ids].mT, 3)
    for k in (0, 1, 2, 3, 4):
        at = f"backbone.pos_net.{k}"
        if k == 2:
            h = grouped(f"{at}.norm", x)
            q, key, v = (conv(f"{at}.{name}", h) for name in "qkv")
            weights = (q.mT @ key * config.width**-0.5).softmax(dim=2)
            x = x + conv(f"{at}.proj_out", v @ weights.mT)
        else:
            h = x
            for norm, of_conv in (("norm1", "conv1"), ("norm2", "conv2")):
                h = grouped(f"{at}.{norm}", h)
                h = conv(f"{at}.{of_conv}", h * h.sigmoid(), 1)
            x = x + h
    x = layered("backbone.norm", grouped("backbone.pos_net.5", x).mT)
    for k in range(config.layers):
        at = f"backbone.convnext.{k}"
        h = layered(f"{at}.norm", conv(f"{at}.dwconv", x.mT, 3, config.width).mT)
        x = x + w[f"{at}.gamma"] * linear(f"{at}.pwconv2", functional.gelu(linear(f"{at}.pwconv1", h)))
    magnitude, phase = linear("head.out", layered("backbone.final_layer_norm", x)).chunk(2, dim=2)
    window = torch.hann_window(config.n_fft, dtype=double)
    frames = torch.fft.irfft(torch.polar(magnitude.exp().clip(max=100), phase)) * window
    total = torch.zeros(len(ids), config.n_fft + (ids.shape[1] - 1) * config.hop, dtype=double)
    weight = torch.zeros_like(total)
    for k in range(ids.shape[1]):
        at = slice(k * config.hop, k * config.hop + config.n_fft)
        total[:, at] += frames[:, k]
        weight[:, at] += window**2
    cut = (config.n_fft - config.hop) // 2
    return (total / weight)[:, None, cut:-cut]


def test_encoder_is_encodecs() -> None:
    """Not causal; the weights of transformers' encoder, layer for layer."""
    config = {"num_filters": 4, "upsampling_ratios": [4, 2], "hidden_size": 16, "use_causal_conv": False}
    torch.manual_seed(0)
    theirs = tf.EncodecModel(tf.EncodecConfig(**config)).eval().requires_grad_(False).encoder
    ours = deepcopy(model().encoder)
    ours.load_state_dict(_seanet.chain(theirs.layers).state_dict())
    for samples in (1, 8, 9, 333):
        x = codecs.speech(8000, samples, 2)
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


def test_exported() -> None:
    of, origin = model(), Origin("callable", "wavtokenizer")
    waveform, ids = torch.randn(2, 1, 100), torch.zeros(2, 9, dtype=torch.int64)
    encode = capture_module(wavtokenizer.Encode(of), {"waveform": waveform}, origin, free={"waveform": {2: "samples"}})
    decode = capture_module(wavtokenizer.Decode(of), {"ids": ids}, origin, free={"ids": {1: "tokens"}})
    assert {node.op_type for node in decode.model.graph}.isdisjoint({"DFT", "STFT", "Loop", "Scan"})
    opened = session(encode.model), session(decode.model)
    differ = count = 0
    found = set()
    for samples in (1, 7, 8, 9, 1001):
        for batch in (1, 3):
            x = codecs.speech(8000, samples, batch)
            got = run(opened[0], {"waveform": x})["ids"]
            assert got.shape == (batch, -(-samples // 8))
            differ += near_ties.differing(got, of.encode(x), "wavtokenizer", wavtokenizer.Encode(of), x)
            count += got.numel()
            found |= set(got.flatten().tolist())
            y = run(opened[1], {"ids": got})
            assert y["waveform"].shape == (batch, 1, got.shape[1] * 8)
            check_values(y, {"waveform": written_apart(of, got)}, {"waveform": of.decode(got)})
    assert differ <= count // 1000, f"{differ} of {count} ids differ at near-ties"
    assert len(found) > SMALL.codes // 4


def test_an_id_as_near_as_the_original_s_is_accepted_and_told() -> None:
    """Two codes that fp32 cannot tell apart; a third in their place is refused."""
    of, x = deepcopy(model()), codecs.speech(8000, 1001)
    codes, common = of.quantiser.codebooks[0].clone(), int(of.encode(x).mode().values)
    twin, far = (k for k in (0, 1, 2) if k != common) if common < 2 else (0, 1)
    codes[twin] = codes[common] * (1 + 1e-7)
    of.quantiser = ResidualQuantiser(codes[None]).requires_grad_(False)
    ids = of.encode(x).numpy()
    places = np.isin(ids, (common, twin))
    check = partial(tie.check, wavtokenizer.searches, wavtokenizer.Encode(of), x)

    def told(other: int) -> tuple[str, ...]:
        turned = np.where(places, other, ids)
        return check_exact({"ids": turned}, {"ids": ids}, lambda array: check(torch.from_numpy(array)))

    sentences = {sentence for other in (common, twin) for sentence in told(other)}
    assert sentences and all("'ids' are not the original's: near-ties" in sentence for sentence in sentences)
    with pytest.raises(ParityError, match=f"{places.sum()} of {ids.size} ids are no near-ties: the first one's"):
        told(far)


@pytest.mark.more
@pytest.mark.parametrize(("strides", "n_fft"), [((8, 5, 4, 2), 1280), ((6, 5, 5, 4), 2400)])
def test_real_size(strides: tuple[int, ...], n_fft: int) -> None:
    """75 and 40 tokens a second."""
    torch.manual_seed(0)
    of = WavTokenizer(Config(strides=strides, n_fft=n_fft, codes=64, layers=1)).eval().requires_grad_(False)
    ids = of.encode(codecs.speech(24000, 24000))
    assert ids.shape == (1, 24000 // of.config.hop)
    wanted = written_apart(of, ids)
    torch.testing.assert_close(of.decode(ids).double(), wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))
