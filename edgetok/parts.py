"""Where the time of a request goes: on the host, on a device, and in copies between the two.

A runtime gives one run as steps (`Runtime.steps`), `timing.sample_steps` times each by itself, and what comes of it is
one `Part` a step. No step reaches into the next: one that only starts work on a card is followed by one that waits for
it. The whole run is timed elsewhere and without this, so that the latency holds no clock's cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgetok.statistics import Quantile, quantile

if TYPE_CHECKING:
    from typing_extensions import Self

Where = Literal["host", "copy", "device"]
PREPARE = "prepare the input"
UNTOLD = "This runtime does not tell the parts of a run apart."
HOST = "The host computes: there is no device, and nothing is copied to one."
CARD = "A device computes while the host still launches: the parts may be more than a run takes."
OWN = "The input was the bundle's own: --input FILE times preparing it as well."


@dataclass(frozen=True)
class Step:
    """A step of one run.

    Attributes:
        name: what is done.
        where: on the host, on the device, or a copy between them.
        run: does it. It gives milliseconds where the device's own clock told them; all else is timed by the host's.
    """

    name: str
    where: Where
    run: Callable[[], object]


@dataclass(frozen=True)
class Part:
    """How long a step takes: the median of its runs in milliseconds, with its interval."""

    name: str
    where: Where
    milliseconds: Quantile

    @classmethod
    def of(cls, step: Step, times: Sequence[float]) -> Self:
        """A step that was timed, in milliseconds."""
        return cls(step.name, step.where, quantile(times, 0.5))


def together(parts: Sequence[Part]) -> dict[Where, float]:
    """Milliseconds on the host, in copies and on the device: sums of medians, of those that there are."""
    sums: dict[Where, float] = {}
    for part in parts:
        sums[part.where] = sums.get(part.where, 0.0) + part.milliseconds.value
    return sums


def in_words(parts: Sequence[Part]) -> str:
    """Which of host and device took part, and what was not timed."""
    if not parts:
        return UNTOLD
    told = HOST if all(part.where == "host" for part in parts) else CARD
    return told if parts[0].name == PREPARE else f"{told} {OWN}"
