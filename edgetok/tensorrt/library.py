"""The plugin library in C++: built by g++ on the machine that runs the engines, where JetPack brought the headers.

It needs neither CUDA's compiler nor its libraries: kernels come as PTX on the nodes, and the driver is opened when the
first of them runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgetok.errors import EdgetokError, UsageError

LIBRARY = "libedgetok_tensorrt.so"
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-s", "-fvisibility=hidden", "-Wno-deprecated-declarations")
HEADERS = {"NvInferRuntime.h": "TensorRT", "cuda_runtime_api.h": "CUDA"}
PLACES = (
    "/usr/include/aarch64-linux-gnu", "/usr/include/x86_64-linux-gnu", "/usr/include", "/usr/local/cuda/include"
)  # fmt: skip

_beside, _inside = (Path(__file__).parents[up] / "plugins" / "tensorrt" for up in (2, 1))
SOURCES = _inside if _inside.is_dir() else _beside  # as the packages lie in a wheel, or in a checkout


def command(
    compiler: str, sources: Sequence[Path], made: Path, operators: Sequence[str], headers: Sequence[Path]
) -> list[str]:
    """What compiles the library."""
    return [
        compiler, *FLAGS, f'-DEDGETOK_OPERATORS="{",".join(operators)}"', *(f"-isystem{place}" for place in headers),
        *map(str, sources), "-o", str(made), "-ldl",
    ]  # fmt: skip


def build(folder: Path, operators: Sequence[str], headers: Sequence[Path] = ()) -> Path:
    """Build the library.

    Args:
        folder: where it goes; made if it is not there.
        operators: op_types of the nodes that it takes.
        headers: where TensorRT's headers and CUDA's are, looked at before the usual places.

    Returns:
        The library's path. It is renamed into place: a process that has an older one loaded keeps that.

    Raises:
        UsageError: no compiler, or a header is not there.
        EdgetokError: the compiler refused.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise UsageError(f"no C++ compiler {os.environ.get('CXX', 'g++')!r}: apt install g++, or set CXX")
    places = [*headers, *map(Path, PLACES)]
    found = {name: next((place for place in places if (place / name).is_file()), None) for name in HEADERS}
    for name, place in found.items():
        if place is None:
            looked = ", ".join(map(str, places))
            raise UsageError(f"no {name} ({HEADERS[name]}) in {looked}: give its folder with --headers")
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f".{LIBRARY}.{os.getpid()}"
    there = [place for place in dict.fromkeys(found.values()) if place is not None]
    try:
        words = command(compiler, sorted(SOURCES.glob("*.cpp")), made, operators, there)
        result = subprocess.run(words, capture_output=True, text=True)
        if result.returncode:
            raise EdgetokError(f"{compiler} failed on the plugin library:\n{result.stderr[-2000:]}")
        made.replace(folder / LIBRARY)
    finally:
        made.unlink(missing_ok=True)
    return folder / LIBRARY
