"""Write docs/devices.md from the profiles of devices/; a test holds that it is current.

    PYTHONPATH=. python benchmarks/device_table.py
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from edgetok import devices
from edgetok.device import Device

PAGE = Path(__file__).parent.parent / "docs" / "devices.md"
HEAD = """# Devices

Written by benchmarks/device_table.py from `devices/*.toml`.

A device is a file of facts; every table of numbers in it has its source and how far to trust it: `published` by the
maker, `quoted` from the maker by others, `measured`, `derived` by a rule, or `uncertain`. What no source gives is left
out: the clocks of Thor's 70 and 90 W, the modes of AGX Orin Industrial and IGX but one. IGX Thor and the announced Thor
T3000 and T2000 are described but not recognised: what they say of themselves has not been read.
`edgetok devices NAME` shows one with its sources and its power modes, `edgetok devices orin` lists those whose names or
titles have the word. What is said to be measured was measured; otherwise only x86-64 processors were run on.

`--on auto` takes the profile of the machine it runs on: the board's; the graphics card's where the runtime computes
there; the processor's otherwise. `--on NAME` is refused on any other machine. `edgetok lint --for NAME` and
`edgetok export --for NAME` ask for any device, from anywhere; there, a Jetson without its JetPack (`jetson-orin-nano`)
is that with the newest one. Without `--for`, lint looks at this machine.

Peaks are dense, in the power mode that the device ships in: units x clock x operations per clock. NVIDIA's figure on a
Jetson's box is with sparsity, in the fastest mode, and adds the DLAs. On GeForce cards fp16 and fp8 are those with
fp32 accumulation. Memory or clock that differs from machine to machine has no figure.
"""
COLUMNS = (
    "device", "SM", "memory, GB", "mode", "GB/s", "fp16 TFLOPS", "int8 TOPS", "fp8 TFLOPS", "fp4 TFLOPS", "runtimes",
)  # fmt: skip


def row(device: Device) -> Iterator[str]:
    """The cells of a device."""
    yield f"`{device.name}`<br>{device.title}"
    yield device.sm or ""
    yield f"{device.memory.gigabytes:g}" if device.memory else ""
    yield device.mode().name if device.modes else ""
    yield f"{device.mode().bandwidth_gbs:g}" if device.modes else ""
    for precision in ("fp16", "int8", "fp8", "fp4"):
        peak = device.peak(precision)
        yield "" if peak is None else f"{peak * 1e-12:.4g}"
    yield ", ".join(f"{offer.name} {offer.version}" for offer in device.runtimes)


def page() -> str:
    """The whole document."""
    parts = [HEAD]
    by_group = sorted(devices.load_all(), key=lambda device: (device.group, device.name))
    for group, members in groupby(by_group, key=lambda device: device.group):
        lines = [f"## {group}", "", "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
        lines += ["| " + " | ".join(row(device)) + " |" for device in members]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
