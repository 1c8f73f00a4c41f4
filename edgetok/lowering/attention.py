"""Attention as MatMul, Softmax and MatMul, for a TensorRT that does not import the node, or builds none in fp32.

ONNX's Attention (opset 23): heads apart, (B, h, N, d), or joined, (B, N, h d); heads of keys that several heads of
queries share; masks that are added and masks that bar; causal; softcap. The scale goes onto q, where fp16 has room for
it. What is barred gets the least number of the type and not -inf: a query that sees no key gets the mean of the values,
not NaN. Past keys and the operator's further outputs are left to the node.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgetok import graph as g


def decompose(graph: ir.Graph, node: ir.Node) -> bool:
    """Put standard products in the node's place; False where it is left as it is."""
    q, k, v, mask = (*node.inputs, None)[:4]
    further = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    if q is None or k is None or v is None or q.dtype is None or further or any(node.inputs[4:]):
        return False
    shapes = [g.static_shape(value) for value in (q, k, v)]
    if any(shape is None or len(shape) not in (3, 4) for shape in shapes):
        return False
    joined = len(shapes[0]) == 3  # type: ignore[arg-type]
    heads, shared = (
        (g.attribute(node, "q_num_heads"), g.attribute(node, "kv_num_heads"))
        if joined
        else (shapes[0][1], shapes[1][1])  # type: ignore[index]
    )
    widths = [shape[-1] for shape in shapes if shape is not None]
    if not isinstance(heads, int) or not isinstance(shared, int) or None in widths:
        return False
    groups = heads // shared
    if groups > 1 and mask is not None and not _spreads(mask):
        return False
    op = g.Emitter(graph, before=node)
    width, values = (widths[0] // heads, widths[2] // shared) if joined else (widths[0], widths[2])  # type: ignore[operator]
    q = _scaled(op, q, float(g.attribute(node, "scale", width**-0.5)))  # type: ignore[arg-type]
    if joined:
        q, k, v = (
            op.Transpose(op.Reshape(x, np.int64([0, 0, count, -1])), perm=[0, 2, 1, 3])
            for x, count in ((q, heads), (k, shared), (v, shared))
        )
    if groups > 1:  # (B, shared, groups, N, d), against (B, shared, 1, M, d)
        q = op.Reshape(q, np.int64([0, shared, groups, -1, width]))
        k, v = (op.Unsqueeze(x, np.int64([2])) for x in (k, v))
        mask = op.Unsqueeze(mask, np.int64([2])) if mask is not None and g.rank(mask) == 4 else mask
    dtype = node.inputs[0].dtype.numpy()  # type: ignore[union-attr]
    turned = op.Transpose(k, perm=[0, 1, 3, 2] if groups == 1 else [0, 1, 2, 4, 3])
    scores = g.named(op.MatMul(q, turned), f"{node.name}.scores")
    if cap := g.attribute(node, "softcap", 0.0):
        limit = np.array(cap, dtype)
        scores = op.Mul(op.Tanh(op.Div(scores, limit)), limit)
    least = np.array(np.finfo(dtype).min, dtype)
    if g.attribute(node, "is_causal", 0):
        scores = op.Where(_earlier(op, scores), scores, least)
    if mask is not None:
        barring = mask.dtype == ir.DataType.BOOL
        scores = op.Where(mask, scores, least) if barring else op.Add(scores, mask)
    weights = g.named(op.Softmax(scores, axis=-1), f"{node.name}.Softmax")
    attended = g.named(op.MatMul(weights, v), node.name or "")
    if groups > 1:
        attended = op.Reshape(attended, np.int64([0, heads, -1, values]))
    if joined:
        attended = op.Reshape(op.Transpose(attended, perm=[0, 2, 1, 3]), np.int64([0, 0, -1]))
    g.take_place(node.outputs[0], attended)
    graph.remove(node, safe=True)
    return True


def _scaled(op: g.Emitter, q: ir.Value, scale: float) -> ir.Value:
    """q times the scale; of rounded queries the step takes it, so that the product still reads integers."""
    node = q.producer()
    step = g.constant_of(node.inputs[1]) if node is not None and node.op_type == "DequantizeLinear" else None
    if node is None or step is None:
        assert q.dtype is not None
        scaled: ir.Value = op.Mul(q, np.array(scale, q.dtype.numpy()))
        return scaled
    copy = op.DequantizeLinear(node.inputs[0], step * step.dtype.type(scale), *node.inputs[2:], **_attributes(node))
    return g.named(g.typed(copy, q.dtype, list(q.shape or ())), node.name or "")


def _attributes(node: ir.Node) -> dict[str, object]:
    return {name: attribute.value for name, attribute in node.attributes.items()}


def _spreads(mask: ir.Value) -> bool:
    """Whether a mask is the same for all heads."""
    shape = g.static_shape(mask)
    return shape is not None and (len(shape) == 2 or (len(shape) == 4 and shape[1] == 1))


def _earlier(op: g.Emitter, scores: ir.Value) -> ir.Value:
    """(N, M) bool: which keys are no later than the query."""
    both = op.Slice(op.Shape(scores), np.int64([-2]), np.int64([g.LAST]))
    kept: ir.Value = op.Cast(op.Trilu(op.Expand(np.float32(1), both), upper=0), to=ir.DataType.BOOL)
    return kept
