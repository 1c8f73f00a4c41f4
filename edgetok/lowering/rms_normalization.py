"""RMSNormalization by ReduceMean and products, for a TensorRT that does not import the node (before 10.15).

ONNX's RMSNormalization (opset 23): the squares' mean is taken in fp32, whatever the type of the rows.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgetok import graph as g


def decompose(graph: ir.Graph, node: ir.Node) -> bool:
    """Put standard operators in the node's place; False where the rank of its input is not known."""
    x, scale = node.inputs
    if x is None or scale is None or x.dtype is None or g.rank(x) is None:
        return False
    op, rank, axis = g.Emitter(graph, before=node), g.rank(x), g.attribute(node, "axis", -1)
    assert isinstance(rank, int) and isinstance(axis, int)
    axes = np.arange(axis % rank, rank, dtype=np.int64)
    wide = x if x.dtype == ir.DataType.FLOAT else op.Cast(x, to=ir.DataType.FLOAT)
    mean = op.Add(op.ReduceMean(op.Mul(wide, wide), axes), np.float32(g.attribute(node, "epsilon", 1e-5)))
    rows = op.Div(wide, op.Sqrt(mean))
    rows = rows if x.dtype == ir.DataType.FLOAT else op.Cast(rows, to=x.dtype)
    g.take_place(node.outputs[0], g.named(op.Mul(rows, scale), node.name or ""))
    graph.remove(node, safe=True)
    return True
