"""A technique alone, on tokens given by hand: its reference, and its graph form on onnxruntime, which must agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from edgetok import graph as g
from edgetok import plugins, technique
from edgetok.technique import State, Technique
from edgetok.view.attention import AttentionMap
from edgetok.view.site import Site
from edgetok.view.stage import Step, attend_ahead, reduce_tokens
from tests.comparison import CHOSEN, run, session
from tests.hooks import Choice, apply, merged_attention

SEEN = ("hidden", "size", "queries", "keys", "values", "bias", "memory", "positions")
INTEGERS = ("order", "destination")
VALUES = 1e-5  # by how much graph form and reference may differ


@dataclass(frozen=True)
class Outcome:
    """What a technique chose, and what is behind it."""

    choice: Choice
    hidden: torch.Tensor  # (B, kept, C)
    size: torch.Tensor  # (B, kept, 1)
    memory: torch.Tensor | None  # (B, N, M) what it chose by, with what it observed in this block
    attention: torch.Tensor | None  # (B, h, kept, kept) where it looks ahead

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
    hidden: torch.Tensor | None = None,
    *,
    attention: torch.Tensor | None = None,
    memory: torch.Tensor | None = None,
    prefix: int = 0,
    **given: Any,
) -> State:
    """What a technique sees of tokens, by default all of size 1 and their own queries, keys and values.

    Args:
        hidden: (B, N, C) the tokens; zeros where `memory` alone matters.
        attention: (B, h, N, N) the weights, from which queries and keys are made.
        memory, prefix, given: the state's other attributes.
    """
    if hidden is None:
        hidden = torch.zeros(*memory.shape[:2], 1)
    batch, tokens, _ = hidden.shape
    if attention is not None:  # the product of these two is the logarithm of the weights
        one_hot = torch.eye(tokens).expand(attention.shape)
        given = {"queries": one_hot, "keys": attention.clamp_min(1e-30).log().mT} | given
    keys = given.get("keys", hidden[:, None])
    size = given.get("size", torch.ones(batch, tokens, 1))
    bias = torch.where(size > 0, 0.0, -1e4).mT[:, None]
    rest = {"size": size, "queries": keys, "keys": keys, "values": keys, "bias": bias, "scale": 1.0}
    rest |= {"memory": memory, "prefix": prefix, "block": 0, "blocks": 1, "original": tokens}
    return State(hidden, **rest | given)


def reduced(name: str, seen: State, count: int, **options: Any) -> Outcome:
    """What a technique makes of tokens, `count` of which go, once graph form and reference are found to agree.

    One that reduces within a block observes that block first. Crops or frames stand one behind the other in a sample.
    """
    of = technique.load(name)
    config = of.config(**options)
    seen = replace(seen, crops=technique.Plan(name, of, config, {}).crops)
    got, wanted = _by_graph(of, config, seen, count), _by_reference(of, config, seen, count)
    flags = [replace(each.choice, **dict.fromkeys(CHOSEN)) for each in (got, wanted)]
    assert flags[0] == flags[1], f"graph form and reference: {flags}"
    ours, theirs = _tensors(got), _tensors(wanted)
    assert ours.keys() == theirs.keys(), f"{set(ours) ^ set(theirs)}: only one of graph form and reference has it"
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=VALUES, msg=lambda text, key=key: f"{key}: {text}")
    order = wanted.choice.order
    assert (order.sort(dim=1).values == torch.arange(order.shape[1])).all(), "a token is chosen twice"
    return wanted


def kept(name: str, seen: State, count: int, **options: Any) -> list[list[int]]:
    """The `count` tokens that a technique keeps, sample by sample."""
    return reduced(name, seen, seen.hidden.shape[1] - count, **options).stay


def _tensors(outcome: Outcome) -> dict[str, torch.Tensor]:
    found = {key: getattr(outcome.choice, key) for key in CHOSEN}
    found |= {key: getattr(outcome, key) for key in ("hidden", "size", "memory", "attention")}
    return {key: value for key, value in found.items() if value is not None}


def _by_reference(of: Technique, config: Any, seen: State, count: int) -> Outcome:
    if of.observe is not None and of.where == "block":
        seen = replace(seen, memory=of.observe.reference(seen, seen.memory, config))
    whole = choice = of.reference(seen, count, config)
    if choice.destination is None:
        whole = replace(choice, destination=torch.full((len(choice.order), count), -1), dropped=count)
    hidden, size = apply(whole, seen.hidden, seen.size, seen.hidden.shape[1] - whole.destination.shape[1])
    return Outcome(choice, hidden, size, seen.memory, merged_attention(seen, choice) if choice.ahead else None)


def _by_graph(of: Technique, config: Any, seen: State, count: int) -> Outcome:
    chosen: Any = None

    def write(site: Site) -> dict[str, ir.Value | None]:
        nonlocal chosen
        if of.observe is not None and of.where == "block":
            site = replace(site, memory=of.observe.graph(site, site.memory, config))
        whole = chosen = of.select(site, config)
        if chosen.destination is None:
            whole = replace(chosen, destination=site.per_sample(np.full(count, -1)), dropped=count)
        step = Step.of(site, whole)
        hidden, size = reduce_tokens(site, step, whole)
        attention = None
        if chosen.ahead:  # of one-hot values it gives the attention itself
            one_hot = torch.eye(step.kept).expand(*seen.queries.shape[:2], -1, -1)
            attention = attend_ahead(site, step, chosen, g.constant(site.op.graph, one_hot.numpy()))
        choice = {key: getattr(chosen, key) for key in CHOSEN}
        return choice | {"hidden": hidden, "size": size, "memory": site.memory, "attention": attention}

    got = written(seen, count, write, behind=of.where == "output")
    choice = replace(chosen, **{key: got.get(key) for key in CHOSEN}, kept=None)
    size = got.get("size", torch.ones_like(got["hidden"][..., :1]))
    return Outcome(choice, got["hidden"], size, got.get("memory"), got.get("attention"))


def written(
    seen: State, count: int, write: Callable[[Site], dict[str, ir.Value | None]], behind: bool = False
) -> dict[str, torch.Tensor]:
    """What a graph computes that is written for tokens of which `count` go; `behind` the encoder there is no attention.

    Order and destination are int64, all else is fp32.
    """
    feeds = {key: value.contiguous() for key in SEEN if (value := getattr(seen, key)) is not None}
    if (seen.size == 1).all():
        del feeds["size"]
    values = {
        key: g.typed(ir.Value(name=key), ir.DataType.from_numpy(value.numpy().dtype), list(value.shape))
        for key, value in feeds.items()
    }
    graph = ir.Graph(list(values.values()), [], nodes=[], opset_imports={"": g.OPSET}, name="one")
    op, hidden, size = g.Emitter(graph), values["hidden"], values.get("size")
    heads = [None if behind else values[key] for key in ("queries", "keys", "values")]
    attention = None if behind else AttentionMap(op, *heads[:2], seen.scale, values["bias"])
    site = Site(
        op, hidden, hidden, *heads, attention, size, bool((seen.size == 0).any()), seen.hidden.shape[1], seen.prefix,
        count, seen.block, seen.blocks, values.get("memory"), seen.crops, values.get("positions"), seen.original,
    )  # fmt: skip
    for key, value in write(site).items():
        if value is not None:
            kind = ir.DataType.INT64 if key in INTEGERS else ir.DataType.FLOAT
            out = op.Identity(value)
            out.name, out.type = f"{key}_out", ir.TensorType(kind)
            graph.outputs.append(out)
    model = ir.Model(graph, ir_version=g.IR_VERSION)
    plugins.add_functions(model)
    return {key.removesuffix("_out"): value for key, value in run(session(model), feeds).items()}
