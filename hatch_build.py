"""Builds the C++ operators during an installation, if there is a compiler; without one edgetok does without them.

An editable installation gets the library beside its sources; a wheel holds it, and then names its platform.
The same compiler makes the same bytes, wherever the sources lie.
"""

import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# C++20 for lambdas with template parameters; g++ 11 knows all of INSTRUCTIONS. The last two of -f lose no NaN: they
# only ignore errno and traps.
FLAGS = ("-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi")
AVX2 = ("-mavx2", "-mfma", "-mf16c")
INSTRUCTIONS = {  # of one file each; which of them runs is decided on the machine
    ("x86_64", "kernel_avx2"): AVX2,
    ("x86_64", "kernel_avxvnni"): (*AVX2, "-mavxvnni"),
    ("x86_64", "kernel_avx512"): (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"),
    ("aarch64", "kernel_neon"): ("-march=armv8.2-a+dotprod",),
}


class NativeBuild(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatchling before it packs a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library and say where it goes in the wheel."""
        sources = Path(self.root) / "plugins" / "native"
        native = _native(Path(self.root))
        compiler = shutil.which(os.environ.get("CXX", "g++"))
        if compiler is None:
            self.app.display_warning("No C++ compiler: no native operators in this installation.")
            return
        self._folder = tempfile.TemporaryDirectory()
        library = (sources if version == "editable" else Path(self._folder.name)) / native.LIBRARY
        try:
            build(compiler, sources, library, native.digest(sources))
        except subprocess.CalledProcessError as error:
            self.app.display_warning(f"{compiler} failed: no native operators in this installation.\n{error.stderr}")
            return
        if version != "editable":
            build_data["force_include"][str(library)] = f"edgetok/plugins/native/{native.LIBRARY}"
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was only needed to pack."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def build(compiler: str, sources: Path, library: Path, digest: str) -> None:
    """Compile every source at once and link them.

    Raises:
        CalledProcessError: the compiler refused; `stderr` says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        objects, running = [], []
        for source in sorted(sources.glob("*.cpp")):
            objects.append(str(Path(folder) / f"{source.stem}.o"))
            own = INSTRUCTIONS.get((platform.machine(), source.stem), ())
            marked = f'-DEDGETOK_SOURCES="{digest}"'
            command = [compiler, *FLAGS, *own, marked, "-c", source.name, "-o", objects[-1]]
            running.append(subprocess.Popen(command, cwd=sources, stderr=subprocess.PIPE, text=True))
        for process in running:
            _, errors = process.communicate()
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, process.args, stderr=errors)
        # Renamed into place: a process that has the old one loaded keeps it.
        made = Path(folder) / library.name
        link = [compiler, "-shared", "-s", "-Wl,--build-id=none", *objects, "-o", str(made)]
        subprocess.run(link, stderr=subprocess.PIPE, text=True, check=True)
        waiting = library.with_suffix(".new")
        shutil.copy(made, waiting)
        waiting.replace(library)


def _native(root: Path) -> ModuleType:
    """edgetok/native.py by itself: what edgetok needs is not installed while it is built."""
    spec = spec_from_file_location("edgetok_native", root / "edgetok" / "native.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
