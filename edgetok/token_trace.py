"""Where each original token is behind every reduction of a bundle's graph, for one input.

A technique's choice is what `MergeTokens`, `SumTokens` and `KeepTokens` apply, so their indices say it all: they are
made outputs of a copy of the graph, and composed on the host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

PREFIX = "edgetok_trace_"
INDICES = {"MergeTokens": (2, 3, 4), "SumTokens": (2, 3, 4), "KeepTokens": (1,)}  # order, destination, kept; index


@dataclass(frozen=True)
class Applied:
    """One reduction: the block, and the outputs that hold its indices."""

    block: int
    outputs: tuple[str, ...]


def watched(model: Path) -> tuple[bytes, tuple[Applied, ...]]:
    """A graph that also gives out what its reductions apply, in the order they act.

    Args:
        model: a bundle's graph, or one lowered from it; external data stays where it is.
    """
    import onnx
    from onnx import helper

    proto = onnx.load(model, load_external_data=False)
    found: dict[tuple[str, ...], Applied] = {}  # what belongs to the tokens is reduced by the same indices
    for node in proto.graph.node:
        place = re.match(r"blocks\.(\d+)/reduce/", node.name)
        if place is None or node.op_type not in INDICES:
            continue
        values = tuple(node.input[i] for i in INDICES[node.op_type])
        names = tuple(f"{PREFIX}{len(found)}_{i}" for i in range(len(values)))
        found.setdefault(values, Applied(int(place[1]), names))
    for values, applied in found.items():
        for value, name in zip(values, applied.outputs, strict=True):  # an Identity, for some are constants
            proto.graph.node.append(helper.make_node("Identity", [value], [name]))
            proto.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None))
    return proto.SerializeToString(), tuple(found.values())


def compose(applied: Sequence[Applied], outputs: Mapping[str, np.ndarray], tokens: int) -> dict[int, np.ndarray]:
    """Follow the tokens of the first sample.

    Args:
        applied: what `watched` found.
        outputs: of its graph.
        tokens: N, before the first reduction.

    Returns:
        For each block that reduces, (N,) int64: the row that each original token is in behind it, -1 where it is gone.
        Empty where the reductions do not follow one another, as where samples share their tokens.
    """
    import numpy as np

    rows, count = np.arange(tokens), tokens
    behind: dict[int, np.ndarray] = {}
    for each in applied:
        order, *merging = (outputs[name][0] for name in each.outputs)
        destination, kept = merging or (order[:0], len(order))  # what is dropped is not in the order
        if len(order) != kept + len(destination) or order.max(initial=0) >= count:
            return {}
        moved = np.full(count, -1)
        moved[order[:kept]] = np.arange(kept)
        moved[order[kept:]] = destination
        rows = np.where(rows >= 0, moved[rows], -1)
        count = kept
        behind[each.block] = rows
    return behind
