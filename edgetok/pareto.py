"""Which choices are worth having: those that no other beats in both latency and fidelity (the Pareto front)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """One choice in the picture of latency against fidelity.

    Attributes:
        label: what it is called.
        milliseconds: of one run.
        cosine: the least of any output's with the original's; None where it was never compared.
        low, high: the 95 % interval of the milliseconds; None where there is none.
        bytes: of its files; None where that is not known.
        joules: of one run; None where the machine does not say.
        best: whether it is on the front.
        chosen: whether it is the one to take.
    """

    label: str
    milliseconds: float
    cosine: float | None
    low: float | None = None
    high: float | None = None
    bytes: int | None = None
    joules: float | None = None
    best: bool = False
    chosen: bool = False


def front(figures: Sequence[tuple[float, float | None]]) -> list[bool]:
    """Whether each (milliseconds, cosine) is on the front: none is as fast and as near, and better in one of the two.

    What has no cosine is neither on the front nor keeps anything off it.
    """

    def beaten(milliseconds: float, cosine: float) -> bool:
        return any(
            nearness is not None
            and time <= milliseconds
            and nearness >= cosine
            and (time < milliseconds or nearness > cosine)
            for time, nearness in figures
        )

    return [cosine is not None and not beaten(milliseconds, cosine) for milliseconds, cosine in figures]
