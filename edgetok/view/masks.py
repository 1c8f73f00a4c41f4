"""Attention masks, classified by computing them: what a mask does is known, however it is spelt."""

from __future__ import annotations

from dataclasses import dataclass
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
    PAIRS = "bars pairs of positions"
    BIAS = "bias that differs between queries"


@dataclass(frozen=True)
class Masking:
    """What an attention mask does, and how far a position sees.

    Attributes:
        kind: what it does besides.
        reach: the largest distance of a key that a position attends to, where attention is local; else None.
    """

    kind: Mask
    reach: int | None = None


def classify(graph: ir.Graph, mask: ir.Value | None) -> Masking:
    """Evaluate the mask's part of the graph on full, right-padded and scattered inputs and say what it does."""
    if mask is None:
        return Masking(Mask.NONE)
    arrays = [g.evaluate(graph, [mask], feeds)[0] for feeds in _feeds(graph)]
    allowed = [bars for array in arrays if (bars := array if array.dtype == bool else _as_bool(array)) is not None]
    if len(allowed) < len(arrays):
        return Masking(Mask.BIAS)
    if all(array.all() for array in allowed):
        return Masking(Mask.NONE)
    if all((array == array[..., :1, :]).all() for array in allowed):
        return Masking(Mask.KEY_PADDING)
    full = allowed[0]
    if not np.triu(np.broadcast_to(full, (*full.shape[:-2], full.shape[-1], full.shape[-1])), k=1).any():
        return Masking(Mask.CAUSAL)
    return _window(allowed) or Masking(Mask.PAIRS)


def _window(allowed: list[np.ndarray]) -> Masking | None:
    """Masks that let each position see the keys up to a distance, padding apart; None where they do anything else."""
    queries, keys = allowed[0].shape[-2:]
    if queries != keys:
        return None
    distance = np.abs(np.arange(keys) - np.arange(keys)[:, None])
    reach = int((distance * allowed[0]).max())
    real = [np.diagonal(array, axis1=-2, axis2=-1)[..., None, :] for array in allowed]  # a token always sees itself
    if not all((array == (row & (distance <= reach))).all() for array, row in zip(allowed, real, strict=True)):
        return None
    return Masking(Mask.NONE if all(row.all() for row in real) else Mask.KEY_PADDING, reach)


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
