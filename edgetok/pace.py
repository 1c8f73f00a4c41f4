"""Whether the runs of a measurement went at one pace: a spell of slower runs, or two speeds that alternate.

A spell is sought by ranks, as Pettitt seeks one change (A non-parametric approach to the change-point problem,
Applied Statistics 28, 1979), for every stretch of the runs against the others: Mann and Whitney's statistic as a
normal score. Two speeds show where fewer runs lie between two medians than around either: no distribution with one peak
has less in an interval than in both of two that enclose it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations, pairwise, product
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
    if not count:
        return None
    below = list(accumulate(_ranks(times), initial=0.0))  # below[i]: sum of the ranks of the first i runs

    def score(stretch: tuple[int, int]) -> float:
        inside, outside = stretch[1] - stretch[0], n - stretch[1] + stretch[0]
        if inside <= 0 or outside <= 0:
            return 0.0
        more = below[stretch[1]] - below[stretch[0]] - inside * (n + 1) / 2
        return more / sqrt(inside * outside * (n + 1) / 12)

    start, end = max(combinations([n * i // count for i in range(count + 1)], 2), key=score)
    if score((start, end)) < SCORE:
        return None
    fast, slow = median([*times[:start], *times[end:]]), median(times[start:end])
    if slow <= fast * (1 + MATERIAL):
        return None
    # Windows told that there is one; where it begins and ends, single runs do: slow ones within, fast ones without.
    signs = list(accumulate((1 if time > (fast + slow) / 2 else -1 for time in times), initial=0))
    near = n // count
    starts, ends = range(max(0, start - near), start + near), range(end - near, min(n, end + near) + 1)
    places = ((first, last) for first, last in product(starts, ends) if first < last)
    start, end = max(places, key=lambda place: signs[place[1]] - signs[place[0]])
    return Spell(start + 1, end, median(times[start:end]) / median([*times[:start], *times[end:]]))


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
    return sum(comb(n, i) for i in range(k + 1)) / (1 << n)
