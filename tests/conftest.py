"""What all tests share: no network, and the real files that come with pinned packages."""

import ctypes
import os
import platform
import shutil
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edgetok import native, native_build
from edgetok.remote.address import Address
from edgetok.remote.named import Target
from tests.far_side import FarSide, far_side

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


@pytest.fixture(scope="session")
def block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one block of attention, in a folder whose name a shell would stumble over."""
    import numpy as np
    import onnx

    from edgetok.api import export

    graph = """<ir_version: 10, opset_import: ["": 23]> g (float[batch, 48, 32] x) => (float[batch, 48, 32] y) {
        q = MatMul(x, w)
        a = Attention<q_num_heads=4, kv_num_heads=4>(q, q, q)
        y = Add(x, a)
    }"""
    model = onnx.parser.parse_model(graph)
    weights = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32) / 6
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    folder = tmp_path_factory.mktemp("block")
    onnx.save(model, folder / "block.onnx")
    return export(str(folder / "block.onnx"), out=folder / "it's $(one) block").path


@pytest.fixture(scope="session")
def _shared_far_side() -> Iterator[FarSide]:
    device = far_side()
    yield device
    device.close()


@pytest.fixture
def far(_shared_far_side: FarSide, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarSide]:
    """A device behind a real sshd, as it was set up; this side's ssh knows it as `device`.

    Behind each test nothing is left running there, no run, and no half of a file.
    """
    device = _shared_far_side
    monkeypatch.setenv("PATH", f"{device.near}:{os.environ['PATH']}")
    yield device
    device.set_shell()
    device.know(device.folder / "host.pub")
    assert device.processes() == []
    assert list(device.home.glob(".cache/edgetok/jobs/*")) == []
    assert list(device.home.glob(".cache/edgetok/blobs/.*")) == []


@pytest.fixture
def there() -> Target:
    """How that device is asked for."""
    return Target("ssh://device/cpu", Address.parse("ssh://device/cpu"))
