"""What of NVIDIA's the tests use: installed from the registry into a cache, and never part of the project."""

import os
import subprocess
import sys
from pathlib import Path

from edgetok.cache import made_once

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgetok-tests"
HERE = Path(__file__).parent
STUBBED = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


def package(*pinned: str) -> Path:
    """A folder with some packages in it, their dependencies left out."""

    def install(folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *pinned]
        subprocess.run(command, check=True, capture_output=True, text=True)

    return made_once(CACHE / "+".join(pinned), install)


def bindings(version: str) -> dict[str, str]:
    """The environment in which a version's Python bindings can be imported, on stubs of NVIDIA's libraries."""
    cuda = "cu12" if version.startswith(("10.3", "10.9")) else "cu13"
    folders = [package(f"tensorrt_{cuda}_bindings=={version}")]
    if version.startswith(("10.3", "10.9", "10.13")):  # made for numpy 1
        folders.append(package("numpy==1.26.4"))
    major = version.partition(".")[0]

    def compile(folder: Path) -> None:
        for library in STUBBED:
            target = folder / f"lib{library}.so.{major}"
            subprocess.run(["gcc", "-shared", "-fPIC", HERE / "stub.c", "-o", target], check=True)

    stubs = made_once(CACHE / f"stubs-{major}", compile)
    return environment(*folders, Path.cwd(), libraries=stubs)


def environment(*folders: Path, libraries: Path | None = None) -> dict[str, str]:
    """This process's environment with other folders to import from."""
    own = {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    return {**os.environ, **own, **({"LD_LIBRARY_PATH": str(libraries)} if libraries else {})}


def headers() -> list[Path]:
    """TensorRT's C++ headers, Apache-2.0, from a package that has them; CUDA's two types from here."""
    return [package("kernel-lens==2.0.1") / "kernel_lens" / "include" / "tensorrt", HERE / "include"]


def registry() -> dict[str, str]:
    """The environment in which NVIDIA's plugin registry can be imported: that of the lean runtime."""
    version = "11.4.0.106"
    names = ("tensorrt_lean_cu13_libs", "tensorrt_lean_cu13_bindings")
    return environment(package(*(f"{name}=={version}" for name in names)))
