"""The machine and the software that a bundle was made on, or a figure was measured on."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from edgetok import __version__
from edgetok.files import text_of

_TOOLS = (  # whatever a bundle's bytes may depend on
    "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "onnxscript", "pillow", "safetensors",
    "tokenizers", "torch", "transformers",
)  # fmt: skip
# What numerical libraries choose their kernels by. Apart, because "sme" on x86 is an encryption of memory.
_X86_FEATURES = re.compile(r"sse4_[12]|avx\w*|amx_\w+|fma|f16c")
_ARM_FEATURES = re.compile(r"asimd\w*|fphp|i8mm|bf16|sve\w*|sme\w*")
_ROOT = Path("/")


class Environment(BaseModel):
    """Where figures were measured.

    Attributes:
        machine: "x86_64" or "aarch64".
        cpu: the processor's name.
        board: what a device tree calls the board, e.g. "NVIDIA Jetson Orin Nano Developer Kit".
        cores: how many this process may run on.
        cpu_quota: how many cores' worth of time its control group allows; None for no limit.
        memory_bytes: of the machine, or of the control group where that is less.
        governors: the frequency governors in use; empty where the system does not say.
        max_mhz: the highest frequency that they allow.
        power_mode: a Jetson's, by nvpmodel's number; None elsewhere.
        packages: versions by package name; None where one is absent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str
    cpu: str
    cpu_features: tuple[str, ...]
    board: str | None
    cores: int
    cpu_quota: float | None
    memory_bytes: int
    system: str
    kernel: str
    python: str
    governors: tuple[str, ...]
    max_mhz: int | None
    power_mode: int | None
    packages: dict[str, str | None]


def environment(root: Path = _ROOT) -> Environment:
    """Describe this machine, reading /proc and /sys below `root`."""
    import psutil

    frequencies = [int(text) for text in _cpufreq(root, "scaling_max_freq") if text.isdigit()]
    limit = _cgroup_limit(root, "memory.max", "memory/memory.limit_in_bytes")
    total = psutil.virtual_memory().total
    return Environment(
        machine=platform.machine(),
        cpu=cpu_model(root),
        cpu_features=cpu_features(root),
        board=text_of(root / "proc/device-tree/model"),
        cores=_cores(),
        cpu_quota=cpu_quota(root),
        memory_bytes=min(total, limit) if limit else total,
        system=platform.system(),
        kernel=platform.release(),
        python=platform.python_version(),
        governors=tuple(sorted(set(_cpufreq(root, "scaling_governor")))),
        max_mhz=max(frequencies) // 1000 if frequencies else None,
        power_mode=power_mode(root),
        packages=tool_versions(),
    )


def tool_versions() -> dict[str, str | None]:
    """Give the versions of everything that a bundle's bytes depend on, importing none of it."""
    versions: dict[str, str | None] = {"edgetok": __version__}
    for name in _TOOLS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def cpu_features(root: Path = _ROOT) -> tuple[str, ...]:
    """Give the instruction sets that every core has and that select kernels; empty where the system does not say."""
    found: set[str] = set()
    for field, relevant in (("flags", _X86_FEATURES), ("Features", _ARM_FEATURES)):
        if cores := [set(line.split()) for line in _cpuinfo(root, field)]:
            found.update(filter(relevant.fullmatch, set.intersection(*cores)))
    return tuple(sorted(found))


def cpu_model(root: Path = _ROOT) -> str:
    """Give the processor's name; Arm cores are told by implementer and part (0x41 0xd42 is a Cortex-A78AE)."""
    if names := _cpuinfo(root, "model name"):
        return names[0]
    parts = zip(_cpuinfo(root, "CPU implementer"), _cpuinfo(root, "CPU part"), strict=False)
    kinds = sorted({f"implementer {implementer} part {part}" for implementer, part in parts})
    return ", ".join(kinds) or platform.processor() or platform.machine()


def highest_mhz(root: Path = _ROOT) -> float | None:
    """Give the highest frequency that the governors allow, or else the one that a core has now; None if neither."""
    allowed = [int(text) / 1e3 for text in _cpufreq(root, "scaling_max_freq") if text.isdigit()]
    return max(allowed or map(float, _cpuinfo(root, "cpu MHz")), default=None)


def power_mode(root: Path = _ROOT) -> int | None:
    """Give the number of a Jetson's power mode, as nvpmodel keeps it."""
    found = re.search(r"pmode:0*(\d+)", text_of(root / "var/lib/nvpmodel/status") or "")
    return int(found[1]) if found else None


def cores_available(root: Path = _ROOT) -> int:
    """Count the cores that this process can keep busy: its affinity, or its quota where that is less."""
    quota = cpu_quota(root)
    return _cores() if quota is None else max(1, min(_cores(), int(quota)))


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Give the cores' worth of time that this process's control groups allow; None for no limit."""
    quotas = []
    for text in _cgroup(root, "cpu.max"):  # "200000 100000", "max 100000"
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    old = [text_of(root / "sys/fs/cgroup/cpu" / name) or "" for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    if all(text.isdigit() for text in old):  # -1 for no limit
        quotas.append(int(old[0]) / int(old[1]))
    return min(quotas, default=None)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_limit(root: Path, name: str, old: str) -> int | None:
    texts = [*_cgroup(root, name), text_of(root / "sys/fs/cgroup" / old) or ""]
    return min((int(text) for text in texts if text.isdigit()), default=None)


def _cgroup(root: Path, name: str) -> list[str]:
    """Read a file of this process's control group (version 2) and of every group around it."""
    mount = root / "sys/fs/cgroup"
    own = re.search(r"^0::/(.*)$", text_of(root / "proc/self/cgroup") or "", re.MULTILINE)
    group = mount / own[1] if own and ".." not in own[1] else mount
    groups = [group, *(parent for parent in group.parents if parent.is_relative_to(mount))]
    return [text for folder in groups if (text := text_of(folder / name))]


def _cpufreq(root: Path, name: str) -> list[str]:
    files = (root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/cpufreq/{name}")
    return [text for file in files if (text := text_of(file))]


def _cpuinfo(root: Path, field: str) -> list[str]:
    """Give a field of /proc/cpuinfo, once per core."""
    return re.findall(rf"^{field}[ \t]*:[ \t]*(.*?)[ \t]*$", text_of(root / "proc/cpuinfo") or "", re.MULTILINE)
