"""GroupNormalization -> InstanceNormalization of each group, then the scale and bias of each channel.

ONNX Runtime has no kernel of GroupNormalization for the CPU and computes its function: the variance as the mean of
squares less the square of the mean, in fp32, which loses what two numbers of one size share. Its kernel of
InstanceNormalization takes the squares behind the mean.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgetok import graph as g


def spell_group_norm(model: ir.Model) -> None:
    """Spell every GroupNormalization in fp32 whose weights are constants, in place."""
    for node in list(model.graph):
        if node.op_type == "GroupNormalization" and node.domain == "":
            _spell(g.Emitter(model.graph, before=node), node)


def _spell(op: g.Emitter, node: ir.Node) -> None:
    x, *weights = node.inputs
    scale, bias = (g.constant_of(value) for value in weights)
    if x is None or x.shape is None or x.dtype != ir.DataType.FLOAT or scale is None or bias is None:
        return
    groups, epsilon = int(g.attribute(node, "num_groups")), float(g.attribute(node, "epsilon", 1e-5))  # type: ignore[call-overload, arg-type]
    shape, ones = list(x.shape), np.ones(groups, np.float32)
    grouped = g.typed(op.Reshape(x, np.array([0, groups, -1])), x.dtype, [shape[0], groups, None])
    normed = op.InstanceNormalization(grouped, ones, 0 * ones, epsilon=epsilon)
    sizes = [0, *(dim if isinstance(dim, int) else -1 for dim in shape[1:])]
    target = np.array(sizes) if sizes.count(-1) < 2 else op.Shape(x)
    whole = g.typed(op.Reshape(g.typed(normed, x.dtype, [shape[0], groups, None]), target), x.dtype, shape)
    each = [-1, *(1 for _ in shape[2:])]
    scaled = g.typed(op.Mul(whole, scale.reshape(each)), x.dtype, shape)
    g.take_place(node.outputs[0], op.Add(scaled, bias.reshape(each)))
