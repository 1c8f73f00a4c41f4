"""Attention as MatMul, Softmax and MatMul, for a TensorRT that does not import the node, or builds none in fp32.

ONNX's Attention (opset 23): heads apart, (B, h, N, d), or joined, (B, N, h d); heads of keys that several heads of
queries share; masks that are added and masks that bar; causal; softcap. The scale goes onto q, where fp16 has room for
it. What is barred gets the least number of the type and not -inf: a query that sees no key gets the mean of the values,
not NaN. Past keys and the operator's further outputs are left to the node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgetok import graph as g


@dataclass(frozen=True)
class _Form:
    """How heads lie: joined in the last axis or apart; those of queries, and of keys that they share; their widths."""

    joined: bool
    heads: int
    shared: int
    width: int
    values: int

    @property
    def groups(self) -> int:
        return self.heads // self.shared


def decompose(graph: ir.Graph, node: ir.Node) -> bool:
    """Put standard products in the node's place; False where it is left as it is."""
    form = _form(node)
    if form is None:
        return False
    op, dtype = g.Emitter(graph, before=node), node.inputs[0].dtype.numpy()  # type: ignore[union-attr]
    q, k, v, mask = (*node.inputs, None)[:4]
    assert q is not None and k is not None and v is not None
    q = _scaled(op, q, g.attribute(node, "scale", form.width**-0.5))
    if form.joined:
        q, k, v = (
            op.Transpose(op.Reshape(x, _shape(0, 0, count, -1)), perm=[0, 2, 1, 3])
            for x, count in ((q, form.heads), (k, form.shared), (v, form.shared))
        )
    if form.groups > 1:  # (B, shared, groups, N, d), against (B, shared, 1, M, d)
        q = op.Reshape(q, _shape(0, form.shared, form.groups, -1, form.width))
        k, v = (op.Unsqueeze(x, _shape(2)) for x in (k, v))
        mask = op.Unsqueeze(mask, _shape(2)) if mask is not None and g.rank(mask) == 4 else mask
    turned = op.Transpose(k, perm=[0, 1, 3, 2] if form.groups == 1 else [0, 1, 2, 4, 3])
    scores = _masked(op, g.named(op.MatMul(q, turned), f"{node.name}.scores"), node, mask, dtype)
    weights = g.named(op.Softmax(scores, axis=-1), f"{node.name}.Softmax")
    attended = g.named(op.MatMul(weights, v), node.name or "")
    if form.groups > 1:
        attended = op.Reshape(attended, _shape(0, form.heads, -1, form.values))
    if form.joined:
        attended = op.Reshape(op.Transpose(attended, perm=[0, 2, 1, 3]), _shape(0, 0, -1))
    g.take_place(node.outputs[0], attended)
    graph.remove(node, safe=True)
    return True


def _form(node: ir.Node) -> _Form | None:
    """None where the node is of a form that is left to it, or does not say what it is of."""
    q, k, v, mask = (*node.inputs, None)[:4]
    further = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    if q is None or k is None or v is None or q.dtype is None or further or any(node.inputs[4:]):
        return None
    q_shape, k_shape, v_shape = (g.static_shape(value) for value in (q, k, v))
    if q_shape is None or k_shape is None or v_shape is None or {len(q_shape), len(k_shape)} not in ({3}, {4}):
        return None
    joined = len(q_shape) == 3
    named = g.attribute(node, "q_num_heads"), g.attribute(node, "kv_num_heads")
    heads, shared = named if joined else (q_shape[1], k_shape[1])
    width, values = q_shape[-1], v_shape[-1]
    if not (isinstance(heads, int) and isinstance(shared, int) and isinstance(width, int) and isinstance(values, int)):
        return None
    if heads > shared and mask is not None and not _spreads(mask):
        return None
    return _Form(joined, heads, shared, width // heads if joined else width, values // shared if joined else values)


def _masked(op: g.Emitter, scores: ir.Value, node: ir.Node, mask: ir.Value | None, dtype: np.dtype) -> ir.Value:
    """The scores behind softcap, causality and mask."""
    least = np.array(np.finfo(dtype).min, dtype)
    if cap := g.attribute(node, "softcap", 0.0):
        limit = np.array(cap, dtype)
        scores = op.Mul(op.Tanh(op.Div(scores, limit)), limit)
    if g.attribute(node, "is_causal", 0):
        scores = op.Where(_earlier(op, scores), scores, least)
    if mask is None:
        return scores
    masked: ir.Value = op.Where(mask, scores, least) if mask.dtype == ir.DataType.BOOL else op.Add(scores, mask)
    return masked


def _shape(*dims: int) -> np.ndarray:
    return np.array(dims, np.int64)


def _scaled(op: g.Emitter, q: ir.Value, scale: object) -> ir.Value:
    """q times the scale; of rounded queries the step takes it, so that the product still reads integers."""
    node = q.producer()
    step = g.constant_of(node.inputs[1]) if node is not None and node.op_type == "DequantizeLinear" else None
    if node is None or step is None:
        assert q.dtype is not None
        scaled: ir.Value = op.Mul(q, np.array(scale, q.dtype.numpy()))
        return scaled
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    smaller = (step * np.array(scale, step.dtype)).astype(step.dtype)
    copy = op.DequantizeLinear(node.inputs[0], smaller, *node.inputs[2:], **attributes)
    return g.named(g.typed(copy, q.dtype, list(q.shape or ())), node.name or "")


def _spreads(mask: ir.Value) -> bool:
    """Whether a mask is the same for all heads."""
    shape = g.static_shape(mask)
    return shape is not None and (len(shape) == 2 or (len(shape) == 4 and shape[1] == 1))


def _earlier(op: g.Emitter, scores: ir.Value) -> ir.Value:
    """(N, M) bool: which keys are no later than the query."""
    both = op.Slice(op.Shape(scores), _shape(-2), _shape(g.LAST))
    kept: ir.Value = op.Cast(op.Trilu(op.Expand(np.float32(1), both), upper=0), to=ir.DataType.BOOL)
    return kept
