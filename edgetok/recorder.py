"""What happens to the machine while a model runs: memory, power, temperature and clocks, ten times a second.

The recorder is a thread of the process that waits for the worker. The worker itself does nothing for it.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetok.sensors import Reading, Sensor

if TYPE_CHECKING:
    import psutil

INTERVAL = 0.1  # seconds
Clock = Callable[[], int]  # nanoseconds, the same in every process of the machine


@dataclass(frozen=True)
class Moment:
    """What was read at one time.

    Attributes:
        seconds: of the clock.
        memory: bytes resident in the watched process; None where none is watched.
        readings: one of each sensor, in their order.
    """

    seconds: float
    memory: int | None
    readings: tuple[Reading, ...]


class Recorder:
    """Read sensors until the `with` block ends.

    Args:
        sensors: open ones.
        interval: seconds between readings.
        clock: nanoseconds.
    """

    def __init__(
        self, sensors: Sequence[Sensor], *, interval: float = INTERVAL, clock: Clock = time.perf_counter_ns
    ):
        self.sensors, self.moments = tuple(sensors), list[Moment]()
        self._interval, self._clock = interval, clock
        self._process: psutil.Process | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def watch(self, pid: int) -> None:
        """Follow the memory of this process from now on."""
        import psutil

        self._process = psutil.Process(pid)

    def now(self) -> float:
        """Seconds of the clock."""
        return self._clock() / 1e9

    def between(self, start: float, end: float) -> list[Moment]:
        """The moments from `start` to `end`, and the nearest one on either side."""
        moments = list(self.moments)
        times = [moment.seconds for moment in moments]
        return moments[max(0, bisect_left(times, start) - 1) : bisect_right(times, end) + 1]

    def _follow(self) -> None:
        while True:
            self.moments.append(Moment(self.now(), self._memory(), tuple(sensor.read() for sensor in self.sensors)))
            if self._stop.wait(self._interval):
                return

    def _memory(self) -> int | None:
        import psutil

        try:
            return None if self._process is None else int(self._process.memory_info().rss)
        except psutil.Error:  # it has ended
            return None
