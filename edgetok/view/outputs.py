"""What needs all N tokens behind the blocks: restore them, or give out the reduced ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.errors import Refusal
from edgetok.manifest import TokenMap
from edgetok.view.flow import Flow

if TYPE_CHECKING:
    from edgetok.view.stage import Stage

Tokens = dict[ir.Value, "tuple[int, Stage]"]  # the token axis of a value, and the stage it belongs to


def restore(graph: ir.Graph, flow: Flow, tokens: Tokens) -> None:
    """Bring all N tokens back in front of every exit: each takes the value of the row it ended in."""
    restored: dict[ir.Value, ir.Value] = {}
    for end in flow.exits:
        value = now(end.value)
        axis, stage = tokens[end.value]
        if stage.rows is None:
            continue
        if value not in restored:
            restored[value] = _gather(graph, value, axis, stage, flow.cut.get(end.value, 0))
        if end.node is None:
            _replace_output(graph, value, restored[value])
        else:
            for place, read in enumerate(end.node.inputs):
                if read is value:
                    end.node.replace_input_with(place, restored[value])


def emit_reduced(graph: ir.Graph, flow: Flow, tokens: Tokens) -> TokenMap | None:
    """Give out the reduced tokens, their sizes and the row of each original token.

    Returns:
        Which outputs these are; None where nothing was reduced.

    Raises:
        Refusal: the tokens of several stages are given out.
    """
    reduced = [end for end in flow.exits if tokens[end.value][1].rows is not None]
    if not reduced:
        return None
    stages = {(id(tokens[end.value][1]), flow.cut.get(end.value, 0)): tokens[end.value][1] for end in reduced}
    if len(stages) > 1:
        raise Refusal(
            "the outputs hold tokens of several blocks, reduced to different counts, or with and without the prefix",
            way_out="use --emit full",
        )
    (((_, cut), stage),) = stages.items()
    lost = _descendants(end.node for end in reduced if end.node is not None)
    for output in [value for value in graph.outputs if value.producer() in lost]:
        graph.outputs.remove(output)
    given = dict.fromkeys(now(end.value) for end in reduced)
    for number, value in enumerate(dict.fromkeys(now(e.value) for e in reduced if e.node is not None)):
        if value not in graph.outputs:
            value.name = "tokens" if number == 0 else f"tokens_{number}"
            graph.outputs.append(value)
    op = g.Emitter(graph)
    extra = {"token_rows": rows_behind(op, stage, cut)}
    if stage.size is not None:
        extra["token_size"] = behind(op, stage.size, cut)
    for name, value in extra.items():
        value.name = name
        graph.outputs.append(value)
    return TokenMap(
        tokens=g.static_shape(extra["token_rows"])[1],  # type: ignore[index,arg-type]
        kept=stage.tokens - cut if isinstance(stage.tokens, int) else None,
        outputs=tuple(value.name or "" for value in given),
        rows="token_rows",
        sizes="token_size" if "token_size" in extra else None,
    )


def rows_behind(op: g.Emitter, stage: Stage, cut: int) -> ir.Value:
    """(B, N - cut): for each original token behind the cut its row behind the cut."""
    assert stage.rows is not None and stage.rows.shape is not None
    if not cut:
        return stage.rows
    rows = op.Sub(behind(op, stage.rows, cut), np.array(cut))
    return g.typed(rows, ir.DataType.INT64, ["batch", stage.rows.shape[1] - cut])


def behind(op: g.Emitter, value: ir.Value, cut: int) -> ir.Value:
    """(B, N, ...) -> (B, N - cut, ...)"""
    if not cut:
        return value
    dims = list(value.shape or ())
    part = op.Slice(value, np.array([cut]), np.array([g.LAST]), np.array([1]))
    return g.typed(part, value.dtype, [dims[0], g.without(dims[1], cut), *dims[2:]])


def now(value: ir.Value) -> ir.Value:
    """The value, or what a reduction put in its place."""
    return value.meta.get("reduced", value)


def _gather(graph: ir.Graph, value: ir.Value, axis: int, stage: Stage, cut: int) -> ir.Value:
    """value, which lacks the first `cut` tokens, with its token axis back at N - cut."""
    op = g.Emitter(graph)
    dims = list(value.shape or ())
    full = take(op, value, axis, rows_behind(op, stage, cut))
    rows = stage.rows.shape  # type: ignore[union-attr]
    assert rows is not None
    return g.typed(full, value.dtype, [rows[1] - cut if at == axis else dim for at, dim in enumerate(dims)])


def take(op: g.Emitter, value: ir.Value, axis: int, index: ir.Value) -> ir.Value:
    """(B, ..., N, ...), (B, K) -> (B, ..., K, ...): for each sample its own rows along an axis."""
    rank = len(value.shape or ())
    order = [0, axis, *(a for a in range(1, rank) if a != axis)]
    turned = value if order == sorted(order) else op.Transpose(value, perm=order)
    taken: ir.Value = op.GatherND(turned, op.Unsqueeze(index, np.array([-1])), batch_dims=1)
    return taken if turned is value else op.Transpose(taken, perm=[order.index(a) for a in range(rank)])


def _replace_output(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let `new` be the graph output that `old` was, under its name."""
    for place, output in enumerate(graph.outputs):
        if output is old:
            old.name, new.name = f"{old.name}_reduced", old.name
            graph.outputs[place] = new


def _descendants(nodes: object) -> set[ir.Node]:
    seen: set[ir.Node] = set()
    stack = list(nodes)  # type: ignore[call-overload]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += [user for value in node.outputs for user, _ in value.uses()]
    return seen
