"""What all tests share: no network, and the real files that come with pinned packages."""

import ctypes
import os
import platform
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edgetok import native, native_build

SOURCES = Path(__file__).parent.parent / "plugins" / "native"
ISAS = (*{"x86_64": ("avx512", "avxvnni", "avx2"), "aarch64": ("neon",)}.get(platform.machine(), ()), "portable")

os.environ["HF_HUB_OFFLINE"] = "1"  # before any test imports transformers


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to other machines: a test that needs one would fail, or worse pass, by the weather."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"tests run without a network, and this one connects to {address!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def packaged(package: str, file: str) -> Path:
    """The path of a file that a package ships, found without importing the package."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed: make test installs it")
    return Path(spec.origin).parent / file


@pytest.fixture(scope="session")
def photograph() -> Path:
    """A real photograph: the astronaut of scikit-image, 512 x 512, RGB."""
    return packaged("skimage", "data/astronaut.png")


@pytest.fixture(scope="session")
def speech() -> Path:
    """Ten seconds of real speech at 16 kHz: the clip that moonshine-voice ships."""
    return packaged("moonshine_voice", "assets/beckett.wav")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ operators; built from a copy of the sources where a bare checkout holds none."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    if (found := native.library()) is not None:
        return found
    folder = tmp_path_factory.mktemp("native")
    for file in SOURCES.iterdir():
        if file.suffix in (".h", ".cpp"):
            shutil.copy(file, folder)
    native_build.build("g++", folder, folder / native.LIBRARY, native.digest(folder))
    return folder / native.LIBRARY


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, library: Path) -> str:
    """Each instruction set of the C++ operators; one that this machine lacks is left out."""
    monkeypatch.setenv("EDGETOK_NATIVE_ISA", request.param)
    loaded = ctypes.CDLL(str(library))
    loaded.edgetok_isa.restype = ctypes.c_char_p
    if loaded.edgetok_isa().decode() != request.param:
        pytest.skip(f"no {request.param} here")
    return str(request.param)
