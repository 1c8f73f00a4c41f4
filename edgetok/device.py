"""What is known of a device.

A profile is a TOML file of `devices/`. Numbers come from data sheets and measurements, so every table that holds one
names its `source` and how far to trust it; the loader refuses a table that does not.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgetok.errors import DeviceError, UnknownName

Precision = Literal["fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "fp4", "int8", "int4"]
Peak = Literal["fp32", "fp16", "int8", "fp8", "fp4"]
# From the maker's own document; such a figure as others give it; measured; computed by a rule; sources differ, or few.
Confidence = Literal["published", "quoted", "measured", "derived", "uncertain"]
ON_GPU = ("onnxruntime-gpu", "tensorrt", "tensorrt-rtx")  # the runtimes that compute there
_VERSION = r"^\d+\.\d+(\.\d+)*$"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sourced(_Table):
    """A table with numbers in it: it says where they come from, and how far to trust them."""

    source: str = Field(min_length=8)
    confidence: Confidence


class Recognise(_Table):
    """What a machine must show to be this device; an empty tuple asks for nothing."""

    arch: Literal["x86_64", "aarch64"]
    cpu_parts: tuple[str, ...] = ()  # "CPU part" of /proc/cpuinfo
    compatible: tuple[str, ...] = ()  # any of /proc/device-tree/compatible
    l4t: tuple[str, ...] = ()  # Jetson Linux releases: "36.5" takes 36.5 and 36.5.0
    gpus: tuple[str, ...] = ()  # NVIDIA driver's model names
    unread: bool = False  # what such a machine says of itself is not known yet: none is taken for it


class Memory(Sourced):
    gigabytes: float = Field(gt=0)
    shared: bool  # CPU and GPU use the same memory


class Software(Sourced):
    """What the system image of a board brings."""

    release: str  # "JetPack 6.2"
    cuda: str = Field(pattern=_VERSION)
    ptx: str | None = Field(None, pattern=_VERSION)  # newest that the driver reads


class Compute(Sourced):
    """Operations per clock and unit; a multiply-add is two."""

    unit: Literal["sm", "core"]
    needs: tuple[str, ...] = ()  # CPU flags, all of them
    fp32: int = Field(gt=0)
    fp16: int | None = Field(None, gt=0)
    int8: int | None = Field(None, gt=0)
    fp8: int | None = Field(None, gt=0)
    fp4: int | None = Field(None, gt=0)


class Mode(Sourced):
    """One power mode; which units run, and how fast, differs per mode."""

    id: int | None = None  # nvpmodel's
    name: str
    default: bool = False
    units: int = Field(gt=0)
    mhz: float = Field(gt=0)
    bandwidth_gbs: float = Field(gt=0)
    cpu_cores: int | None = Field(None, gt=0)
    cpu_mhz: float | None = Field(None, gt=0)


class Headline(Sourced):
    """The figure on the box, to be held against the computed one."""

    int8_tops: float
    sparse: bool
    mode: str


class RuntimeOffer(Sourced):
    """A runtime that can be installed there, and what it takes."""

    name: Literal["onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx"]
    version: str = Field(pattern=_VERSION)
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
    software: Software | None = None
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
            asked = first["loc"][-1] in ("source", "confidence")
            more = ": every table with numbers says where they come from, and how far to trust them" if asked else ""
            raise DeviceError(f"device profile {path.name}: {where}: {first['msg']}{more}") from None

    def mode(self, name: str | None = None) -> Mode:
        """A power mode by name; without one, the mode that the device ships in."""
        if name is None:
            return next(mode for mode in self.modes if mode.default)
        for mode in self.modes:
            if mode.name == name:
                return mode
        raise UnknownName(f"power mode of {self.name}", name, [mode.name for mode in self.modes])

    @property
    def group(self) -> str:
        """The heading that lists put it under."""
        if self.kind == "cpu":
            return "Processors"
        return "Graphics cards" if self.recognise.gpus else "Jetson and IGX"

    @property
    def offered(self) -> set[str]:
        """Names of the runtimes that can be installed there."""
        return {offer.name for offer in self.runtimes}

    def only(self, runtime: str) -> "Device":
        """The device with that runtime and no other."""
        return self.model_copy(update={"runtimes": tuple(offer for offer in self.runtimes if offer.name == runtime)})

    def lacks(self, precision: str, what: str, kinds: Iterable[str]) -> tuple[str, list[str]] | None:
        """Why a precision is not to be had there, and which of other kinds are; None where it is.

        Args:
            precision: "fp4", or a description of what no precision is.
            what: of which things, as in "weights".
            kinds: what may stand in its place.
        """
        if precision in self.precisions:
            return None
        known = [str(kind) for kind in kinds if kind in self.precisions]
        missing = f"{precision} {what}".rstrip()
        return f"{self.name} has no {missing}: it has {', '.join(known) or 'none of few bits'}", known

    def peak(self, precision: Peak, mode: str | None = None) -> float | None:
        """Dense operations per second in a power mode: units x clock x operations per clock."""
        if not self.modes:
            return None
        at, per_clock = self.mode(mode), getattr(self.compute[0], precision)
        return None if per_clock is None else at.units * at.mhz * 1e6 * per_clock


def version_key(version: str) -> tuple[int, ...]:
    """A version to compare by: "10.3.0" is (10, 3)."""
    return tuple(int(part) for part in re.sub(r"(\.0)+$", "", version).split("."))
