"""Counting the prefix tokens (CLS, distillation, registers): leading rows that no input can change."""

from __future__ import annotations

import onnx_ir as ir

from edgetok import graph as g

ELEMENTWISE = {
    "Add",
    "Mul",
    "Sub",
    "Div",
    "Where",
    "LayerNormalization",
    "RMSNormalization",
    "Identity",
    "Cast",
    "Dropout",
}


def prefix_tokens(stream: ir.Value, axis: int = 1) -> int:
    """Leading rows of a (B, N, C) value that are the same for every input."""
    shape = g.static_shape(stream)
    total = shape[axis] if shape and len(shape) > axis else None
    if g.is_data_free(stream):
        return total or 0
    node = stream.producer()
    if node is None:
        return 0
    if node.op_type == "Concat" and g.attribute(node, "axis") in (axis, axis - 3):
        count = 0
        for value in node.inputs:
            assert value is not None
            rows = prefix_tokens(value, axis)
            count += rows
            shape = g.static_shape(value)
            if shape is None or shape[axis] != rows:
                break
        return count
    if node.op_type == "Slice":
        starts, ends, axes = (g.ints_of(value) for value in node.inputs[1:4])
        if starts is None or ends is None or axes not in ([axis], [axis - 3]):
            return 0
        rows = prefix_tokens(node.inputs[0], axis)  # type: ignore[arg-type]
        return max(0, min(rows, ends[0] if ends[0] >= 0 else rows) - max(starts[0], 0))
    if node.op_type in ELEMENTWISE:
        return min(
            prefix_tokens(value, axis) for value in node.inputs if value is not None and not g.is_data_free(value)
        )
    return 0
