"""Split into unequal parts -> one Slice a part: the last one reaches to the end, however long the axis is."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgetok import graph as g


def cut_by_slices(model: ir.Model) -> None:
    """Rewrite every Split of a prefix from what is behind it (class token and registers from patches), in place.

    Splits of the last axis stay: their parts are channels.
    """
    for node in list(model.graph):
        if node.op_type != "Split" or len(node.inputs) < 2:
            continue
        source, sizes = node.inputs[0], g.ints_of(node.inputs[1])
        rank = g.rank(source) if source is not None else None
        if sizes is None or rank is None or len(set(sizes)) == 1:
            continue
        axis = int(g.attribute(node, "axis", 0)) % rank  # type: ignore[call-overload]
        if axis == rank - 1:
            continue
        op = g.Emitter(model.graph, before=node)
        ends = [*np.cumsum(sizes)[:-1].tolist(), g.LAST]
        for part, start, end in zip(list(node.outputs), [0, *ends], ends, strict=False):
            g.take_place(part, op.Slice(source, np.array([start]), np.array([end]), np.array([axis])))
