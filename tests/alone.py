"""A technique alone, on tokens given by hand: its reference, and its graph form on onnxruntime, which must agree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir
import torch

from edgetok import graph as g
from edgetok import plugins, technique
from edgetok.technique import State
from edgetok.view.attention import AttentionMap
from edgetok.view.site import Site
from edgetok.view.stage import Step, reduce_tokens
from tests.comparison import run, session
from tests.hooks import Choice, apply

SELECTED = ("order", "destination", "weight", "share")


@dataclass(frozen=True)
class Outcome:
    """What a technique chose, and the tokens, sizes and memory behind it."""

    choice: Choice
    hidden: torch.Tensor
    size: torch.Tensor
    memory: torch.Tensor | None

    @property
    def stay(self) -> list[list[int]]:
        return self.choice.order[:, : self.hidden.shape[1]].tolist()

    @property
    def gone(self) -> list[list[int]]:
        return self.choice.order[:, self.hidden.shape[1] :].tolist()

    @property
    def into(self) -> list[list[int]]:
        """The tokens that those that go end in."""
        assert self.choice.destination is not None
        return self.choice.order.gather(1, self.choice.destination).tolist()


def state(
    hidden: torch.Tensor,
    *,
    attention: torch.Tensor | None = None,
    keys: torch.Tensor | None = None,
    size: torch.Tensor | None = None,
    prefix: int = 1,
    block: int = 0,
    blocks: int = 1,
    memory: torch.Tensor | None = None,
) -> State:
    """What a technique sees of hidden (B, N, C), with attention weights (B, N, N) or keys (B, N, d) of one head."""
    batch, tokens, _ = hidden.shape
    if attention is not None:  # the product of these two is the logarithm of the weights
        queries, keys = torch.eye(tokens).expand(batch, 1, -1, -1), attention.clamp_min(1e-30).log().mT[:, None]
    else:
        keys = (hidden if keys is None else keys)[:, None]
        queries = keys
    size = torch.ones(batch, tokens, 1) if size is None else size
    bias = torch.where(size > 0, 0.0, -1e4).mT[:, None]
    return State(hidden, size, queries, keys, keys, bias, 1.0, prefix, block, blocks, memory)


def reduced(name: str, seen: State, count: int, **options: Any) -> Outcome:
    """What a technique makes of tokens, `count` of which go; observed first where it observes.

    Raises:
        AssertionError: graph form and reference disagree.
    """
    of = technique.load(name)
    config = of.config(**options)
    before = seen
    if of.observe is not None:
        seen = replace(seen, memory=of.observe.reference(seen, seen.memory, config))
    choice = of.reference(seen, count, config)
    hidden, size = apply(choice, seen.hidden, seen.size, seen.hidden.shape[1] - count)
    wanted = {key: value for key in SELECTED if (value := getattr(choice, key)) is not None}
    wanted |= {"hidden": hidden, "size": size} | ({} if of.observe is None else {"memory": seen.memory})
    got = _on_onnxruntime(of, config, before, count)
    assert got.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(got[key], value, rtol=0, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    return Outcome(choice, hidden, size, seen.memory)


def _on_onnxruntime(of: technique.Technique, config: Any, seen: State, count: int) -> dict[str, torch.Tensor]:
    feeds = {
        name: getattr(seen, name).contiguous()
        for name in ("hidden", "queries", "keys", "size", "bias", "memory")
        if getattr(seen, name) is not None
    }
    values = {name: g.typed(ir.Value(name=name), ir.DataType.FLOAT, list(feed.shape)) for name, feed in feeds.items()}
    graph = ir.Graph(list(values.values()), [], nodes=[], opset_imports={"": g.OPSET}, name="one")
    op, hidden, tokens = g.Emitter(graph), values["hidden"], seen.hidden.shape[1]
    heads = values["queries"], values["keys"]
    site = Site(
        op, hidden, hidden, *heads, values["keys"], AttentionMap(op, *heads, seen.scale, values["bias"]),
        values["size"], bool((seen.size == 0).any()), tokens, seen.prefix, count, seen.block, seen.blocks,
        values.get("memory"),
    )  # fmt: skip
    outputs: dict[str, ir.Value | None] = {}
    if of.observe is not None:
        outputs["memory"] = of.observe.graph(site, site.memory, config)
        site = replace(site, memory=outputs["memory"])
    chosen = of.select(site, config)
    outputs |= {key: getattr(chosen, key) for key in SELECTED}
    outputs["hidden"], outputs["size"] = reduce_tokens(site, Step.of(site, chosen), chosen)
    for name, value in outputs.items():
        if value is not None:
            kind = ir.DataType.INT64 if name in ("order", "destination") else ir.DataType.FLOAT
            out = op.Identity(value)
            out.name = f"{name}_out"
            graph.outputs.append(g.typed(out, kind, [None] * (2 if kind is ir.DataType.INT64 else 3)))
    model = ir.Model(graph, ir_version=g.IR_VERSION)
    plugins.add_functions(model)
    return {name.removesuffix("_out"): value for name, value in run(session(model), feeds).items()}
