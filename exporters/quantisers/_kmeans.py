"""Weighted k-means of numbers, for many sets of them at once.

In one dimension a cluster is a range of the sorted numbers, so that sums come from prefix sums, and a round of Lloyd's
algorithm costs a binary search for each boundary, however many numbers there are.
"""

from __future__ import annotations

import numpy as np

from edgetok.exporters.quantisers import _blocks

ROUNDS = 200


def centres(values: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """(R, M) numbers with weights > 0 -> (R, count) ascending centres; deterministic.

    It starts from quantiles by the cube root of the weights' density, where a best quantiser of many levels has them
    (Panter and Dite, 1951), and ends where no boundary moves. A cluster that becomes empty keeps its centre.
    """
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    weights = np.take_along_axis(weights.astype(np.float64), order, axis=1)
    mass, moment = _prefix_sums(weights), _prefix_sums(weights * ordered)
    centre = _spread(ordered, weights, count)
    ends = np.full((len(values), 1), values.shape[1])
    before = None
    for _ in range(ROUNDS):
        inner = _places(ordered, _blocks.midpoints(centre))  # (R, count - 1)
        if before is not None and np.array_equal(inner, before):
            break
        before = inner
        bounds = np.concatenate([np.zeros_like(ends), inner, ends], axis=1)
        total = np.diff(np.take_along_axis(mass, bounds, axis=1))
        sums = np.diff(np.take_along_axis(moment, bounds, axis=1))
        centre = np.where(np.diff(bounds) > 0, sums / np.where(total > 0, total, 1), centre)
    return centre


def _spread(ordered: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Where the centres start: (R, count) ascending."""
    bins = 256
    low, high = ordered[:, :1].astype(np.float64), ordered[:, -1:].astype(np.float64)
    width = np.where(high > low, high - low, 1) / bins
    bin_ = np.minimum((ordered - low) / width, bins - 1).astype(np.intp) + bins * np.arange(len(ordered))[:, None]
    density = np.bincount(bin_.ravel(), weights.ravel(), bins * len(ordered)).reshape(-1, bins)
    share = np.cumsum(np.cbrt(density), axis=1)
    wanted = share[:, -1:] * (np.arange(count) + 0.5) / count
    found = np.stack([(share < wanted[:, [i]]).sum(axis=1) for i in range(count)], axis=1)
    return low + (found + 0.5) * width


def _prefix_sums(values: np.ndarray) -> np.ndarray:
    return np.pad(np.cumsum(values, axis=1), ((0, 0), (1, 0)))


def _places(ordered: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(R, M) ascending, (R, B) -> (R, B): how many of a row are at most the bound; a binary search for all at once."""
    size = ordered.shape[1]
    low, high = np.zeros(bounds.shape, np.intp), np.full(bounds.shape, size)
    for _ in range(size.bit_length()):
        middle = (low + high) // 2
        right = np.take_along_axis(ordered, np.minimum(middle, size - 1), axis=1) <= bounds
        right &= middle < high
        low, high = np.where(right, middle + 1, low), np.where(right, high, middle)
    return low
