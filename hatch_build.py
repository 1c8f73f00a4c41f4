"""Builds the C++ operators during an installation, if there is a compiler; without one edgetok does without them.

An editable installation gets the library beside its sources; a wheel holds it, and then names its platform.
"""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuild(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatchling before it packs a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library and say where it goes in the wheel."""
        sources = Path(self.root) / "plugins" / "native"
        native, native_build = (_alone(Path(self.root), name) for name in ("native", "native_build"))
        compiler = shutil.which(os.environ.get("CXX", "g++"))
        if compiler is None:
            self.app.display_warning("No C++ compiler: no native operators in this installation.")
            return
        self._folder = tempfile.TemporaryDirectory()
        library = (sources if version == "editable" else Path(self._folder.name)) / native.LIBRARY
        try:
            native_build.build(compiler, sources, library, native.digest(sources))
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


def _alone(root: Path, name: str) -> ModuleType:
    """A module of edgetok/ by itself: what edgetok needs is not installed while it is built."""
    spec = spec_from_file_location(f"edgetok_{name}", root / "edgetok" / f"{name}.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
