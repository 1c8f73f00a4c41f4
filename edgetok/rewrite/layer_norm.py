"""LayerNorm spelt as mean, deviation, variance, quotient, scale and bias -> one LayerNormalization."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgetok import graph as g


def fuse_layer_norm(model: ir.Model) -> None:
    """Fuse every LayerNorm over the last axis, in place."""
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules.fusion._layer_norm import layer_normalization_rules

    _spell_out_means(model.graph)
    rewrite(model, layer_normalization_rules)


def _spell_out_means(graph: ir.Graph) -> None:
    """Write keepdims where it is left to its default, and axis rank - 1 as -1, as the rules expect it."""
    for node in graph:
        if node.op_type != "ReduceMean" or len(node.inputs) < 2:
            continue
        if "keepdims" not in node.attributes:
            node.attributes["keepdims"] = ir.AttrInt64("keepdims", 1)
        rank = g.rank(node.inputs[0])  # type: ignore[arg-type]
        if rank is not None and g.ints_of(node.inputs[1]) == [rank - 1]:
            node.replace_input_with(1, g.constant(graph, np.array([-1])))
