"""Sides compared in turns, one process each, only one of them running at any time.

A shared machine is faster in one minute than in the next, by more than what is to be seen. So the sides take short
turns, in alternating order (A B, B A, A B, ...: a steady drift cancels), and each round gives one ratio.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

from edgetok.errors import UsageError
from edgetok.statistics import Quantile, ratio
from edgetok.timing import Progress
from edgetok.worker import Worker

MIN_ROUNDS = 9  # the median of 9 ratios has a 95 % interval from the second to the eighth


@dataclass(frozen=True)
class Comparison:
    """How much faster one side is than another."""

    label: str
    against: str
    speedup: Quantile  # how many times `label` runs while `against` runs once
    rounds: tuple[tuple[float, float], ...]  # milliseconds of `label` and `against`, the median of each turn

    @property
    def verdict(self) -> str:
        """In words: no difference is claimed that the interval does not hold."""
        low, high = self.speedup.low, self.speedup.high
        if low is None or high is None or low <= 1 <= high:
            return "no difference shown"
        return "faster" if low > 1 else "slower"


def compare(
    workers: Sequence[Worker],
    *,
    rounds: int = 15,
    turn_seconds: float = 0.3,
    max_seconds: float = 60.0,
    progress: Progress | None = None,
) -> list[Comparison]:
    """Compare every side with the last one.

    Args:
        workers: at least two, warmed up or not.
        rounds: how many turns each side takes, at least nine.
        turn_seconds: how long a turn lasts; never less than three runs.
        max_seconds: turns get shorter where the rounds would take longer than this.
        progress: told how far the comparison is.
    """
    if rounds < MIN_ROUNDS:
        raise UsageError(f"rounds={rounds}: a ratio with an interval needs at least {MIN_ROUNDS}")
    turn_seconds = min(turn_seconds, max_seconds / (rounds * len(workers)))
    runs = [max(3, ceil(turn_seconds * 1e3 / median(worker.sample(10)[5:]))) for worker in workers]
    turns: list[list[float]] = [[] for _ in workers]
    for i in range(rounds):
        order = range(len(workers)) if i % 2 == 0 else reversed(range(len(workers)))
        for side in order:
            workers[side].sample(1)  # caches are another side's, and the threads sleep
            turns[side].append(median(workers[side].sample(runs[side])))
        if progress:
            progress("comparing", (i + 1) / rounds)
    last = workers[-1].side.label
    return [
        Comparison(
            label=worker.side.label,
            against=last,
            speedup=ratio(list(zip(turns[-1], turns[side], strict=True))),
            rounds=tuple(zip(turns[side], turns[-1], strict=True)),
        )
        for side, worker in enumerate(workers[:-1])
    ]
