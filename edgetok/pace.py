"""Whether the runs of a measurement went at one pace: a spell of slower runs, or two speeds that alternate.

A spell is sought by ranks, as Pettitt seeks one change (A non-parametric approach to the change-point problem,
Applied Statistics 28, 1979), for every stretch of the runs against the others: Mann and Whitney's statistic as a
normal score. Two speeds show where fewer runs lie between two medians than around either: no distribution with one peak
has less in an interval than in both of two that enclose it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import comb, log, sqrt
from statistics import median

MATERIAL = 0.05  # what is less apart is not told
WINDOWS, WINDOW_RUNS = 20, 4  # a stretch is made of windows: at most so many, of at least so many runs
SCORE = 4.0  # normal score; by chance alone in less than 1 % of all measurements, over the 210 stretches of 20 windows
SHARE, CHANCE = 0.1, 1e-3  # the least share of a speed, and how likely the gap between two may be by chance


@dataclass(frozen=True)
class Spell:
    """A stretch of the runs that took longer than the others.

    Attributes:
        first, last: its runs, counted from 1, both within.
        ratio: of its median to the others'.
    """

    first: int
    last: int
    ratio: float


@dataclass(frozen=True)
class TwoSpeeds:
    """Runs that gather around two times.

    Attributes:
        fast, slow: the medians of the two groups, in the unit of the runs.
        share: of the runs that are in the slow one.
    """

    fast: float
    slow: float
    share: float


def slow_spell(times: Sequence[float]) -> Spell | None:
    """The stretch that stands out most, if it is slower by more than MATERIAL.

    Args:
        times: of the runs, in the order they were made.
    """
    n = len(times)
    count = min(WINDOWS, n // WINDOW_RUNS)
    edges = [n * i // count for i in range(count + 1)] if count else []
    below = list(accumulate(_ranks(times), initial=0.0))  # below[i]: sum of the ranks of the first i runs
    best, place = SCORE, None
    for i, start in enumerate(edges):
        for end in edges[i + 1 :]:
            inside, outside = end - start, n - end + start
            if outside:
                expected, deviation = inside * (n + 1) / 2, sqrt(inside * outside * (n + 1) / 12)
                score = (below[end] - below[start] - expected) / deviation
                if score > best:
                    best, place = score, (start, end)
    if place is None:
        return None
    start, end = place
    ratio = median(times[start:end]) / median([*times[:start], *times[end:]])
    return Spell(start + 1, end, ratio) if ratio > 1 + MATERIAL else None


def two_speeds(times: Sequence[float]) -> TwoSpeeds | None:
    """The two groups that the runs fall into, if there is a gap between them that chance does not explain."""
    ordered, n = sorted(times), len(times)
    least = max(1, round(SHARE * n))
    if n < 2 * least + 1 or ordered[0] <= 0:
        return None
    sums = list(accumulate(map(log, ordered), initial=0.0))

    def spread(start: int, end: int) -> float:
        """Sum of the distances from the median, in logarithms."""
        middle = (start + end) // 2
        return sums[end] - sums[end - (middle - start)] - (sums[middle] - sums[start])

    split = min(range(least, n - least + 1), key=lambda i: spread(0, i) + spread(i, n))
    fast, slow = median(ordered[:split]), median(ordered[split:])
    third = (slow - fast) / 3

    def near(center: float) -> int:
        return sum(abs(time - center) <= third / 2 for time in ordered)

    between, around = near((fast + slow) / 2), min(near(fast), near(slow))
    if slow <= fast * (1 + MATERIAL) or _at_most(between, between + around) > CHANCE:
        return None
    return TwoSpeeds(fast, slow, 1 - split / n)


def in_words(times: Sequence[float]) -> str | None:
    """What is wrong with the pace of some runs, in milliseconds; None where nothing is."""
    if (spell := slow_spell(times)) is not None:
        return f"runs {spell.first} to {spell.last} took {spell.ratio:.2f} times as long as the others"
    if (found := two_speeds(times)) is not None:
        return f"two speeds: {found.share:.0%} of the runs around {found.slow:.3g} ms, the others {found.fast:.3g} ms"
    return None


def _ranks(times: Sequence[float]) -> list[float]:
    """From 1; equal times share the mean of their ranks."""
    order = sorted(range(len(times)), key=times.__getitem__)
    starts = [i for i in range(len(order)) if i == 0 or times[order[i]] != times[order[i - 1]]]
    ranks = [0.0] * len(times)
    for start, end in pairwise([*starts, len(order)]):
        for i in order[start:end]:
            ranks[i] = (start + 1 + end) / 2
    return ranks


def _at_most(k: int, n: int) -> float:
    """P(no more than k heads of n tosses)."""
    return sum(comb(n, i) for i in range(k + 1)) / 2**n
