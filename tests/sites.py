"""Graph forms alone: a technique's Selection of given tensors, on plain onnxruntime."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir
import torch

from edgetok import graph as g
from edgetok import plugins, technique
from edgetok.technique import Selection, State
from edgetok.view.attention import AttentionMap
from edgetok.view.site import Site
from tests.comparison import CHOSEN, run, session

TENSORS = ("hidden", "size", "queries", "keys", "values", "bias", "memory", "positions")


def state(hidden: torch.Tensor, *, prefix: int = 0, block: int = 0, blocks: int = 1, **given: torch.Tensor) -> State:
    """What a reference sees of tokens (B, N, C), by default all of size 1 and their own queries, keys and values."""
    batch, tokens, _ = hidden.shape
    heads = dict.fromkeys(("queries", "keys", "values"), hidden[:, None])
    rest = {"size": torch.ones(batch, tokens, 1), "bias": torch.zeros(batch, 1, 1, tokens), "original": tokens}
    return State(hidden, scale=1.0, prefix=prefix, block=block, blocks=blocks, **heads | rest | given)


def choose(seen: State, count: int, spec: str, output: bool = False) -> Selection[torch.Tensor]:
    """The graph form's choice.

    Args:
        seen: what it sees; tokens of size 0 are padding.
        count: how many tokens go.
        spec: the technique and its options, with any schedule.
        output: whether it stands behind the encoder.
    """
    asked = technique.parse(spec)
    feeds = {name: value for name in TENSORS if (value := getattr(seen, name)) is not None}
    inputs = {
        name: g.typed(ir.Value(name=name), ir.DataType.from_numpy(value.numpy().dtype), list(value.shape))
        for name, value in feeds.items()
    }
    graph = ir.Graph(list(inputs.values()), [], nodes=[], opset_imports={"": g.OPSET}, name="one")
    op, hidden = g.Emitter(graph), inputs["hidden"]
    heads = [None] * 3 if output else [inputs[name] for name in ("queries", "keys", "values")]
    attention = None if output else AttentionMap(op, heads[0], heads[1], seen.scale, inputs["bias"])
    padded = bool((seen.size == 0).any())
    site = Site(
        op, hidden, hidden, *heads, attention, inputs["size"] if padded else None, padded, seen.hidden.shape[1],
        seen.prefix, count, seen.block, seen.blocks, inputs.get("memory"), positions=inputs.get("positions"),
        original=seen.original,
    )  # fmt: skip
    chosen = technique.load(asked.name).select(site, asked.config)
    outputs = {name: value for name in CHOSEN if (value := getattr(chosen, name)) is not None}
    for name, value in outputs.items():
        kind = ir.DataType.INT64 if name in CHOSEN[:2] else ir.DataType.FLOAT
        shown = op.Identity(value)
        shown.name = f"{name}_0"
        graph.outputs.append(g.typed(shown, kind, [None] * (2 if kind == ir.DataType.INT64 else 3)))
    model = ir.Model(graph, ir_version=g.IR_VERSION)
    plugins.add_functions(model)
    got = run(session(model), feeds)
    return dataclasses.replace(chosen, **{name: got.get(f"{name}_0") for name in CHOSEN})
