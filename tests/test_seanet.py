"""SEANet's layers against transformers' EnCodec: every length, whole and chunk by chunk, in PyTorch and exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgetok.exporters.sources.pytorch import capture_module
from edgetok.exporters.tokenizers import _seanet
from edgetok.model import Origin
from edgetok.modules.memory import Memory
from edgetok.modules.seanet import Chain, Conv
from tests import codecs
from tests.comparison import check_values, run, session

GOLDEN = Path(__file__).parent / "golden" / "tokenizers"
LENGTHS = (1, 2, 7, 8, 9, 55, 56, 57, 64, 101)  # hop 8; up to 7 tokens the last layer is longer than its signal
KINDS = {
    "causal": {},
    "zeros": {"pad_mode": "constant"},
    "around": {"use_causal_conv": False, "trim_right_ratio": 1.0},
    "odd-strides": {"upsampling_ratios": [5, 3], "use_causal_conv": False, "num_lstm_layers": 1},
    "half-trimmed": {"trim_right_ratio": 0.5, "use_conv_shortcut": False, "num_residual_layers": 2},
    "group-norm": {"use_causal_conv": False, "norm_type": "time_group_norm", "audio_channels": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_equals_transformers_at_every_length(kind: str) -> None:
    model = codecs.encodec(**KINDS[kind])
    encoder, decoder = _seanet.chain(model.encoder.layers), _seanet.chain(model.decoder.layers)
    for length in LENGTHS:
        x = codecs.speech(8000, length, 3, model.config.audio_channels)
        torch.testing.assert_close(encoder(x), model.encoder(x), rtol=0, atol=0)
        z = torch.randn(2, 16, length)
        torch.testing.assert_close(decoder(z), model.decoder(z), rtol=0, atol=1e-6)


def test_padding_of_the_authors() -> None:
    golden = np.load(GOLDEN / "encodec_strided_conv_reflect_causal.npz")
    weight = torch.from_numpy(golden["w"])
    conv = nn.Conv1d(weight.shape[1], weight.shape[0], weight.shape[2], int(golden["stride"]))
    conv.weight.data, conv.bias.data = weight, torch.from_numpy(golden["b"])
    layer = Conv(conv, causal=True, mode="reflect")
    for length in (1, 3, 7, 8, 13, 16, 31):
        x, y = (torch.from_numpy(golden[f"{name}{length}"]) for name in ("x", "y"))
        torch.testing.assert_close(layer(x), y, rtol=0, atol=1e-6)


@pytest.mark.more  # the families' own tests export these layers too
@pytest.mark.parametrize("kind", ["causal", "around", "group-norm"])
def test_exported_with_a_free_time_axis(kind: str) -> None:
    model = codecs.encodec(**KINDS[kind])
    doubled, channels = codecs.doubled(model), model.config.audio_channels
    origin = Origin("callable", kind)
    encoder, decoder = _seanet.chain(model.encoder.layers), _seanet.chain(model.decoder.layers)
    examples = {"encode": {"x": torch.randn(2, channels, 100)}, "decode": {"x": torch.randn(2, 16, 20)}}
    graphs = {
        name: capture_module(of, examples[name], origin, free={"x": {2: "time"}}).model
        for name, of in (("encode", encoder), ("decode", decoder))
    }
    assert [sum(node.op_type == "LSTM" for node in graph.graph) for graph in graphs.values()] == [2, 2]
    assert not any(node.op_type in ("Loop", "Scan", "ReduceL2") for graph in graphs.values() for node in graph.graph)
    opened = {name: session(graph) for name, graph in graphs.items()}
    for length in LENGTHS:
        for batch in (1, 3):
            x, z = codecs.speech(8000, length, batch, channels), torch.randn(batch, 16, length)
            for name, given, layers, exact in (
                ("encode", x, model.encoder, doubled.encoder), ("decode", z, model.decoder, doubled.decoder),
            ):  # fmt: skip
                (got,) = run(opened[name], {"x": given}).values()
                check_values({name: got}, {name: exact(given.double())}, {name: layers(given)})


def streamed(chain: Chain, x: torch.Tensor, chunk: int) -> torch.Tensor:
    """A whole signal, chunk by chunk."""
    position, state, out = torch.zeros(len(x), dtype=torch.int64), None, []
    for start in range(0, x.shape[2], chunk):
        memory = Memory(position, state)
        out.append(chain(x[..., start : start + chunk], memory))
        position, state = position + 1, memory.packed()
    return torch.cat(out, dim=2)


@pytest.mark.parametrize("kind", ["causal", "zeros"])
@pytest.mark.parametrize("length", [160, 161, 167, 201])
def test_chunks_give_what_the_whole_gives(kind: str, length: int) -> None:
    """Whole chunks, and a last one that ends within a token."""
    model = codecs.encodec(**KINDS[kind])
    x, z = codecs.speech(8000, length, 3), torch.randn(3, 16, 45)
    encoder, decoder = _seanet.chain(model.encoder.layers), _seanet.chain(model.decoder.layers)
    torch.testing.assert_close(streamed(encoder, x, 64), model.encoder(x), rtol=0, atol=2e-7)
    torch.testing.assert_close(streamed(decoder, z, 8), model.decoder(z), rtol=0, atol=2e-6)


def test_streams_of_different_ages_share_a_batch() -> None:
    """A stream that begins is padded as one, beside others that go on."""
    chain = _seanet.chain(codecs.encodec().encoder.layers)
    x = codecs.speech(8000, 128, 2)
    first = Memory(torch.zeros(2, dtype=torch.int64))
    chain(x[..., :64], first)
    second = Memory(torch.tensor([8, 0]), first.packed() * torch.tensor([[1.0], [0.0]]))
    got = chain(x[..., 64:], second)
    torch.testing.assert_close(got[:1], chain(x[:1])[..., 8:], rtol=0, atol=2e-7)
    torch.testing.assert_close(got[1:], chain(x[1:, :, 64:]), rtol=0, atol=2e-7)
