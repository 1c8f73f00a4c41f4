"""Comparisons of strings, by which the functions of some operators choose among forms: TensorRT has no strings.

Once a function is written out both sides are constants, and so is what they decide. Measured with TensorRT-RTX 1.7.1,
which refuses a Constant of a string and builds an If over a constant.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def lower(model: ir.Model) -> None:
    """Put the answer in the place of each Equal of two constant strings, in place."""
    for node in list(model.graph.all_nodes()):
        texts = [_text(value) for value in node.inputs] if node.op_type == "Equal" and not node.domain else []
        if not texts or None in texts or node.graph is None:
            continue
        answer = ir.tensor(np.array(texts[0] == texts[1]))
        made = ir.Node("", "Constant", [], [ir.AttrTensor("value", answer)], name=node.name)
        ir.convenience.replace_nodes_and_values(node.graph, node, [node], [made], node.outputs, made.outputs)


def _text(value: ir.Value | None) -> str | None:
    producer = None if value is None else value.producer()
    attribute = None if producer is None else producer.attributes.get("value_string")
    return None if attribute is None else attribute.as_string()
