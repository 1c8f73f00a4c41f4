"""Streams of the causal codecs: chunk after chunk, through exported graphs, gives what the whole recording gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from edgetok.errors import InputError
from edgetok.exporters.sources.pytorch import capture_module
from edgetok.exporters.tokenizers import encodec, mimi
from edgetok.model import Origin
from edgetok.modules import memory
from edgetok.modules.seanet import least_tokens
from edgetok.tokenizer.stream import Stream
from tests import codecs, near_ties
from tests.comparison import session
from tests.test_audio_codecs import CASES

FAMILIES = {"mimi": (codecs.mimi, mimi, 16), "encodec": (codecs.encodec, encodec, 8)}  # model, file, samples of a token
NAMES = ["mimi", pytest.param("encodec", marks=pytest.mark.more)]


class InPyTorch:
    """Runs a stream in place of a graph."""

    def __init__(self, part: torch.nn.Module):
        self.of = memory.Stream(part).eval().requires_grad_(False)

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        made = self.of(**{name: torch.from_numpy(array) for name, array in feeds.items()})
        return {name: value.numpy() for name, value in made.items()}


class Exported:
    """Runs the exported graph."""

    def __init__(self, part: torch.nn.Module, chunk: dict[str, torch.Tensor]):
        of, (name,) = memory.Stream(part).eval(), chunk
        free = {name: {2: "samples"} if name == "waveform" else {1: "tokens"}}
        captured = capture_module(of, chunk | of.start(chunk), Origin("callable", "stream"), free=free)
        self.session = session(captured.model)

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, dict(feeds)), strict=True))


def streamed(run: Any, given: str, whole: np.ndarray, chunk: int, width: int, piece: int) -> np.ndarray:
    """A whole recording in pieces of any size, as they arrive."""
    axis = 2 if given == "waveform" else 1
    stream, made = Stream(run, given, chunk, width), []
    for part in np.split(whole, range(piece, whole.shape[axis], piece), axis=axis):
        made += stream.push(part)
    return np.concatenate([*made, stream.finish()], axis=1 if given == "waveform" else 2)


@pytest.mark.parametrize("exported", [False, pytest.param(True, id="exported", marks=pytest.mark.more)])
@pytest.mark.parametrize("name", NAMES)
def test_chunks_give_what_the_whole_gives(name: str, exported: bool) -> None:
    """Recordings of whole tokens and not, shorter than a chunk and longer than Mimi's window, in pieces of any size."""
    build, family, hop = FAMILIES[name]
    model, case = build(), CASES[name]
    encode, decode = family.Encode(model, 4), family.Decode(model, 4)
    chunks = {"waveform": torch.randn(2, 1, 8 * hop), "ids": torch.zeros(2, 8, 4, dtype=torch.int64)}
    parts = {"waveform": encode, "ids": decode}
    runs = {
        given: Exported(part, {given: chunks[given]}) if exported else InPyTorch(part) for given, part in parts.items()
    }
    widths = {
        given: memory.Stream(part).start({given: chunks[given]})["state"].shape[1] for given, part in parts.items()
    }
    differ = count = 0
    for samples in (1, hop - 1, hop, 3 * hop + 1, 8 * hop, 20 * hop, 40 * hop + 5, 41 * hop - 1):
        x = codecs.speech(8000, samples, 3)
        ids = streamed(runs["waveform"], "waveform", x.numpy(), 8 * hop, widths["waveform"], 77)
        wanted = case.encode(model, x)
        assert ids.shape == tuple(wanted.shape)
        differ += near_ties.differing(torch.from_numpy(ids), wanted, name, encode, x)
        count += ids.size
        got = streamed(runs["ids"], "ids", wanted.numpy(), 8, widths["ids"], 3)
        right = case.decode(model, wanted).numpy()
        assert got.shape == right.shape
        np.testing.assert_allclose(got, right, rtol=0, atol=1e-5 * np.abs(right).max())
    assert differ <= count // 1000, f"{differ} of {count} ids differ at near-ties"


def test_first_chunk_holds_what_is_reflected() -> None:
    """Seven tokens for EnCodec's last layer, whose kernel is 7; nothing where zeros are padded."""
    model = codecs.encodec()
    assert least_tokens(encodec.Encode(model, 4).encoder, 8) == least_tokens(encodec.Decode(model, 4).decoder, 1) == 7
    assert least_tokens(mimi.Encode(codecs.mimi(), 4).encoder, 16) == 1


def test_bad_streams() -> None:
    def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"ids": feeds["waveform"][:, 0, ::8], "next_position": feeds["position"], "next_state": feeds["state"]}

    stream = Stream(run, "waveform", 16, 3)
    with pytest.raises(InputError, match="the stream is empty: waveform of at least one sample"):
        stream.finish()
    assert stream.push(np.zeros((2, 1, 9), np.float32)) == []
    with pytest.raises(InputError, match="a piece of shape \\(3, 1, 9\\): \\(2, 1, 9\\) came before, only axis 2"):
        stream.push(np.zeros((3, 1, 9), np.float32))
    stream.finish()
    with pytest.raises(InputError, match="the stream has ended"):
        stream.push(np.zeros((2, 1, 9), np.float32))
