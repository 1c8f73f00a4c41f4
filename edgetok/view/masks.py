"""Attention masks, classified by computing them: what a mask does is known, however it is spelt."""

from __future__ import annotations

from enum import Enum

import numpy as np
import onnx_ir as ir

from edgetok import graph as g

BARRED = -1e4  # an additive mask at or below this bars a key


class Mask(Enum):
    """What an attention mask does."""

    NONE = "none"
    KEY_PADDING = "key padding"
    CAUSAL = "causal"
    BIAS = "bias that differs between queries"


def classify(graph: ir.Graph, mask: ir.Value | None) -> Mask:
    """Evaluate the mask's part of the graph on full, right-padded and scattered inputs and say what it does."""
    if mask is None:
        return Mask.NONE
    arrays = [g.evaluate(graph, [mask], feeds)[0] for feeds in _feeds(graph)]
    allowed = [array if array.dtype == bool else _as_bool(array) for array in arrays]
    if any(array is None for array in allowed):
        return Mask.BIAS
    if all(array.all() for array in allowed):  # type: ignore[union-attr]
        return Mask.NONE
    if all((array == array[..., :1, :]).all() for array in allowed):  # type: ignore[index]
        return Mask.KEY_PADDING
    full = allowed[0]
    assert full is not None
    if not np.triu(np.broadcast_to(full, (*full.shape[:-2], full.shape[-1], full.shape[-1])), k=1).any():
        return Mask.CAUSAL
    return Mask.BIAS


def _as_bool(additive: np.ndarray) -> np.ndarray | None:
    """An additive mask as booleans, None when it holds anything but 0 and "barred"."""
    barred = additive <= BARRED
    return ~barred if (additive[~barred] == 0).all() else None


def _feeds(graph: ir.Graph) -> list[dict[str, np.ndarray]]:
    """Inputs without padding, padded on the right, and with gaps; two samples each."""
    draw = np.random.default_rng(0)
    kinds = []
    for kind in ("full", "right", "gaps"):
        feeds = {}
        for value in graph.inputs:
            shape = [dim if isinstance(dim, int) else 2 for dim in value.shape or ()]
            dtype = value.dtype.numpy() if value.dtype else np.dtype(np.float32)
            if dtype.kind not in "iub":
                feeds[value.name] = np.zeros(shape, dtype)
            elif kind == "full" or len(shape) < 2:
                feeds[value.name] = np.ones(shape, dtype)
            elif kind == "right":  # the second sample keeps a third
                length = np.array([shape[1], max(1, shape[1] // 3)])[: shape[0]]
                row = np.arange(shape[1])[None] < np.resize(length, shape[0])[:, None]
                feeds[value.name] = np.broadcast_to(row.reshape(*row.shape, *[1] * (len(shape) - 2)), shape).astype(
                    dtype
                )
            else:
                feeds[value.name] = draw.integers(0, 2, shape).astype(dtype)
        kinds.append(feeds)
    return kinds  # type: ignore[return-value]
