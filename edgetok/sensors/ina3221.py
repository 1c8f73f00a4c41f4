"""The rails of a Jetson module, from the INA3221 power monitors in /sys/class/hwmon.

The kernel's Documentation/hwmon/ina3221.rst: in1_input is the voltage of channel 1 in mV, curr1_input its current in
mA, in1_label its name. Finer in time than tegrastats. The same chips count over-currents: oc1_event_cnt and so on.
"""

from __future__ import annotations

from pathlib import Path

from edgetok.files import text_of
from edgetok.sensors import Reading, Sensor, number

# Rails that are the whole module, the first set whose members are all there. VDDQ_VDD2_1V8AO is part of VIN_SYS_5V0 on
# AGX Orin, and all others of Thor's are part of VIN: adding every rail up counts twice.
WHOLE = (
    ("VDD_IN",),  # Orin Nano, Orin NX, TX2
    ("POM_5V_IN",),  # Nano
    ("VIN",),  # Thor
    ("VIN_SYS_5V0", "VDD_GPU_SOC", "VDD_CPU_CV"),  # AGX Orin
)
CHANNELS, OVER_CURRENTS = (1, 2, 3), (1, 2, 3)


class Ina3221(Sensor):
    """Power of the module's rails, and how often it was over its limits."""

    name = "INA3221"
    scope = "module"

    def __init__(self, monitors: list[Path], root: Path):
        self._rails = {
            label: (folder / f"in{channel}_input", folder / f"curr{channel}_input")
            for folder in monitors
            for channel in CHANNELS
            if (label := text_of(folder / f"in{channel}_label")) and label != "NC"
        }
        counters = [
            path for i in OVER_CURRENTS for path in sorted(root.glob(f"sys/class/hwmon/hwmon*/oc{i}_event_cnt"))
        ]
        self._counters = {path.name.removesuffix("_event_cnt"): path for path in counters}

    @classmethod
    def find(cls, root: Path) -> Ina3221 | None:
        """The monitors, wherever the kernel numbered them."""
        folders = sorted(root.glob("sys/class/hwmon/hwmon*"))
        monitors = [folder for folder in folders if text_of(folder / "name") == "ina3221"]
        return cls(monitors, root) if monitors else None

    def read(self) -> Reading:
        """Millivolts times milliamperes are microwatts."""
        watts = {}
        for label, (voltage, current) in self._rails.items():
            volts, amperes = number(voltage), number(current)
            if volts is not None and amperes is not None:
                watts[label] = volts * amperes * 1e-6
        counts = {name: number(path) for name, path in self._counters.items()}
        return Reading(watts=watts, throttles={name: int(n) for name, n in counts.items() if n is not None})

    def total(self, names: set[str]) -> tuple[str, ...]:
        """The rails that are the whole module."""
        return whole(names)


def whole(names: set[str]) -> tuple[str, ...]:
    """The rails of a Jetson that add up to the module's power; empty where it has none that are known to."""
    return next((rails for rails in WHOLE if names.issuperset(rails)), ())


SENSOR = Ina3221
