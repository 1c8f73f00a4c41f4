"""Which candidate to measure next: a model of latency and fidelity, fitted to what was measured.

Two Gaussian processes predict the logarithm of the latency, as a share of the unreduced model's, and the logarithm of
1 - cosine, with their uncertainty. Both are nearly linear in what is known of a candidate without measuring it (its
multiplications, the blocks it reduces in and how deep they lie, the tokens left), apart from an offset and a slope of
each technique's own, so that few measurements fix them. The next candidate is the one with the largest expected
improvement, times the probability that it meets the constraint (Gardner et al., Bayesian Optimization with Inequality
Constraints, ICML 2014). Nothing is drawn at random: the same measurements lead to the same next candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import erf, exp, log, log10, pi, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FLOOR = 1e-7  # of 1 - cosine: nearer than that is rounding
SMALL = 3e-4  # an expected improvement of the logarithm below this is not worth a measurement


@dataclass(frozen=True)
class Candidate:
    """What can be measured.

    Attributes:
        reduce: the choice.
        technique: its name and own options.
        flops: share of the multiplications that is left.
        blocks: share of the blocks that reduce.
        depth: mean place of these blocks, 0 to 1.
        left: share of the tokens that is left behind the last block.
    """

    reduce: str
    technique: str
    flops: float
    blocks: float
    depth: float
    left: float

    @property
    def place(self) -> tuple[str, float, float]:
        """What it has in common with the candidates that differ in their counts alone."""
        return self.technique, self.blocks, self.depth


@dataclass(frozen=True)
class Goal:
    """What is wanted; one of the two.

    Attributes:
        latency: the highest fidelity that takes at most this share of the unreduced model's latency.
        cosine: the fastest with at least this cosine.
    """

    latency: float | None = None
    cosine: float | None = None

    def holds(self, latency: float, cosine: float) -> bool:
        """Whether measured figures meet the constraint."""
        return latency <= self.latency if self.latency is not None else cosine >= (self.cosine or 0.0)

    def cost(self, latency: float, cosine: float) -> float:
        """What is to be as small as possible."""
        return _lost(cosine) if self.latency is not None else log(latency)

    @property
    def limit(self) -> float:
        """The constraint, as the model sees it."""
        return log(self.latency) if self.latency is not None else _lost(self.cosine or 0.0)


def next_candidate(
    candidates: Sequence[Candidate], measured: Mapping[int, tuple[float, float]], goal: Goal
) -> int | None:
    """The candidate to measure next; None when no improvement is to be expected.

    Args:
        candidates: all of them.
        measured: (latency as a share of the unreduced model's, cosine) by candidate.
        goal: what is wanted.
    """
    left = [i for i in range(len(candidates)) if i not in measured]
    first = _first_of_each_technique(candidates, measured)
    if first is not None or not left:
        return first
    latency, lost = _models(candidates, measured)
    cost, constraint = (lost, latency) if goal.latency is not None else (latency, lost)
    met = [goal.cost(*figures) for figures in measured.values() if goal.holds(*figures)]
    if goal.cosine is not None:
        met.append(0.0)  # the unreduced model, whose latency is 1
    best = min(met, default=max(mean + sd for mean, sd in cost))

    def worth(i: int) -> float:
        mean, sd = constraint[i]
        return _improvement(best, *cost[i]) * _below((goal.limit - mean) / sd)

    chosen = max(left, key=worth)
    return chosen if worth(chosen) > SMALL else None


def _first_of_each_technique(candidates: Sequence[Candidate], measured: Mapping[int, object]) -> int | None:
    """A middling candidate of a technique that was never measured."""
    seen = {candidates[i].technique for i in measured}
    for name in dict.fromkeys(candidate.technique for candidate in candidates):
        if name not in seen:
            own = [i for i, candidate in enumerate(candidates) if candidate.technique == name]
            middle = sorted(candidates[i].flops for i in own)[len(own) // 2]
            return min(own, key=lambda i: (-candidates[i].blocks, abs(candidates[i].flops - middle)))
    return None


def _models(
    candidates: Sequence[Candidate], measured: Mapping[int, tuple[float, float]]
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Mean and standard deviation of log latency and of log10(1 - cosine), for every candidate."""
    import numpy as np

    known = list(measured)
    table = np.array([[c.flops, c.blocks, c.depth, log10(max(1 - c.left, 1e-3))] for c in candidates])
    spread = np.ptp(table, axis=0)
    table = (table - table.min(axis=0)) / np.where(spread > 0, spread, 1)
    same = np.array([[a.technique == b.technique for b in candidates] for a in candidates], dtype=np.float64)
    guess = np.array([log(0.1 + 0.9 * c.flops) for c in candidates])  # embedding and head stay
    latency = np.array([log(measured[i][0]) for i in known]) - guess[known]
    lost = np.array([_lost(measured[i][1]) for i in known])
    middle = float(lost.mean())
    # Prior standard deviations: (offset, slopes, bends) of all techniques, the same of each, and of a measurement.
    mean, sd = _predict(table, same, known, latency, common=(0.1, 0.1, 0.05), own=(0.1, 0.1, 0.03), noise=0.015)
    mean_lost, sd_lost = _predict(
        table, same, known, lost - middle, common=(1.0, 2.0, 0.5), own=(0.5, 0.5, 0.2), noise=0.02
    )
    pairs = list(zip((mean + guess).tolist(), sd.tolist(), strict=True))
    return pairs, list(zip((mean_lost + middle).tolist(), sd_lost.tolist(), strict=True))


def _predict(
    table: np.ndarray,
    same: np.ndarray,
    known: Sequence[int],
    values: np.ndarray,
    *,
    common: tuple[float, float, float],
    own: tuple[float, float, float],
    noise: float,
) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian process over the rows of a table: (mean, standard deviation) of each row."""
    import numpy as np

    linear = table @ table.T
    bends = np.exp(-2 * np.square(table[:, None] - table[None]).sum(axis=-1))

    def kernel(offset: float, slope: float, bend: float) -> np.ndarray:
        return offset**2 + slope**2 * linear + bend**2 * bends

    covariance = kernel(*common) + same * kernel(*own)
    seen = covariance[np.ix_(known, known)] + noise**2 * np.eye(len(known))
    gain = np.linalg.solve(seen, covariance[known]).T
    variance = np.diag(covariance) - (gain * covariance[:, known]).sum(axis=1)
    return gain @ values, np.sqrt(np.maximum(variance, noise**2))


def _lost(cosine: float) -> float:
    return log10(max(1 - cosine, FLOOR))


def _improvement(best: float, mean: float, sd: float) -> float:
    """What a normal variable is expected to lie below `best`, counting nothing where it lies above."""
    z = (best - mean) / sd
    return (best - mean) * _below(z) + sd * exp(-z * z / 2) / sqrt(2 * pi)


def _below(z: float) -> float:
    """The probability that a standard normal variable lies below z."""
    return 0.5 * (1 + erf(z / sqrt(2)))
