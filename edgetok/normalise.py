"""One spelling for every graph, whatever exported it."""

from __future__ import annotations

import onnx_ir as ir

from edgetok.view.masks import Mask, classify


def normalise(model: ir.Model) -> None:
    """Bring a graph into edgetok's spelling, in place."""
    for node in [node for node in model.graph if node.op_type == "Attention" and len(node.inputs) > 3]:
        if classify(model.graph, node.inputs[3]) is Mask.NONE:
            node.resize_inputs(3)
