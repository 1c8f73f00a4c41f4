"""Flatten, Softmax, Reshape back, as the conversion from opset 12 writes it -> Softmax over the last axis."""

from __future__ import annotations

import onnx_ir as ir

from edgetok import graph as g


def unflatten_softmax(model: ir.Model) -> None:
    """Take the flattening away wherever the last axis stays as it is, in place."""
    for node in list(model.graph):
        if node.op_type != "Softmax" or len(uses := g.consumers(node.outputs[0])) != 1:
            continue
        back, flat = uses[0][0], node.inputs[0].producer()  # type: ignore[union-attr]
        if back.op_type != "Reshape" or flat is None or flat.op_type not in ("Flatten", "Reshape"):
            continue
        source, result = flat.inputs[0], back.outputs[0]
        assert source is not None
        if _keeps_last_axis(flat) and _same_shape(source, result, back.inputs[1]):
            op = g.Emitter(model.graph, before=node)
            whole = g.typed(op.Softmax(source, axis=-1), source.dtype, list(source.shape or ()))
            g.take_place(result, whole)


def _keeps_last_axis(flat: ir.Node) -> bool:
    rank = g.rank(flat.inputs[0])  # type: ignore[arg-type]
    if flat.op_type == "Flatten":
        return rank is not None and g.attribute(flat, "axis", 1) in (rank - 1, -1)
    before, after = (g.static_shape(value) for value in (flat.inputs[0], flat.outputs[0]))  # type: ignore[arg-type]
    return bool(before and after and before[-1] is not None and before[-1] == after[-1])


def _same_shape(source: ir.Value, result: ir.Value, target: ir.Value | None) -> bool:
    node = target.producer() if target is not None else None
    if node is not None and node.op_type == "Shape" and node.inputs[0] is source:
        return True
    return source.shape is not None and source.shape == result.shape and None not in g.static_shape(source)[1:]  # type: ignore[index]
