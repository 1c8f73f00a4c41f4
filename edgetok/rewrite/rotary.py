"""RotaryEmbedding with one table for the whole batch -> with one for each sample.

PyTorch's exporter writes tables of batch 1 where they are too large to be folded (a Llama's of 2048 positions). ONNX
asks for the batch's own size, and ONNX Runtime refuses to run the others from batch 2 on (1.32.0).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgetok import graph as g


def spread_rotary_tables(graph: ir.Graph) -> None:
    """Expand tables that are the same for all inputs over the batch, in place."""
    spread: dict[ir.Value, ir.Value | None] = {}
    for node in graph:
        if node.op_type != "RotaryEmbedding" or (len(node.inputs) > 3 and node.inputs[3] is not None):
            continue
        for place, table in enumerate(node.inputs[1:3], 1):
            assert table is not None
            if table not in spread:
                spread[table] = _of_batch(graph, node, table) if g.is_data_free(table) else None
            if (wide := spread[table]) is not None:
                node.replace_input_with(place, wide)


def _of_batch(graph: ir.Graph, node: ir.Node, table: ir.Value) -> ir.Value | None:
    """(B, N, d / 2) of a (1, N, d / 2), for a node that turns (B, h, N, d); None where B is 1 or unknown."""
    shape = node.inputs[0].shape  # type: ignore[union-attr]
    if shape is None or len(shape) != 4 or shape[0] == 1:
        return None
    op, batch = g.Emitter(graph, before=node), shape[0]
    if isinstance(batch, int):
        wide = op.Expand(table, np.array([batch, 1, 1]))
    else:
        lead = next((value for value in graph.inputs if value.shape and value.shape[0] == batch), None)
        if lead is None:
            return None
        wide = op.Expand(table, op.Concat(op.Shape(lead, start=0, end=1), np.array([1, 1]), axis=0))
    turned = g.attribute(node, "rotary_embedding_dim", 0) or shape[3]
    half = turned // 2 if isinstance(turned, int) else None
    return g.typed(wide, table.dtype or node.inputs[0].dtype, [batch, shape[2], half])  # type: ignore[union-attr]
