"""Quantiles of latencies with order-statistic intervals, which assume nothing about the distribution.

Of n independent runs, the number below the true p-quantile is binomial(n, p). The k-th smallest run is therefore above
the quantile with a probability that is known exactly, and two such order statistics enclose it (David and Nagaraja,
Order Statistics, section 7.1). With few runs no order statistic is high enough: the interval then has no upper end, and
the quantile is reported but not claimed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, exp, lgamma, log

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Quantile:
    """One quantile of a sample, in the sample's unit, with its two-sided 95 % interval."""

    p: float
    value: float
    low: float | None  # None: the sample is too small for an end on this side
    high: float | None
    is_max: bool  # the value is the largest of the sample: the true quantile may well lie above

    @property
    def claimed(self) -> bool:
        """Whether the sample is large enough for an interval with two ends."""
        return self.low is not None and self.high is not None

    def __str__(self) -> str:
        low = "?" if self.low is None else f"{self.low:.3g}"
        high = "?" if self.high is None else f"{self.high:.3g}"
        return f"{self.value:.3g} [{low}, {high}]"


def quantile(sample: Sequence[float], p: float) -> Quantile:
    """The p-quantile by nearest rank, with its order-statistic interval.

    Raises:
        ValueError: an empty sample, or p outside (0, 1).
    """
    if not sample or not 0 < p < 1:
        raise ValueError(f"a quantile needs a sample and 0 < p < 1; got {len(sample)} values and p={p}")
    ordered, n = sorted(sample), len(sample)
    rank = max(1, ceil(n * p - 1e-9))  # 0.07 * 100 is 7.000000000000001
    low, high = interval_ranks(n, p)
    return Quantile(
        p=p,
        value=ordered[rank - 1],
        low=None if low is None else ordered[low - 1],
        high=None if high is None else ordered[high - 1],
        is_max=rank == n,
    )


def interval_ranks(n: int, p: float) -> tuple[int | None, int | None]:
    """Ranks (from 1) of the order statistics that enclose the p-quantile; at most 2.5 % are lost on either side."""
    tail = (1 - CONFIDENCE) / 2
    at_most = list(accumulate(_binomial(n, p)))  # at_most[k] = P(no more than k of n runs lie below the quantile)
    low = next((k for k in range(n, 0, -1) if at_most[k - 1] <= tail), None)
    high = next((k for k in range(1, n + 1) if at_most[k - 1] >= 1 - tail), None)
    return low, high


def runs_needed(p: float) -> int:
    """The fewest runs whose interval for the p-quantile has two ends: 6 for the median, 36 for p90, 368 for p99."""
    return ceil(log((1 - CONFIDENCE) / 2) / log(max(p, 1 - p)))


def ratio(pairs: Sequence[tuple[float, float]]) -> Quantile:
    """How many times the second of each pair goes into the first: the median of the pairwise ratios.

    Pairs are measured side by side, so that what slows the machine slows both, and the ratio keeps out of it.
    """
    return quantile([first / second for first, second in pairs], 0.5)


def beyond(low: float | None, high: float | None) -> bool:
    """Whether what is at least `low` is shown to be above what is at most `high`: two intervals that do not meet."""
    return low is not None and high is not None and low > high


def ties(labels: Sequence[str]) -> str:
    """What is added to the choice of the fastest, where some are not shown to be slower."""
    return f"; {', '.join(labels)} {'is' if len(labels) == 1 else 'are'} not shown to be slower" if labels else ""


def _binomial(n: int, p: float) -> list[float]:
    """P(k successes in n) for k = 0..n, through logarithms: 0.99**n and its like would underflow."""
    log_n, log_p, log_q = lgamma(n + 1), log(p), log(1 - p)
    return [exp(log_n - lgamma(k + 1) - lgamma(n - k + 1) + k * log_p + (n - k) * log_q) for k in range(n + 1)]
