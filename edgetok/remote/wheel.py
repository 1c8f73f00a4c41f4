"""edgetok's own wheel, as it is sent to a device: written from what runs here, a checkout or an installation.

The C++ operators in it are those of this machine, and go along only where the device has the same architecture. The
same files give the same bytes, and their digest names the environment there.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import edgetok
from edgetok.native import LIBRARY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDERS = ("exporters", "plugins", "runtimes", "devices")  # beside edgetok/ in a checkout, inside it when installed
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Wheel:
    """A wheel in memory.

    Attributes:
        name: its file name.
        contents: what it holds, by path.
        requirements: what pip must install besides, in pip's spelling.
        runtime: the package that runs bundles on a processor, for a device that has none.
    """

    name: str
    contents: dict[str, bytes]
    requirements: tuple[str, ...]
    runtime: str

    @property
    def digest(self) -> str:
        """A sha256 of what it holds; packing it takes ten times as long."""
        listed = (f"{name} {hashlib.sha256(data).hexdigest()}\n" for name, data in sorted(self.contents.items()))
        return hashlib.sha256("".join(listed).encode()).hexdigest()

    def packed(self) -> bytes:
        """The wheel's own bytes."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            for name, data in self.contents.items():
                file.writestr(zipfile.ZipInfo(name, _DATE), data, zipfile.ZIP_DEFLATED)
        return packed.getvalue()


def own_wheel(native: bool) -> Wheel:
    """Put together edgetok as it is imported here.

    Args:
        native: with the C++ operators, if they were built here.
    """
    package = Path(edgetok.__file__).parent
    required, extra = _requirements(package.parent)
    contents = {name: path.read_bytes() for name, path in _files(package) if native or path.name != LIBRARY}
    info = f"edgetok-{edgetok.__version__}.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        "Name: edgetok",
        f"Version: {edgetok.__version__}",
        "Requires-Python: >=3.10",
        *(f"Requires-Dist: {each}" for each in required),
    ]
    contents[f"{info}/METADATA"] = "\n".join([*metadata, ""]).encode()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: edgetok\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    contents[f"{info}/entry_points.txt"] = b"[console_scripts]\nedgetok = edgetok.cli:main\n"
    record = [f"{name},sha256={_urlsafe(data)},{len(data)}" for name, data in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    return Wheel(f"edgetok-{edgetok.__version__}-py3-none-any.whl", contents, required, extra)


def _files(package: Path) -> Iterator[tuple[str, Path]]:
    """Every file of edgetok, with its place in the wheel."""
    beside = FOLDERS if (package.parent / "pyproject.toml").is_file() else ()
    for folder, inside in ((package, "edgetok"), *((package.parent / name, f"edgetok/{name}") for name in beside)):
        for path in sorted(folder.rglob("*")):
            place = path.relative_to(folder)
            if path.is_file() and "__pycache__" not in place.parts:
                yield f"{inside}/{place.as_posix()}", path


def _requirements(root: Path) -> tuple[tuple[str, ...], str]:
    """What edgetok needs, and the runtime that its extra `cpu` names."""
    if (root / "pyproject.toml").is_file():
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return tuple(project["dependencies"]), project["optional-dependencies"]["cpu"][0]
    listed = distribution("edgetok").requires or []
    plain = tuple(each for each in listed if "extra ==" not in each)
    (runtime,) = (each for each in listed if re.search(r"extra == ['\"]cpu['\"]", each))
    return plain, runtime.partition(";")[0].strip()


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
