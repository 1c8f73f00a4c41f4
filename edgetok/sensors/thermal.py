"""Temperatures and clocks that Linux gives for any machine: thermal zones, and psutil's sensors and frequencies."""

from __future__ import annotations

from pathlib import Path

from edgetok.files import text_of
from edgetok.sensors import Reading, Sensor, number


class Thermal(Sensor):
    """Temperatures of all zones, and the clock of each core."""

    name = "Linux"
    scope = ""

    def __init__(self, zones: dict[str, Path], clocks: dict[str, Path], core_throttles: list[Path]):
        self._zones, self._clocks, self._core_throttles = zones, clocks, core_throttles

    @classmethod
    def find(cls, root: Path) -> Thermal | None:
        """Zones by their type ("cpu-thermal"), a Jetson's GPU and every core that has a clock of its own."""
        zones: dict[str, Path] = {}
        for folder in sorted(root.glob("sys/class/thermal/thermal_zone*")):
            zones[text_of(folder / "type") or folder.name] = folder / "temp"
        for folder in sorted(root.glob("sys/class/hwmon/hwmon*")):  # coretemp and its like
            for file in sorted(folder.glob("temp*_input")):
                label = text_of(folder / file.name.replace("_input", "_label")) or file.name.removesuffix("_input")
                zones.setdefault(f"{text_of(folder / 'name') or folder.name} {label}", file)
        cores = root / "sys/devices/system/cpu"
        clocks = {path.parts[-3]: path for path in sorted(cores.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))}
        throttles = sorted(cores.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
        return cls(zones, clocks, throttles) if zones or clocks or throttles else None

    def read(self) -> Reading:
        """Millidegrees and kilohertz in the files; a zone that is asleep gives an error, and is left out."""
        celsius = {name: value / 1e3 for name, path in self._zones.items() if (value := number(path)) is not None}
        clocks = {name: value / 1e3 for name, path in self._clocks.items() if (value := number(path)) is not None}
        counts = [int(value) for path in self._core_throttles if (value := number(path)) is not None]
        throttles = {"core too hot": sum(counts)} if counts else {}
        return Reading(celsius=celsius, megahertz=clocks, throttles=throttles)


SENSOR = Thermal
