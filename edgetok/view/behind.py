"""Behind the encoder: the tokens that a graph gives out become fewer, as a language model will receive them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.errors import Refusal
from edgetok.manifest import TokenMap
from edgetok.technique import Plan
from edgetok.view.flow import Exit, Flow
from edgetok.view.outputs import behind, now, rows_behind
from edgetok.view.site import Site
from edgetok.view.stage import Stage, Step, reduce_tokens

if TYPE_CHECKING:
    from edgetok.view.view import TransformerView


def token_outputs(flow: Flow) -> list[Exit]:
    """The graph's outputs that hold tokens (B, N, C)."""
    return [end for end in flow.exits if end.node is None and g.rank(end.value) == 3 and flow.axis[end.value] == 1]


def reduce_outputs(view: TransformerView, flow: Flow, plan: Plan, memory: ir.Value | None) -> TokenMap:
    """Keep some of the tokens that the graph gives out, and say which.

    The outputs keep their names and shrink to (B, K, C); `token_positions` (B, K) int64 has the row that each token
    had in the unreduced output, `token_rows` (B, N) for each original token its row, or -1 where it was dropped.
    Crops or frames that share one budget come out as one row of tokens (1, K, C), their positions counted through all.

    Returns:
        Which outputs these are.

    Raises:
        Refusal: no output holds tokens, or several hold those of different blocks.
    """
    graph = view.model.graph
    ends = token_outputs(flow)
    if not ends:
        raise Refusal(
            f"no output holds the encoder's tokens, so {plan.name} has nothing to choose from",
            way_out="export the encoder with its tokens as an output (last_hidden_state), or reduce in its blocks",
        )
    places = {(flow.stage[end.value], flow.cut.get(end.value, 0)) for end in ends}
    if len(places) > 1:
        raise Refusal("the outputs hold tokens of several blocks", way_out="export one of them only")
    ((block, cut),) = places
    stage = view.stages[block]
    site = _site(view, now(ends[0].value), plan, stage, cut, memory)
    selection = plan.technique.select(site, plan.config)
    if selection.destination is None:  # all are dropped, and none stands in for them
        selection = replace(selection, destination=site.per_sample(np.full(site.count, -1)), dropped=site.count)
    step = Step.of(site, selection)
    names = tuple(now(end.value).name or "" for end in ends)
    for end in ends:
        value = now(end.value)
        reduced, _ = reduce_tokens(replace(site, hidden=_joined(site, value)), step, selection)
        shape = value.shape
        assert shape is not None
        g.typed(reduced, value.dtype, ["batch" if site.crops == 1 else 1, step.kept, shape[2]])
        place = graph.outputs.index(value)
        value.name, reduced.name = f"{value.name}_unreduced", value.name
        graph.outputs[place] = reduced
        flow.exits.remove(end)
    for name, value in _maps(site, stage, step, cut).items():
        value.name = name
        graph.outputs.append(value)
    return TokenMap(
        tokens=site.crops * (view.tokens - cut),
        kept=site.tokens - site.count,
        outputs=names,
        rows="token_rows",
        positions="token_positions",
    )


def _site(view: TransformerView, tokens: ir.Value, plan: Plan, stage: Stage, cut: int, memory: ir.Value | None) -> Site:
    """What a technique sees of the tokens that are given out."""
    op = g.Emitter(view.model.graph)
    padded = stage.size is not None and stage.rows is None
    size = None if stage.size is None else behind(op, stage.size, cut)
    memory = None if memory is None else op.Slice(memory, np.array([cut]), np.array([g.LAST]), np.array([1]))
    site = Site(
        op, tokens, view.model.graph.inputs[0], None, None, None, None, size, padded, stage.fixed - cut,
        view.prefix - cut, plan.behind, len(view.blocks), len(view.blocks), memory, original=view.tokens - cut,
        positions=_positions(op, stage, cut), source=_source(view, tokens),
    )  # fmt: skip
    crops = plan.crops
    if crops == 1:
        return site
    batch = g.static_shape(tokens)[0]  # type: ignore[index]
    if batch != crops or site.prefix or site.positions is not None:
        found = "a dynamic batch" if batch is None else f"a batch of {batch}"
        found += ", an output that begins with the class token" if site.prefix else ""
        found += ", tokens that were reduced before" if site.positions is not None else ""
        raise Refusal(
            f"{plan.name} shares tokens between {crops} pictures: it takes a batch of {crops} (a thumbnail and its "
            f"crops, or the frames of a video), and an output of all patches and no class token; got {found}",
            way_out=f"give --batch {crops}, and a source that cuts the class token off",
        )
    joined = None if memory is None else op.Reshape(memory, np.array([1, crops * site.tokens, -1]))
    whole = replace(
        site, memory=joined, tokens=crops * site.tokens, count=crops * site.count, crops=crops, size=None, padded=False
    )
    hidden = _joined(whole, tokens)
    return replace(whole, hidden=hidden, batched=hidden)


def _source(view: TransformerView, tokens: ir.Value) -> ir.Value | None:
    """(B, N, C): the residual stream with the last MLP added, where the tokens given out are made of it."""
    stream = now(view.blocks[-1].after_attention)
    sums = [node.outputs[0] for node, _ in g.consumers(stream) if node.op_type == "Add"]
    if len(sums) != 1 or sums[0] is tokens or sums[0].producer() not in g.ancestors([tokens]):
        return None
    return sums[0]


def _positions(op: g.Emitter, stage: Stage, cut: int) -> ir.Value | None:
    """(B, N - cut): the original place, behind the cut, of each token."""
    if stage.positions is None or not cut:
        return stage.positions
    return op.Sub(behind(op, stage.positions, cut), np.array(cut))


def _joined(site: Site, tokens: ir.Value) -> ir.Value:
    """The tokens of all crops or frames in one row."""
    if site.crops == 1:
        return tokens
    shape = [1, site.tokens, tokens.shape[2]]  # type: ignore[index]
    return g.typed(site.op.Reshape(tokens, np.array(shape)), tokens.dtype, shape)


def _maps(site: Site, stage: Stage, step: Step, cut: int) -> dict[str, ir.Value]:
    """`token_positions` and `token_rows`, composed with the reductions inside the encoder."""
    op = site.op
    positions, rows, original = step.stay, step.rows, site.tokens
    if site.positions is not None:
        positions = op.GatherElements(site.positions, step.stay, axis=1)
        before = rows_behind(op, stage, cut)
        dims = g.static_shape(before)
        assert dims is not None and dims[1] is not None
        original = dims[1]
        rows = op.GatherElements(rows, before, axis=1)
    batch = "batch" if site.crops == 1 else 1
    return {
        "token_positions": g.typed(op.Identity(positions), ir.DataType.INT64, [batch, step.kept]),
        "token_rows": g.typed(rows, ir.DataType.INT64, [batch, original]),
    }
