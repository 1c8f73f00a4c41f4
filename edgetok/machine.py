"""Which machine this is, and which device profiles describe it.

A machine is read from its files: the device tree and /etc/nv_tegra_release of a Jetson, the NVIDIA driver's
/proc/driver/nvidia, /proc/cpuinfo. In a container or under WSL the driver's files may be missing; nvidia-smi, which
asks the driver through NVML, names the cards then.
"""

import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edgetok.device import ON_GPU, Device
from edgetok.errors import DeviceError, UnknownName
from edgetok.files import text_of

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")


@dataclass(frozen=True)
class Machine:
    """What a machine says of itself."""

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
        gpus = _in_driver(root) or (_in_nvidia_smi() if root == Path("/") else ())
        return cls(
            arch={"amd64": "x86_64", "arm64": "aarch64"}.get(arch, arch),
            cpu=f"CPU part {', '.join(sorted(set(parts)))}" if parts else model[1] if model else "CPU unknown",
            cpu_parts=frozenset(parts),
            flags=frozenset(flags[1].split() if flags else ()),
            board=text_of(root / "proc/device-tree/model") or None,
            compatible=tuple(filter(None, _text(root / "proc/device-tree/compatible").split("\0"))),
            l4t=f"{release[1]}.{release[2]}" if release else None,
            gpus=gpus,
        )

    def is_a(self, device: Device) -> bool:
        """Whether that profile describes this machine."""
        asked = device.recognise
        return (
            not asked.unread
            and self.arch == asked.arch
            and (not asked.cpu_parts or bool(self.cpu_parts & set(asked.cpu_parts)))
            and (not asked.compatible or bool(set(self.compatible) & set(asked.compatible)))
            and (not asked.l4t or any(_within(self.l4t, release) for release in asked.l4t))
            and (not asked.gpus or bool(set(self.gpus) & set(asked.gpus)))
        )

    def closeness(self, device: Device) -> tuple[int, int]:
        """How closely a profile that fits describes this machine, to be compared.

        A board and its module are listed in this order among a machine's compatible strings. Otherwise a profile that
        asks for more is closer: a board's than its processor's, that than any processor's.
        """
        asked = device.recognise
        ranks = [len(self.compatible) - at for at, each in enumerate(self.compatible) if each in asked.compatible]
        return max(ranks, default=0), len(asked.model_dump(exclude_defaults=True))

    def __str__(self) -> str:
        gpu = ", ".join(self.gpus) or None
        l4t = f"Jetson Linux {self.l4t}" if self.l4t else None
        return ", ".join(filter(None, (self.arch, self.cpu, self.board, l4t, gpu)))


def here(devices: Iterable[Device], machine: Machine | None = None) -> list[str]:
    """Names of the profiles that this machine is."""
    machine = machine or Machine.read()
    return [device.name for device in devices if machine.is_a(device)]


def resolve(
    name: str, devices: Iterable[Device], machine: Machine | None = None, runtime: str = "onnxruntime"
) -> Device:
    """The profile to run under, which must be this machine's.

    Args:
        name: "cpu" is the processor's profile; "auto" that of the board or card, if the runtime computes there, and the
            processor's otherwise; any other name must be this machine. onnxruntime-gpu computes on any card, whether
            its profile lists it or not.
        devices: every profile.
        machine: instead of the one this runs on.
        runtime: what computes. A graphics card in a PC is not what onnxruntime's CPU wheel runs on.

    Raises:
        UnknownName: no profile has that name.
        DeviceError: the profile is of another machine; nothing is ever timed under a name that is not its own. Or the
            runtime computes on a card, and the profile is the processor's.
    """
    known = {device.name: device for device in devices}
    machine = machine or Machine.read()
    names = here(known.values(), machine)
    told = f"this machine is {machine}; profiles that match it: {', '.join(names) or 'none'}"
    if name in ("cpu", "auto"):
        found = [known[each] for each in names if known[each].kind == "cpu"]
        if name == "auto":
            cards = [known[each] for each in names if known[each].kind == "gpu" and runtime == "onnxruntime-gpu"]
            found = [known[each] for each in names if runtime in known[each].offered] or cards or found
        if not found:
            kind = "CPU profile" if name == "cpu" else "profile"
            raise DeviceError(f"no {kind} describes this machine: {told}; add a file to devices/")
        closest = max(found, key=machine.closeness)
        if runtime in ON_GPU and closest.kind == "cpu":
            raise DeviceError(
                f"{runtime} computes on a graphics card, not on {closest.name}: {told}; "
                "say --on auto where edgetok devices lists the card"
            )
        return closest
    if name not in known:
        raise UnknownName("device", name, ["auto", "cpu", *known])
    if name not in names:
        raise DeviceError(f"{name!r} is not this machine: {told}; run it there, or choose one that matches")
    return known[name]


def _in_driver(root: Path) -> tuple[str, ...]:
    texts = [_text(path) for path in sorted(root.glob("proc/driver/nvidia/gpus/*/information"))]
    found = (re.search(r"^Model:\s*(.+)", text, re.MULTILINE) for text in texts)
    return tuple(match[1].strip() for match in found if match)


def _in_nvidia_smi() -> tuple[str, ...]:
    try:
        done = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())


def _within(release: str | None, prefix: str) -> bool:
    return release is not None and (release == prefix or release.startswith(prefix + "."))


def _text(path: Path) -> str:
    return text_of(path) or ""
