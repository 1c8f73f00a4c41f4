"""Energy counters of x86 processors, from /sys/class/powercap (Intel RAPL; AMD's kernels give the same files).

The kernel's Documentation/power/powercap/powercap.rst: energy_uj is a counter in microjoules that starts again at 0
behind max_energy_range_uj. Since 2020 only root may read it, unless the administrator says otherwise.
"""

from __future__ import annotations

from pathlib import Path

from edgetok.files import text_of
from edgetok.sensors import Reading, Sensor, number


class Rapl(Sensor):
    """Energy of the processor packages; memory counts only where the processor has a counter for it."""

    name = "RAPL"
    scope = "processor package"

    def __init__(self, zones: dict[str, Path]):
        self._zones = zones
        self._range = {name: number(folder / "max_energy_range_uj") or 0.0 for name, folder in zones.items()}
        self._last: dict[str, float] = {}
        self._wrapped = dict.fromkeys(zones, 0.0)  # microjoules of the rounds that a counter has made

    @classmethod
    def find(cls, root: Path) -> Rapl | None:
        """The zones that may be read: packages, and what lies beside their cores."""
        zones = {}
        for folder in sorted(root.glob("sys/class/powercap/intel-rapl:*")):
            name = text_of(folder / "name")
            if name is None or number(folder / "energy_uj") is None:
                continue
            package = folder.name.split(":")[1]
            if name.startswith("package"):
                zones[name] = folder
            elif name == "dram":  # core and uncore lie within the package
                zones[f"dram-{package}"] = folder
        return cls(zones) if zones else None

    def read(self) -> Reading:
        """Counters that never go back."""
        joules = {}
        for name, folder in self._zones.items():
            if (now := number(folder / "energy_uj")) is None:
                continue
            if now < self._last.get(name, 0.0):
                self._wrapped[name] += self._range[name]
            self._last[name] = now
            joules[name] = (now + self._wrapped[name]) * 1e-6
        return Reading(joules=joules)


SENSOR = Rapl
