"""LayerNorm spelt as mean, deviation, variance, quotient, scale and bias -> one LayerNormalization."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgetok import graph as g


def fuse_layer_norm(model: ir.Model) -> None:
    """Fuse every LayerNorm over the last axis, in place."""
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules.fusion._layer_norm import layer_normalization_rules

    _count_axes_from_the_end(model.graph)
    rewrite(model, layer_normalization_rules)


def _count_axes_from_the_end(graph: ir.Graph) -> None:
    """ReduceMean over axis rank - 1 -> over axis -1, as the rules expect it."""
    for node in graph:
        if node.op_type != "ReduceMean" or len(node.inputs) < 2:
            continue
        rank = g.rank(node.inputs[0])  # type: ignore[arg-type]
        if rank is not None and g.ints_of(node.inputs[1]) == [rank - 1]:
            node.replace_input_with(1, g.constant(graph, np.array([-1])))
