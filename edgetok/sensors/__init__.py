"""What a machine says of its power, temperature and clocks; one source per file, found by its name.

A sensor reads files below a root, or the lines of a program that reports on its own, so that each works on what was
recorded on another machine as it does live.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from edgetok import discovery


@dataclass(frozen=True)
class Reading:
    """What was read at one moment, each by the name that the source gives it.

    Attributes:
        watts: power by rail.
        joules: counters of energy since some moment in the past; they only grow.
        celsius: temperatures by zone.
        megahertz: clocks.
        throttles: counters of moments in which the hardware slowed itself down.
    """

    watts: dict[str, float] = field(default_factory=dict)
    joules: dict[str, float] = field(default_factory=dict)
    celsius: dict[str, float] = field(default_factory=dict)
    megahertz: dict[str, float] = field(default_factory=dict)
    throttles: dict[str, int] = field(default_factory=dict)


class Sensor(ABC):
    """A source of readings; open between `__enter__` and `__exit__`."""

    name: ClassVar[str]
    scope: ClassVar[str]  # what its power is of: "module", "package", "card"

    @classmethod
    @abstractmethod
    def find(cls, root: Path) -> Sensor | None:
        """The sensor of the machine whose file system begins at `root`; None where it has none."""

    @abstractmethod
    def read(self) -> Reading:
        """What it says now; what cannot be read is left out."""

    def total(self, names: set[str]) -> tuple[str, ...]:
        """Which of these rails or counters, added up, are the whole; empty where that is not known."""
        return tuple(sorted(names))

    def __enter__(self) -> Sensor:
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop what it started."""
        return


def find_all(root: Path = Path("/")) -> list[Sensor]:
    """Every sensor of this machine."""
    classes: list[type[Sensor]] = [
        discovery.load(__name__, "sensor", name, type) for name in discovery.names(__name__)
    ]
    return [sensor for cls in classes if (sensor := cls.find(root)) is not None]


@contextmanager
def opened(root: Path = Path("/")) -> Iterator[list[Sensor]]:
    """The machine's sensors, open."""
    with ExitStack() as stack:
        yield [stack.enter_context(sensor) for sensor in find_all(root)]


def number(path: Path) -> float | None:
    """The number in a file of /sys; None where it cannot be read, as on a rail that is switched off."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
