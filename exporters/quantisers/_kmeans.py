"""Weighted k-means of numbers, for many sets of them at once.

In one dimension a cluster is a range of the sorted numbers, so that its mean comes from prefix sums, and a round of
Lloyd's algorithm costs a binary search for each boundary, however many numbers there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetok.exporters.quantisers import _blocks

ROUNDS = 300  # of Lloyd's algorithm; more change the error of real matrices by less than 1e-5 of it


def centres(values: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """(R, M) numbers with weights -> (R, count) ascending centres; deterministic.

    Where Lloyd's algorithm moves nothing any more, the two neighbours that cost least together become one cluster and
    the cluster that gains most becomes two, as long as that lowers the squared error: an empty cluster costs nothing.
    """
    numbers = _Sorted.of(values, weights)
    centre = numbers.spread(count)
    before = np.full((len(values), count - 1), -1)
    for _ in range(ROUNDS):
        inner = _places(numbers.values, _blocks.midpoints(centre))  # (R, count - 1)
        ends = np.zeros((len(values), 1), inner.dtype)
        bounds = np.concatenate([ends, inner, ends + values.shape[1]], axis=1)
        settled = (inner == before).all(axis=1)
        mass, moment = numbers.sums(bounds)
        centre = np.where(mass > 0, moment / np.where(mass > 0, mass, 1), centre)
        if settled.any():
            exchanged, better = _exchanged(numbers, bounds, centre)
            if not (better | ~settled).any():
                break
            centre = np.where((settled & better)[:, None], exchanged, centre)
        before = inner
    return np.sort(centre, axis=1)


@dataclass(frozen=True)
class _Sorted:
    """Numbers (R, M) ascending, and prefix sums (R, M + 1) of their weights and of weight times number."""

    values: np.ndarray
    weights: np.ndarray
    mass: np.ndarray
    moment: np.ndarray

    @staticmethod
    def of(values: np.ndarray, weights: np.ndarray) -> _Sorted:
        order = np.argsort(values, axis=1, kind="stable")
        values = np.take_along_axis(values, order, axis=1).astype(np.float64)
        weights = np.take_along_axis(weights, order, axis=1).astype(np.float64)
        prefixes = (np.pad(np.cumsum(each, axis=1), ((0, 0), (1, 0))) for each in (weights, weights * values))
        return _Sorted(values, weights, *prefixes)

    def sums(self, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(R, B + 1) places -> (R, B) weights, and weights times numbers, between them."""
        mass, moment = (np.diff(np.take_along_axis(each, bounds, axis=1)) for each in (self.mass, self.moment))
        return mass, moment

    def spread(self, count: int) -> np.ndarray:
        """Where the centres start: (R, count) ascending.

        The best quantiser of many levels has them as dense as the cube root of the weights' density (Panter and Dite,
        1951), and a gap between neighbours is the reciprocal of that density.
        """
        gaps = np.diff(self.values, axis=1, prepend=self.values[:, :1])
        share = np.cumsum(np.cbrt(np.square(gaps) * self.weights), axis=1)
        wanted = share[:, -1:] * (np.arange(count) + 0.5) / count
        return np.take_along_axis(self.values, np.minimum(_places(share, wanted), share.shape[1] - 1), axis=1)


def _exchanged(numbers: _Sorted, bounds: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (R, C) with two neighbours made one and another made two, and where that lowers the squared error."""
    mass, moment = numbers.sums(bounds)
    cost = _apart(mass[:, :-1], centre[:, :-1], mass[:, 1:], centre[:, 1:])
    middle = np.clip(_places(numbers.values, centre), bounds[:, :-1], bounds[:, 1:])
    halves = np.stack([bounds[:, :-1], middle], axis=2).reshape(len(centre), -1)
    half, half_moment = numbers.sums(np.concatenate([halves, bounds[:, -1:]], axis=1))
    means = np.where(half > 0, half_moment / np.where(half > 0, half, 1), np.repeat(centre, 2, axis=1))
    gain = _apart(half[:, ::2], means[:, ::2], half[:, 1::2], means[:, 1::2])
    row = np.arange(len(centre))
    joined = cost.argmin(axis=1)
    gain[row, joined] = gain[row, joined + 1] = 0
    split = gain.argmax(axis=1)
    both = mass[row, joined] + mass[row, joined + 1]
    mean = (moment[row, joined] + moment[row, joined + 1]) / np.where(both > 0, both, 1)
    new = centre.copy()
    new[row, joined] = np.where(both > 0, mean, centre[row, joined])
    new[row, joined + 1] = means[row, 2 * split]
    new[row, split] = means[row, 2 * split + 1]
    return np.sort(new, axis=1), gain[row, split] > cost[row, joined] * (1 + 1e-9)


def _apart(mass: np.ndarray, mean: np.ndarray, other_mass: np.ndarray, other_mean: np.ndarray) -> np.ndarray:
    """How much less the squared error of two clusters is than that of both as one."""
    both = mass + other_mass
    apart: np.ndarray = mass * other_mass / np.where(both > 0, both, 1) * np.square(mean - other_mean)
    return apart


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
