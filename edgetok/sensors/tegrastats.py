"""NVIDIA's tegrastats, where the power monitors' own files cannot be read.

A line of a Jetson Orin NX, JetPack 6, shortened:
RAM 6982/7620MB CPU [97%@1984,..] EMC_FREQ 18%@3199 GR3D_FREQ 84%@[713] cpu@65.562C tj@65.562C VDD_IN 17946mW/15710mW

A rail's first figure is of now, its second the mean since tegrastats began; before JetPack 5 both came without "mW".
Clocks have three forms: 10%@1300, 12%@[1300,1300], and Thor's @[314,314,314].
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from edgetok.files import text_of
from edgetok.sensors import Reading
from edgetok.sensors._lines import LineSensor
from edgetok.sensors.ina3221 import whole

_RAIL = re.compile(r"\b((?:V|POM_)[A-Z0-9_]+) (\d+)(?:mW)?/\d+")
_ZONE = re.compile(r"\b([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C\b")
_CLOCK = re.compile(r"\b(EMC_FREQ|GR3D2?_FREQ) (?:\d+%)?@\[?(\d+)")
_CORES = re.compile(r"\bCPU \[([^]]*)\]")
_ABSENT = -256  # degrees of a zone without a sensor


class Tegrastats(LineSensor):
    """Power of the module's rails, temperatures and clocks."""

    name = "tegrastats"
    scope = "module"

    @classmethod
    def find(cls, root: Path) -> Tegrastats | None:
        """Where it is installed, and the power monitors' own files are not there."""
        path = shutil.which("tegrastats", path=str(root / "usr/bin"))
        names = [text_of(file) for file in root.glob("sys/class/hwmon/hwmon*/name")]
        return cls([path, "--interval", "100"]) if path and "ina3221" not in names else None

    def parse(self, line: str) -> Reading:
        """A line's rails in watts, zones in degrees and clocks in MHz."""
        zones = {name: float(value) for name, value in _ZONE.findall(line)}
        clocks = {name.removesuffix("_FREQ"): float(value) for name, value in _CLOCK.findall(line)}
        if cores := _CORES.search(line):
            for core, value in enumerate(cores[1].split(",")):
                if "@" in value:  # "off" otherwise
                    clocks[f"cpu{core}"] = float(value.split("@")[1])
        return Reading(
            watts={name: int(value) / 1e3 for name, value in _RAIL.findall(line)},
            celsius={name: value for name, value in zones.items() if value > _ABSENT},
            megahertz=clocks,
        )

    def total(self, names: set[str]) -> tuple[str, ...]:
        """The rails that are the whole module."""
        return whole(names)


SENSOR = Tegrastats
