"""A technique's choice behind the encoder, alone: its graph form on onnxruntime, and its reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from edgetok import graph as g
from edgetok import plugins, technique
from edgetok.technique import State
from edgetok.view.site import Site
from tests.comparison import run, session

GOLDEN = Path(__file__).parent / "golden"


def arrays(name: str) -> dict[str, torch.Tensor]:
    """The arrays of a golden file."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def chosen(name: str, memory: torch.Tensor, keep: int, *, prefix: int = 0, **options: Any) -> list[list[int]]:
    """The places that a technique keeps, sample by sample, where graph form and reference agree.

    Args:
        name: of the technique.
        memory: (B, N, M) what it observed; of crops, which share their tokens, (1, P * N, M).
        keep: how many tokens are left.
        prefix: leading tokens that are no patches.
        options: the technique's own.
    """
    found = technique.load(name)
    config = found.config(**options)
    crops = technique.Plan(name, found, config, {}).crops
    batch, tokens, _ = memory.shape
    count = tokens - keep
    heads = [torch.zeros(batch, 1, tokens, 4)] * 3
    ones, zeros = torch.ones(batch, tokens, 1), torch.zeros(batch, 1, 1, tokens)
    state = State(torch.zeros(batch, tokens, 4), ones, *heads, zeros, 1.0, prefix, 3, 3, memory, crops)
    wanted = found.reference(state, count, config).order

    seen = g.typed(ir.Value(name="memory"), ir.DataType.FLOAT, list(memory.shape))
    graph = ir.Graph([seen], [], nodes=[], opset_imports={"": g.OPSET}, name="choice")
    op = g.Emitter(graph)
    site = Site(
        op, seen, seen, None, None, None, None, None, False, tokens, prefix, count, 3, 3, memory=seen, crops=crops
    )
    order = g.typed(op.Identity(found.select(site, config).order), ir.DataType.INT64, [batch, tokens])
    order.name = "order"
    graph.outputs.append(order)
    model = ir.Model(graph, ir_version=g.IR_VERSION)
    plugins.add_functions(model)
    got = run(session(model), {"memory": memory})["order"]
    assert torch.equal(got[:, :keep], wanted[:, :keep]), "graph form and reference keep other tokens"
    for order in (got, wanted):
        assert (order.sort(dim=1).values == torch.arange(tokens)).all(), "a token is chosen twice"
    return got[:, :keep].tolist()
