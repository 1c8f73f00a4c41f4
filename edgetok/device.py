"""What is known of a device, and whether this machine is one.

A profile is a TOML file of `devices/`. Numbers come from data sheets and measurements, so every table that holds one
names its `source`; the loader refuses a table that does not.
"""

import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgetok.errors import DeviceError, UnknownName

Precision = Literal["fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "fp4", "int8", "int4"]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sourced(_Table):
    """A table with numbers in it: it says where they come from."""

    source: str = Field(min_length=8)


class Recognise(_Table):
    """What a machine must show to be this device; an empty tuple asks for nothing."""

    arch: Literal["x86_64", "aarch64"]
    cpu_parts: tuple[str, ...] = ()  # "CPU part" of /proc/cpuinfo
    compatible: tuple[str, ...] = ()  # any of /proc/device-tree/compatible
    l4t: tuple[str, ...] = ()  # Jetson Linux releases: "36.5" takes 36.5 and 36.5.0
    gpus: tuple[str, ...] = ()  # NVIDIA driver's model names


class Memory(Sourced):
    gigabytes: float
    shared: bool  # CPU and GPU use the same memory


class Compute(Sourced):
    """Operations per clock and unit; a multiply-add is two."""

    unit: Literal["sm", "core"]
    needs: tuple[str, ...] = ()  # CPU flags, all of them
    fp32: int
    fp16: int | None = None
    int8: int | None = None
    fp8: int | None = None


class Mode(Sourced):
    """One power mode; which units run, and how fast, differs per mode."""

    id: int | None = None  # nvpmodel's
    name: str
    default: bool = False
    units: int
    mhz: float
    bandwidth_gbs: float
    cpu_cores: int | None = None
    cpu_mhz: float | None = None


class Headline(Sourced):
    """The figure on the box, to be held against the computed one."""

    int8_tops: float
    sparse: bool
    mode: str


class RuntimeOffer(Sourced):
    """A runtime that can be installed there, and what it takes."""

    name: Literal["onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx"]
    version: str = Field(pattern=r"^\d+\.\d+(\.\d+)*$")
    python: tuple[str, ...]
    max_opset: int | None = None  # None: not known
    max_ir: int | None = None

    def at_least(self, version: str) -> bool:
        """Whether this runtime is that version or newer."""
        return version_key(self.version) >= version_key(version)


class Device(_Table):
    """One profile. Absent tables are facts that differ from machine to machine, such as a PC's memory."""

    name: str
    title: str
    kind: Literal["cpu", "gpu"]
    recognise: Recognise
    precisions: tuple[Precision, ...]
    precisions_source: str = Field(min_length=8)
    sm: str | None = None  # CUDA compute capability, "8.7"
    memory: Memory | None = None
    compute: tuple[Compute, ...] = Field(min_length=1)
    modes: tuple[Mode, ...] = ()
    headline: Headline | None = None
    runtimes: tuple[RuntimeOffer, ...] = Field(min_length=1)

    @classmethod
    def read(cls, path: Path) -> "Device":
        """Read a profile; its name is the file's."""
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        try:
            return cls(name=path.stem, **tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise DeviceError(f"device profile {path.name} cannot be read: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            more = ": every table with numbers says where they come from" if first["loc"][-1] == "source" else ""
            raise DeviceError(f"device profile {path.name}: {where}: {first['msg']}{more}") from None

    def mode(self, name: str | None = None) -> Mode:
        """A power mode by name; without one, the mode that the device ships in."""
        if name is None:
            return next(mode for mode in self.modes if mode.default)
        for mode in self.modes:
            if mode.name == name:
                return mode
        raise UnknownName(f"power mode of {self.name}", name, [mode.name for mode in self.modes])

    def peak(self, precision: Literal["fp32", "fp16", "int8", "fp8"], mode: str | None = None) -> float | None:
        """Dense operations per second in a power mode: units x clock x operations per clock."""
        if not self.modes:
            return None
        at, per_clock = self.mode(mode), getattr(self.compute[0], precision)
        return None if per_clock is None else at.units * at.mhz * 1e6 * per_clock

    def matches(self, machine: "Machine") -> bool:
        """Whether that machine is this device."""
        asked = self.recognise
        return (
            machine.arch == asked.arch
            and (not asked.cpu_parts or bool(machine.cpu_parts & set(asked.cpu_parts)))
            and (not asked.compatible or bool(set(machine.compatible) & set(asked.compatible)))
            and (not asked.l4t or any(_within(machine.l4t, release) for release in asked.l4t))
            and (not asked.gpus or bool(set(machine.gpus) & set(asked.gpus)))
        )


@dataclass(frozen=True)
class Machine:
    """What a machine says of itself, read from its files alone."""

    arch: str
    cpu: str
    cpu_parts: frozenset[str] = frozenset()
    flags: frozenset[str] = field(default=frozenset(), repr=False)
    board: str | None = None
    compatible: tuple[str, ...] = ()
    l4t: str | None = None
    gpus: tuple[str, ...] = ()

    @classmethod
    def read(cls, root: Path = Path("/")) -> "Machine":
        """Read the machine whose file system begins at `root`; a system without /proc says only its architecture."""
        info = _text(root / "proc/cpuinfo")
        parts = re.findall(r"^CPU part\s*: (\S+)", info, re.MULTILINE)
        model = re.search(r"^model name\s*: (.+)", info, re.MULTILINE)
        flags = re.search(r"^(?:flags|Features)\s*: (.+)", info, re.MULTILINE)
        arch = "aarch64" if parts else "x86_64" if "vendor_id" in info else platform.machine().lower()
        release = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release"))
        gpus = [_text(path) for path in sorted(root.glob("proc/driver/nvidia/gpus/*/information"))]
        return cls(
            arch={"amd64": "x86_64", "arm64": "aarch64"}.get(arch, arch),
            cpu=f"CPU part {', '.join(sorted(set(parts)))}" if parts else model[1] if model else "CPU unknown",
            cpu_parts=frozenset(parts),
            flags=frozenset(flags[1].split() if flags else ()),
            board=_text(root / "proc/device-tree/model").strip("\0\n") or None,
            compatible=tuple(filter(None, _text(root / "proc/device-tree/compatible").split("\0"))),
            l4t=f"{release[1]}.{release[2]}" if release else None,
            gpus=tuple(
                found[1].strip() for text in gpus if (found := re.search(r"^Model:\s*(.+)", text, re.MULTILINE))
            ),
        )

    def __str__(self) -> str:
        gpu = ", ".join(self.gpus) or None
        l4t = f"Jetson Linux {self.l4t}" if self.l4t else None
        return ", ".join(filter(None, (self.arch, self.cpu, self.board, l4t, gpu)))


def here(devices: Iterable[Device], machine: Machine | None = None) -> list[str]:
    """Names of the profiles that this machine is."""
    machine = machine or Machine.read()
    return [device.name for device in devices if device.matches(machine)]


def resolve(name: str, devices: Iterable[Device], machine: Machine | None = None) -> Device:
    """The profile to run under: "cpu" is the CPU profile of this machine, any other name must be this machine.

    Raises:
        UnknownName: no profile has that name.
        DeviceError: the profile is of another machine; nothing is ever timed under a name that is not its own.
    """
    known = {device.name: device for device in devices}
    machine = machine or Machine.read()
    names = here(known.values(), machine)
    told = f"this machine is {machine}; profiles that match it: {', '.join(names) or 'none'}"
    if name == "cpu":
        matching = [known[n] for n in names if known[n].kind == "cpu"]
        if not matching:
            raise DeviceError(f"no CPU profile describes this machine: {told}; add a file to devices/")
        return max(matching, key=lambda device: len(device.recognise.model_dump(exclude_defaults=True)))
    if name not in known:
        raise UnknownName("device", name, ["cpu", *known])
    if name not in names:
        raise DeviceError(f"{name!r} is not this machine: {told}; run it there, or choose one that matches")
    return known[name]


def version_key(version: str) -> tuple[int, ...]:
    """A version to compare by: "10.3.0" is (10, 3)."""
    return tuple(int(part) for part in re.sub(r"(\.0)+$", "", version).split("."))


def _within(release: str | None, prefix: str) -> bool:
    return release is not None and (release == prefix or release.startswith(prefix + "."))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
