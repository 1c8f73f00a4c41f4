"""MatMul, scale, mask, Softmax, MatMul -> one Attention node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.view.masks import BARRED


@dataclass
class _Scores:
    """softmax(scale * query @ key^T + masks), read backwards from the Softmax.

    Attributes:
        scale: factor of the product, of q and of k together.
        masks: what is added to the scores.
        fills: (condition, whether it names the barred pairs) of every Where that bars.
    """

    scale: float
    masks: list[ir.Value]
    fills: list[tuple[ir.Value, bool]]
    query: ir.Value
    key_transposed: ir.Value


def fuse_attention(model: ir.Model) -> None:
    """Fuse every attention on (B, h, N, d), in place."""
    graph = model.graph
    for node in list(graph):
        if node.op_type != "Softmax":
            continue
        product, scores = _weighted_sum(node), _scores(node.inputs[0])
        if product is None or scores is None:
            continue
        value = product.inputs[1]
        ranks = [g.rank(v) for v in (scores.query, scores.key_transposed, value)]  # type: ignore[arg-type]
        if ranks != [4, 4, 4] or g.attribute(node, "axis", -1) not in (-1, 3):
            continue
        op = g.Emitter(graph, before=product)
        inputs = [scores.query, _key(op, scores.key_transposed), value]
        if (mask := _mask(op, scores)) is not None:
            inputs.append(mask)
        attended = op.Attention(*inputs, scale=scores.scale)
        g.take_place(product.outputs[0], attended)


def _weighted_sum(softmax: ir.Node) -> ir.Node | None:
    """The MatMul that weights the values; None when the weights are used otherwise too."""
    value = softmax.outputs[0]
    while True:
        uses = g.consumers(value)
        if len(uses) != 1 or value.is_graph_output():
            return None
        node, index = uses[0]
        if node.op_type == "MatMul":
            return node if index == 0 else None
        if node.op_type not in ("Identity", "Dropout"):
            return None
        value = node.outputs[0]


def _scores(value: ir.Value | None) -> _Scores | None:
    scale = 1.0
    masks: list[ir.Value | None] = []
    fills: list[tuple[ir.Value | None, bool]] = []
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "MatMul":
            query, key = node.inputs
            assert query is not None and key is not None
            query, q_scale = _unscaled(query)
            key, k_scale = _unscaled(key)
            return _Scores(scale * q_scale * k_scale, masks, fills, query, key)  # type: ignore[arg-type]
        if node.op_type == "Add" and scale == 1.0:  # a mask added before the scale would be scaled with it
            side = next((i for i in (0, 1) if _holds_product(node.inputs[i])), None)
            if side is None:
                return None
            masks.append(node.inputs[1 - side])
            value = node.inputs[side]
        elif node.op_type == "Where" and scale == 1.0:
            side = next((i for i in (1, 2) if _holds_product(node.inputs[i])), None)
            fill = None if side is None else _scalar(node.inputs[3 - side])
            if side is None or fill is None or fill > BARRED:
                return None
            fills.append((node.inputs[0], side == 2))
            value = node.inputs[side]
        elif node.op_type in ("Mul", "Div"):
            value, factor = _unscaled(value)
            if factor == 1.0:
                return None
            scale *= factor
        elif node.op_type in ("Identity", "Dropout"):
            value = node.inputs[0]
        else:
            return None
    return None


def _holds_product(value: ir.Value | None) -> bool:
    """Whether a value is the product of two computed matrices, scaled and masked perhaps."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "MatMul":
            return all(g.constant_of(side) is None for side in node.inputs) and g.rank(value) == 4
        if node.op_type == "Add":
            return any(_holds_product(side) for side in node.inputs)
        if node.op_type == "Where":
            return any(_holds_product(side) for side in node.inputs[1:])
        if node.op_type not in ("Mul", "Div", "Identity", "Dropout"):
            return False
        value = _unscaled(value)[0] if node.op_type in ("Mul", "Div") else node.inputs[0]
        if value is node.outputs[0]:
            return False
    return False


def _unscaled(value: ir.Value) -> tuple[ir.Value, float]:
    """(x, s) where the value is x * s or x / (1 / s) with a constant s, else (value, 1)."""
    node = value.producer()
    if node is not None and node.op_type in ("Mul", "Div"):
        for side in (1, 0) if node.op_type == "Mul" else (1,):
            factor, other = _scalar(node.inputs[side]), node.inputs[1 - side]
            if factor and other is not None:
                return other, factor if node.op_type == "Mul" else 1 / factor
    return value, 1.0


def _scalar(value: ir.Value | None) -> float | None:
    array = g.constant_of(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def _key(op: g.Emitter, transposed: ir.Value) -> ir.Value:
    """(B, h, N, d) from the (B, h, d, N) that the MatMul read."""
    node, perm, source = transposed.producer(), [0, 1, 3, 2], transposed
    if node is not None and node.op_type == "Transpose":
        before = list(g.attribute(node, "perm"))  # type: ignore[call-overload]
        perm, source = [before[i] for i in perm], node.inputs[0]  # type: ignore[assignment]
    if perm == [0, 1, 2, 3]:
        return source
    dims = list(transposed.shape or ())
    return g.typed(op.Transpose(source, perm=perm), transposed.dtype, [dims[i] for i in (0, 1, 3, 2)])


def _mask(op: g.Emitter, scores: _Scores) -> ir.Value | None:
    """The sum of what is added, with queries and keys spelt out as onnxruntime's kernel wants them."""
    dtype = scores.query.dtype.numpy()  # type: ignore[union-attr]
    added = list(scores.masks)
    for condition, bars in scores.fills:
        zero, barred = np.array(0, dtype), np.array(np.finfo(dtype).min, dtype)
        filled = op.Where(condition, barred, zero) if bars else op.Where(condition, zero, barred)
        added.append(g.typed(filled, scores.query.dtype, list(condition.shape or ())))
    if not added:
        return None
    total = added[0]
    for mask in added[1:]:
        total = op.Add(total, mask)
    queries, keys = op.Shape(scores.query, start=2, end=3), op.Shape(scores.key_transposed, start=3, end=4)
    shape = g.static_shape(total) if len(added) == 1 else None
    if shape is None or len(shape) < 2 or shape[-2] == 1 or shape[-1] == 1:
        total = op.Expand(total, op.Concat(np.array([1, 1]), queries, keys, axis=0))
    return total
