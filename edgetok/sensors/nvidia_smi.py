"""NVIDIA cards, through nvidia-smi, which is NVML's own program.

power.draw is a mean over the last second on Ampere and later, and on some cards a sample of a quarter of the time
(https://arxiv.org/abs/2312.02741): long windows only. On Orin nvidia-smi knows no power; its rails are elsewhere.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from edgetok.sensors import Reading
from edgetok.sensors._lines import LineSensor

FIELDS = ("index", "power.draw", "temperature.gpu", "clocks.sm", "clocks.mem", "clocks_event_reasons.active")
# NVML's nvmlClocksEventReason*: what slows a card down against its will; idling and clocks set by the user do not.
SLOWED = {0x4: "power cap", 0x8: "hardware slowdown", 0x20: "too hot", 0x40: "too hot, hardware", 0x80: "power brake"}


class NvidiaSmi(LineSensor):
    """Power, temperature and clocks of the first card."""

    name = "NVML"
    scope = "card"

    def __init__(self, command: list[str]):
        super().__init__(command)
        self._slowed = dict.fromkeys(SLOWED.values(), 0)

    @classmethod
    def find(cls, root: Path) -> NvidiaSmi | None:
        """Where the driver is loaded and its program there."""
        path = shutil.which("nvidia-smi")
        if path is None or not (root / "proc/driver/nvidia/version").exists():
            return None
        query = f"--query-gpu={','.join(FIELDS)}"
        return cls([path, query, "--format=csv,noheader,nounits", "-lms", "100", "-i", "0"])

    def parse(self, line: str) -> Reading:
        """A line such as "0, 118.43, 41, 1980, 2619, 0x0000000000000000"; what the card does not say is left out."""
        told = dict(zip(FIELDS, (value.strip() for value in line.split(",")), strict=False))
        name = f"gpu{told.get('index', '')}"

        def one(field: str, as_name: str = name) -> dict[str, float]:
            try:
                return {as_name: float(told[field])}
            except (KeyError, ValueError):  # "[N/A]"
                return {}

        reasons = told.get("clocks_event_reasons.active", "")
        if reasons.startswith("0x"):
            for bit, reason in SLOWED.items():
                self._slowed[reason] += bool(int(reasons, 16) & bit)
        clocks = one("clocks.sm", f"{name} sm") | one("clocks.mem", f"{name} memory")
        return Reading(
            watts=one("power.draw"), celsius=one("temperature.gpu"), megahertz=clocks, throttles=dict(self._slowed)
        )


SENSOR = NvidiaSmi
