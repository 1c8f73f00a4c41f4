"""TiTok, One-D-Piece, FlexTok, LARP and TokenFlow as graphs: ids, reconstructions, any number of tokens, reduction."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from edgetok import devices, lowering, plugins, technique
from edgetok import graph as g
from edgetok.errors import Refusal
from edgetok.exporters.sources import CaptureOptions
from edgetok.exporters.sources.tokenizer import capture_tokenizer
from edgetok.exporters.tokenizers import _directions
from edgetok.model import Origin
from edgetok.modules.flextok import FlexTok
from edgetok.modules.one_d_piece import OneDPiece
from edgetok.modules.titok import TiTok
from edgetok.modules.tokenflow import TokenFlow
from edgetok.normalise import normalise
from edgetok.quiet import quiet
from edgetok.transform import transform
from tests import near_ties, test_flextok, test_titok, test_tokenflow
from tests.comparison import session
from tests.seeded import seeded
from tests.test_larp import larp

RTX = Path(__file__).parent / "rtx_build.py"


@dataclass(frozen=True)
class Case:
    """One tokenizer.

    Attributes:
        make: the module, with seeded weights.
        shape: of a signal.
        range: of its values.
        variable: whether any first tokens make a signal.
    """

    make: Callable[[], torch.nn.Module]
    shape: tuple[int, ...]
    range: tuple[float, float] = (0.0, 1.0)
    variable: bool = False

    def signal(self, batch: int, seed: int = 1) -> torch.Tensor:
        low, high = self.range
        return torch.rand(batch, *self.shape, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


LEGACY = replace(test_titok.LEGACY, image=8, patch=2, pixel_multipliers=(1, 2))  # fewer nodes, so that it exports soon
FLEXTOK = replace(test_flextok.SMALL, encoder_layers=1, decoder_layers=1, steps=2)
TOKENFLOW = replace(test_tokenflow.SMALL, scales=(1, 4), multipliers=(1,))
CASES = {
    "titok": Case(lambda: seeded(TiTok(LEGACY)), (3, 8, 8)),
    "one-d-piece": Case(lambda: seeded(OneDPiece(test_titok.PLAIN)), (3, 32, 32), variable=True),
    "flextok": Case(lambda: seeded(FlexTok(FLEXTOK)), (3, 16, 16), (-2, 2), True),
    "larp": Case(larp, (3, 8, 16, 16), (-8, 8)),
    "tokenflow": Case(lambda: seeded(TokenFlow(TOKENFLOW)), (3, 28, 28), (-1, 1), True),
}


class Part(torch.nn.Module):
    """One direction of a tokenizer, as what is exported."""

    def __init__(self, model: torch.nn.Module, way: str):
        super().__init__()
        self.model, self.way = model, way

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return getattr(self.model, self.way)(given)


@cache
def module(name: str) -> torch.nn.Module:
    return CASES[name].make()


@cache
def graph(name: str, way: str) -> bytes:
    """The graph of one direction; the batch is free, and so is the number of ids where any will do."""
    case, model = CASES[name], module(name)
    given, axes = case.signal(2), {0: torch.export.Dim("batch", min=1, max=64)}
    if way == "decode":
        given = model.encode(given)
        if case.variable:
            axes[1] = torch.export.Dim("tokens", min=1, max=given.shape[1])
            given = given[:, :-1]
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            Part(model, way),
            (given,),
            dynamo=True,
            opset_version=g.OPSET,
            dynamic_shapes={"given": axes},
            output_names=["made"],
            verbose=False,
        )
    assert program is not None
    normalise(program.model)
    return ir.to_proto(program.model).SerializeToString()


def names(*soon: str, of: Iterable[str] = CASES) -> pytest.MarkDecorator:
    """Parametrise by tokenizer; those that are not named take their time."""
    more = pytest.mark.more
    return pytest.mark.parametrize("name", [name if name in soon else pytest.param(name, marks=more) for name in of])


def run(opened: onnxruntime.InferenceSession, given: torch.Tensor) -> np.ndarray:
    return opened.run(["made"], {"given": given.numpy()})[0]


@names("titok", "flextok", "larp")
def test_encodes_as_pytorch_does(name: str) -> None:
    opened = session(graph(name, "encode"))
    for batch in (1, 3):
        signal = CASES[name].signal(batch, seed=batch)
        ids = run(opened, signal)
        assert ids.dtype == np.int64
        part, wanted = _directions.Encode(module(name)), module(name).encode(signal)
        differ = near_ties.differing(torch.from_numpy(ids), wanted, name, part, signal)
        print(f"{differ} of {ids.size} ids differ, at near-ties")
    assert b"Attention" in graph(name, "encode")


@names("titok", "one-d-piece")
@torch.no_grad()
def test_decodes_as_pytorch_does(name: str) -> None:
    """By the tolerance rule, against fp64: all tokens, and where any number will do, the first one, and a few."""
    opened, exact = session(graph(name, "decode")), CASES[name].make().double()
    for batch in (1, 3):
        ids = module(name).encode(CASES[name].signal(batch, seed=batch))
        for kept in (1, 3, ids.shape[1]) if CASES[name].variable else (ids.shape[1],):
            got, plain, wanted = run(opened, ids[:, :kept]), *(m.decode(ids[:, :kept]) for m in (module(name), exact))
            allowed = max(2 * (plain - wanted).norm().item(), 1e-4 * wanted.norm().item())
            assert got.shape == (batch, *CASES[name].shape)
            assert np.linalg.norm(got - wanted.numpy()) <= allowed
            assert np.linalg.norm(0.9 * got - wanted.numpy()) > allowed


@names("titok", "larp", of=("titok", "larp", "tokenflow"))
def test_tokens_of_the_encoder_merge(name: str) -> None:
    """ToMe takes two tokens a block, of the transformer alone; the ids stay as many, and are within the codebook."""
    model = ir.from_proto(onnx.ModelProto.FromString(graph(name, "encode")))
    steps = transform(model, [technique.parse("tome:r=2")], dtype="fp32", emit="full").schedule
    plugins.add_functions(model)
    assert len(steps) == (1 if name == "tokenflow" else 2) and all(s.tokens_in - s.tokens_out == 2 for s in steps)
    signal = CASES[name].signal(3)
    ids, whole = run(session(model), signal), module(name).encode(signal).numpy()
    assert ids.shape == whole.shape and ids.min() >= 0 and ids.max() < 256


def test_registers_that_see_in_order_do_not_merge() -> None:
    model = ir.from_proto(onnx.ModelProto.FromString(graph("flextok", "encode")))
    with pytest.raises(Refusal, match="attention bars pairs of positions"):
        transform(model, [technique.parse("tome:r=2")], dtype="fp32", emit="full")


@pytest.mark.more
@pytest.mark.parametrize("way", ["encode", "decode"])
@pytest.mark.parametrize("name", CASES)
def test_builds_in_tensorrt_rtx(name: str, way: str, tmp_path: Path) -> None:
    builds(ir.from_proto(onnx.ModelProto.FromString(graph(name, way))), tmp_path / "model.onnx")


@pytest.mark.more
def test_tokenflow_at_384_pixels_builds_in_tensorrt_rtx(tmp_path: Path) -> None:
    """The published grid, scales and codebook, networks of a few channels: 15 searches among 32768 codes."""
    model, origin = seeded(TokenFlow(test_tokenflow.FULL)), Origin("callable", "tokenflow")
    made = capture_tokenizer(model, "tokenflow", origin, CaptureOptions(batch=1))
    assert made.decoder is not None
    made.decoder.model.graph.inputs[0].shape = ir.Shape([1, test_tokenflow.FULL.tokens])
    for each in (made.model, made.decoder.model):
        builds(each, tmp_path / "model.onnx")


def builds(model: ir.Model, file: Path) -> None:
    """Make sure that TensorRT-RTX builds a graph, lowered, for SM86."""
    transform(model, [], dtype="fp32", emit="full")
    plugins.add_functions(model)
    lowering.for_tensorrt(model, devices.load("rtx-3090"))
    ir.save(model, file)
    built = subprocess.run([sys.executable, str(RTX), str(file), "SM86"], capture_output=True, text=True, timeout=300)
    assert built.stdout.startswith("built"), built.stderr
