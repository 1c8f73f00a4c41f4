"""Attention that is causal by its attribute gets the mask that this stands for, so that masks alone say who sees whom.

torch writes `scaled_dot_product_attention(is_causal=True)` by the attribute, transformers' models by a mask.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgetok import graph as g


def spell_causality(graph: ir.Graph) -> None:
    """Write is_causal as a mask, in place, where numbers of queries and keys are fixed and none went before."""
    for node in list(graph):
        if node.op_type == "Attention" and node.domain == "" and g.attribute(node, "is_causal", 0):
            _spell(g.Emitter(graph, before=node), node)


def _spell(op: g.Emitter, node: ir.Node) -> None:
    query, key, _, mask, *past = (*node.inputs, None)[: max(4, len(node.inputs))]
    shapes = [value.shape for value in (query, key) if value is not None and value.shape is not None]
    lengths = [shape[-2] for shape in shapes]
    fixed = [length for length in lengths if isinstance(length, int)]
    if any(past) or len(fixed) < 2:
        return
    queries, keys = (np.arange(length) for length in fixed)
    seen = op.LessOrEqual(keys[None, None, None], queries[None, None, :, None])  # (1, 1, N, N), folded at loading
    seen = g.typed(seen, ir.DataType.BOOL, [1, 1, *fixed])
    if mask is not None:
        shape, dtype = mask.shape, mask.dtype
        if shape is None or dtype is None:
            return
        both = op.And(mask, seen) if dtype == ir.DataType.BOOL else op.Where(seen, mask, np.finfo(dtype.numpy()).min)
        seen = g.typed(both, dtype, [*(1 for _ in range(4 - len(shape))), *list(shape)[:-2], *fixed])
    node.attributes.pop("is_causal")
    node.resize_inputs(max(4, len(node.inputs)))
    node.replace_input_with(3, seen)
