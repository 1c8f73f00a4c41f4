"""What a user demands of a model, and whether a measurement shows it.

A limit is passed when the whole 95 % interval keeps it, failed when the whole interval breaks it; in between the
measurement does not tell, which is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgetok.errors import UsageError
from edgetok.manifest import Fidelity
from edgetok.statistics import Quantile

Verdict = Literal["pass", "warn", "fail"]
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Limits:
    """What is demanded; None demands nothing.

    Attributes:
        max_p99: the most milliseconds that 99 of 100 runs may take.
        min_cosine: the least cosine between each output and the original's, over the bundle's samples.
    """

    max_p99: float | None = None
    min_cosine: float | None = None

    def __post_init__(self) -> None:
        if self.min_cosine is not None and not -1 <= self.min_cosine <= 1:
            raise UsageError(f"a cosine of {self.min_cosine:g}: -1 to 1 are accepted, 0.98 for example")


NONE = Limits()


@dataclass(frozen=True)
class Judged:
    """A limit and what was found."""

    name: str
    limit: str
    found: str
    verdict: Verdict


def milliseconds(text: str) -> float:
    """Read a time such as "20ms", "800us" or "0.02s".

    Raises:
        UsageError: no positive number, or no unit.
    """
    if not (match := re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(us|ms|s)\s*", text)) or not float(match[1]):
        raise UsageError(f"a time of {text!r}: a number with its unit is accepted, 20ms, 800us or 0.02s")
    return float(match[1]) * _MILLISECONDS[match[2]]


def judge(limits: Limits, p99: Quantile, fidelity: Sequence[Fidelity]) -> tuple[Judged, ...]:
    """Set what was found against what is demanded.

    Args:
        limits: what is demanded.
        p99: of the latency, in milliseconds.
        fidelity: how near each output comes to the original's; empty where the bundle does not say.
    """
    judged = []
    if limits.max_p99 is not None:
        judged.append(_p99(limits.max_p99, p99))
    if limits.min_cosine is not None:
        worst = min(fidelity, key=lambda each: each.cosine, default=None)
        judged.append(_cosine(limits.min_cosine, worst))
    return tuple(judged)


def _cosine(least: float, worst: Fidelity | None) -> Judged:
    name, limit = "cosine to the original", f"at least {least:g}"
    if worst is None:
        return Judged(name, limit, "the bundle's manifest holds no comparison", "warn")
    found = f"{worst.cosine:.4f} of {worst.output}"
    return Judged(name, limit, found, "pass" if worst.cosine >= least else "fail")


def _p99(most: float, p99: Quantile) -> Judged:
    verdict: Verdict = "warn"
    if p99.high is not None and p99.high <= most:
        verdict = "pass"
    elif p99.low is not None and p99.low > most:
        verdict = "fail"
    high = "?" if p99.high is None else f"{p99.high:.2f}"
    low = "?" if p99.low is None else f"{p99.low:.2f}"
    found = f"{p99.value:.2f} ms, 95 % interval {low} to {high}"
    return Judged("p99 of the latency", f"at most {most:g} ms", found, verdict)
