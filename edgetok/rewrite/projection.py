"""One matrix product for queries, keys and values becomes three, where they are not computed from the same tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgetok import graph as g

MOVES = {"Reshape", "Transpose", "Slice", "Split", "Squeeze", "Unsqueeze", "Gather", "Identity"}


def split_projection(graph: ir.Graph, attention: ir.Node) -> None:
    """Give an attention's queries, keys and values a product each, where they are columns of one.

    Which column ends where is read off by sending the columns' numbers through the nodes in between, however these are
    spelt. What is not spelt as constant weights, a bias at most, and moves stays as it is.
    """
    heads = [value for value in attention.inputs[:3] if value is not None]
    joint = {_source(value) for value in heads}
    if len(joint) != 1:
        return
    (joint_value,) = joint
    product, bias = _linear(joint_value)
    weight = None if product is None else g.constant_of(product.inputs[1])
    if product is None or weight is None or weight.ndim != 2 or g.rank(joint_value) != 3:
        return
    columns = _columns(graph, joint_value, heads, weight.shape[1])
    op = g.Emitter(graph, before=attention)
    for place, (value, chosen) in enumerate(zip(heads, columns, strict=True)):
        dims, dtype = list(value.shape or ()), value.dtype
        flat, split = [dims[0], dims[2], chosen.size], [dims[0], dims[2], dims[1], dims[3]]
        rows = g.typed(op.MatMul(product.inputs[0], weight[:, chosen.ravel()]), dtype, flat)
        if bias is not None:
            rows = g.typed(op.Add(rows, bias[chosen.ravel()]), dtype, flat)
        rows = g.typed(op.Reshape(rows, np.array([0, 0, *chosen.shape])), dtype, split)
        attention.replace_input_with(place, g.typed(op.Transpose(rows, perm=[0, 2, 1, 3]), dtype, dims))


def _source(value: ir.Value) -> ir.Value:
    """Where the moves in front of a value begin."""
    while (node := value.producer()) is not None and node.op_type in MOVES:
        first, *rest = node.inputs
        if first is None or any(g.constant_of(each) is None for each in rest if each is not None):
            break
        value = first
    return value


def _linear(value: ir.Value) -> tuple[ir.Node | None, np.ndarray | None]:
    """The MatMul and the bias that give a value."""
    node, bias = value.producer(), None
    if node is not None and node.op_type == "Add":
        found = [(g.constant_of(one), other) for one, other in (node.inputs, node.inputs[::-1])]
        bias, product = next(((array, rest) for array, rest in found if array is not None), (None, None))
        node = product.producer() if bias is not None and bias.ndim == 1 and product is not None else None
    return (node, bias) if node is not None and node.op_type == "MatMul" else (None, None)


def _columns(graph: ir.Graph, joint: ir.Value, heads: Sequence[ir.Value], width: int) -> list[np.ndarray]:
    """For each value (B, h, N, d) the columns (h, d) of the joint one (B, N, width) that it holds."""
    from onnx.reference import ReferenceEvaluator

    part = ir.convenience.extract(graph, [joint], list(heads))
    dims = [dim or 1 for dim in g.static_shape(joint) or ()]
    numbers = np.broadcast_to(np.arange(width, dtype=np.float32), dims)
    evaluator = ReferenceEvaluator(ir.to_proto(ir.Model(part, ir_version=g.IR_VERSION)))
    found = evaluator.run(None, {joint.name or "": numbers})
    return [np.asarray(each)[0, :, 0].astype(np.int64) for each in found]
