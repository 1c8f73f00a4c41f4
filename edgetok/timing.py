"""The one timing loop of the project: warm up until steady, then run often enough for the percentile claimed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from edgetok.parts import Step
from edgetok.statistics import Quantile, quantile, runs_needed

Clock = Callable[[], int]  # nanoseconds, never going backwards
Progress = Callable[[str, float], None]  # what is being done, and how much of it is done (0 to 1)

STEADY = 0.03  # two windows in a row whose medians differ by less count as steady
WINDOW_RUNS, WINDOW_SECONDS = 5, 0.1  # a window holds at least this many runs and lasts at least this long


@dataclass(frozen=True)
class WarmUp:
    """What was run before the measurement."""

    runs: int
    seconds: float
    steady: bool  # False: the time ran out first


@dataclass(frozen=True)
class Timing:
    """The runs of one measurement, in milliseconds and in the order they were made."""

    milliseconds: tuple[float, ...]
    warm_up: WarmUp
    window: tuple[float, float]  # seconds of the clock: when the first run began and the last one ended

    def quantile(self, p: float) -> Quantile:
        """The p-quantile with its interval."""
        return quantile(self.milliseconds, p)

    @property
    def drift(self) -> float:
        """By how much the second half was slower than the first (medians): 0.02 is 2 %."""
        half = len(self.milliseconds) // 2
        return median(self.milliseconds[half:]) / median(self.milliseconds[:half]) - 1 if half else 0.0


def sample(run: Callable[[], object], runs: int, *, clock: Clock = time.perf_counter_ns) -> list[float]:
    """Milliseconds of each of some runs; every measurement in edgetok comes from here."""
    times = []
    for _ in range(runs):
        start = clock()
        run()
        times.append((clock() - start) / 1e6)
    return times


def sample_steps(steps: Sequence[Step], runs: int, *, clock: Clock = time.perf_counter_ns) -> list[list[float]]:
    """Milliseconds of each step in each of some runs; by the device's clock where a step gives what that told."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(runs):
        for taken, step in zip(times, steps, strict=True):
            start = clock()
            told = step.run()
            taken.append(told if isinstance(told, float) else (clock() - start) / 1e6)
    return times


def warm_up(run: Callable[[], object], *, max_seconds: float, clock: Clock = time.perf_counter_ns) -> WarmUp:
    """Run until two windows in a row have the same median, or the time is up."""
    start, runs, before = clock(), 0, None
    while True:
        window: list[float] = []
        while len(window) < WINDOW_RUNS or sum(window) < WINDOW_SECONDS * 1e3:
            window += sample(run, 1, clock=clock)
            if clock() - start >= max_seconds * 1e9:
                return WarmUp(runs + len(window), (clock() - start) / 1e9, steady=False)
        runs, now = runs + len(window), median(window)
        if before is not None and abs(now - before) <= STEADY * before:
            return WarmUp(runs, (clock() - start) / 1e9, steady=True)
        before = now


def measure(
    run: Callable[[], object],
    *,
    percentile: float = 0.9,
    least: int = 0,
    min_seconds: float = 1.0,
    max_seconds: float = 30.0,
    warm_up_seconds: float = 10.0,
    clock: Clock = time.perf_counter_ns,
    progress: Progress | None = None,
) -> Timing:
    """Time a callable.

    Args:
        run: what is timed, once per call.
        percentile: the highest percentile that is to be claimed: it decides how many runs are needed.
        least: the fewest runs, whatever the percentile needs.
        min_seconds: go on for at least this long.
        max_seconds: stop after this long even if the runs do not suffice; the percentile then has no upper bound.
        warm_up_seconds: the longest warm-up.
        clock: a clock in nanoseconds.
        progress: told how far the measurement is.
    """
    warmed = warm_up(run, max_seconds=warm_up_seconds, clock=clock)
    needed, start, times = max(least, runs_needed(percentile)), clock(), list[float]()
    while True:
        times += sample(run, 1, clock=clock)
        seconds = (clock() - start) / 1e9
        done = min(len(times) / needed, seconds / min_seconds if min_seconds else 1.0)
        if progress:
            progress("measuring", min(1.0, max(done, seconds / max_seconds)))
        if done >= 1 or seconds >= max_seconds:
            return Timing(tuple(times), warmed, (start / 1e9, start / 1e9 + seconds))
