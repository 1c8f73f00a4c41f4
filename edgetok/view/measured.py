"""Values of a view's graph on samples, without a trace in the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    import numpy as np


def on_samples(
    model: ir.Model, values: Mapping[str, ir.Value], run: Callable[[ir.Model], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What typed values are, by the names that they get here; nodes that nothing else needs are gone afterwards.

    Args:
        model: holds the values; it ends with the outputs that it had.
        values: by name.
        run: runs a graph on samples.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    if not values:
        return {}
    graph = model.graph
    outputs = list(graph.outputs)
    for name, value in values.items():
        value.name = name
    graph.sort()
    graph.outputs[:] = values.values()
    copy = model.clone()
    graph.outputs[:] = outputs
    RemoveUnusedNodesPass()(copy)
    RemoveUnusedNodesPass()(model)
    return run(copy)
