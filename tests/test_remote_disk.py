"""A device whose disk fills up: a small file system as its home, which only root can mount."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edgetok
from edgetok.api import remote
from edgetok.errors import RemoteError
from tests.far_side import FarSide, far_side

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.more


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder of 90 MB."""
    out = tmp_path_factory.mktemp("bundle") / "texts"
    edgetok.export("zoo:minilm", length=16, out=out)
    return out


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], FarSide]]:
    """Starts a device with a file system of its own."""
    started = []

    def start(disk: str) -> FarSide:
        started.append(far_side(disk=disk))
        monkeypatch.setenv("PATH", f"{started[0].near}:{os.environ['PATH']}")
        return started[0]

    yield start
    for each in started:
        assert each.processes() == []
        each.close()


def there() -> remote.Target:
    return remote.required("ssh://device/cpu")


def test_a_bundle_that_does_not_fit(device: Callable[[str], FarSide], bundle: Path) -> None:
    started = device("size=110m")
    with pytest.raises(RemoteError, match=r"ssh://device/cpu: 9\d MB are to be sent, and \d+ MB are free in ~/.cache"):
        remote.run_on(there(), bundle)
    assert len(list(started.home.glob(".cache/edgetok/blobs/*"))) == 1, "the wheel, and nothing of the bundle"


def test_an_installation_that_does_not_fit(device: Callable[[str], FarSide], bundle: Path) -> None:
    """Files run out before bytes do."""
    started = device("size=400m,nr_inodes=900")
    with pytest.raises(RemoteError, match=r"ssh://device/cpu: the disk is full"):
        remote.run_on(there(), bundle)
    assert list(started.home.glob(".local/share/edgetok/envs/*/*")) == [], "no half of an environment"


def test_a_report_that_does_not_fit(device: Callable[[str], FarSide], bundle: Path, tmp_path: Path) -> None:
    """Full before the run is begun, and while it goes on: told, ended, removed; with room it works again."""
    started = device("size=400m")
    assert "errors" in remote.run_on(there(), bundle)

    def fill() -> None:
        subprocess.run(["dd", "if=/dev/zero", f"of={started.home}/filler", "bs=1M"], capture_output=True, check=False)
        assert shutil.disk_usage(started.home).free < 1 << 20

    def fill_when_measuring(text: str, done: float) -> None:
        if "measuring" in text and not (started.home / "filler").exists():
            fill()

    with pytest.raises(RemoteError, match="the disk is full|No space left on device"):
        remote.profile_on(there(), bundle, out=tmp_path / "report", progress=fill_when_measuring)
    with pytest.raises(RemoteError, match="the disk is full|No space left on device"):
        remote.profile_on(there(), bundle, out=tmp_path / "report")
    assert not (tmp_path / "report").exists() and list(started.home.glob(".cache/edgetok/jobs/*")) == []
    (started.home / "filler").unlink()
    assert "errors" in remote.run_on(there(), bundle)
