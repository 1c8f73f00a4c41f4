"""What is installed on a device over SSH, from what, and on which devices nothing is."""

import json
import os
import shutil
import subprocess
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest

from edgetok import cli
from edgetok.api import remote
from edgetok.errors import RemoteError, UsageError
from edgetok.remote import installation
from edgetok.remote.named import Target
from edgetok.remote.wheel import own_wheel
from tests.far_side import FarSide

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of libraries, when a command first loads them


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8", "3.9"])
def test_an_old_python_is_told(far: FarSide, there: Target, block: Path, version: str) -> None:
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*versions.glob(f"{version}.*/bin/python{version}"), *filter(None, [shutil.which(f"python{version}")])]
    if not found or subprocess.run([found[0], "-c", "0"], capture_output=True, check=False).returncode:
        pytest.skip(f"no Python {version} here")
    folder = far.folder / f"python{version}"
    folder.mkdir()
    (folder / "python3").symlink_to(Path(found[0]).resolve())
    far.set_shell(f'PATH={folder}:/usr/bin:/bin exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"')  # nothing is run
    with pytest.raises(RemoteError, match=rf"has Python {version}\.\d+: edgetok needs 3.10 or newer as python3 there"):
        remote.run_on(there, block)


def test_root_is_refused(far: FarSide, there: Target, block: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the login is not root's, for the tests are not")
    far.set_shell('exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"', path="/usr/bin:/bin")
    with pytest.raises(RemoteError, match="ssh://device/cpu logs in as root: edgetok installs nothing as root. Log"):
        remote.run_on(there, block)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), "holds no wheels: pip download --only-binary=:all: --python-version 3."),
        (("numpy-2.4.6-cp311-cp311-manylinux_2_28_riscv64.whl",), "the wheels of numpy are for other machines, and"),
        (("numpy-2.4.6-cp27-cp27mu-linux_x86_64.whl",), "the wheels of numpy are for other machines"),
        (("numpy.whl",), "is not named as a wheel is: name-version-python-abi-platform.whl"),
    ],
)
def test_wheels_that_do_not_fit(
    far: FarSide, block: Path, tmp_path: Path, names: tuple[str, ...], told: str
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    found = remote.target("ssh://device", tmp_path)
    assert found is not None
    with pytest.raises(RemoteError) as refused:
        remote.run_on(found, block)
    assert told in str(refused.value)
    with pytest.raises(UsageError, match="--wheels is for a device over SSH, and --on cpu means this machine"):
        remote.target("cpu", tmp_path)


@pytest.mark.more
def test_doctor_looks_there(far: FarSide, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--on", "ssh://device", "--json"]) == 0
    told = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert told["cache"]["detail"] == str(far.home / ".cache/edgetok") and told["onnxruntime works"]["status"] == "ok"
    assert cli.main(["doctor", "--on", "cpu"]) == 2


@pytest.mark.more
def test_wheels_that_are_carried(far: FarSide, block: Path, tmp_path: Path) -> None:
    """A device that lacks a package gets it from the folder, with no index; without it pip's words are told."""
    there = remote.required("ssh://device/cpu", tmp_path)
    site = Path(np.__file__).parent.parent
    seen = far.home / "seen"
    seen.mkdir()
    for path in site.iterdir():
        if not path.name.lower().startswith(("soxr", "edgetok", "__editable__")):
            (seen / path.name).symlink_to(path)
    pth = next(far.home.glob(".local/lib/*/site-packages/device.pth"))
    before = pth.read_text()
    try:
        pth.write_text(str(seen))
        repack("soxr", tmp_path)
        (tmp_path / "unasked-1-py3-none-any.whl").write_bytes(b"")
        assert "errors" in remote.run_on(there, block)
        added = {path.name for made in far.environments() for path in made.glob("lib/*/site-packages/soxr")}
        assert added == {"soxr"}
        (wheel,) = tmp_path.glob("soxr*")
        wheel.unlink()
        with pytest.raises(RemoteError, match=r"pip failed: ERROR: .*soxr.*a wheel is missing in .*; packages of the"):
            remote.run_on(there, block)
    finally:
        pth.write_text(before)


def repack(package: str, folder: Path) -> None:
    """A wheel of an installed package."""
    found = distribution(package)
    tag = next(line[5:] for line in (found.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: "))
    with zipfile.ZipFile(folder / f"{package}-{found.version}-{tag}.whl", "w") as wheel:
        for file in found.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                wheel.write(str(found.locate_file(file)), str(file))


@pytest.mark.more
def test_operators_are_built_there(far: FarSide, there: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device of another architecture."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    monkeypatch.setattr(installation, "_can_share_operators", lambda _: False)
    before = far.environments()
    for made in before:
        shutil.rmtree(made)
    far.compiler = "g++"
    far.set_shell()
    checks = {check["name"]: check for check in remote.doctor_on(there)["checks"]}
    far.compiler = "none"
    assert checks["native operators"]["status"] == "ok", checks["native operators"]


def test_the_wheel_is_the_same_whenever_it_is_made() -> None:
    first, again = own_wheel(native=False), own_wheel(native=False)
    assert first.packed() == again.packed() and first.digest == again.digest
    assert not any(name.endswith(".so") or "__pycache__" in name for name in first.contents)
    assert "edgetok/exporters/tome.py" in first.contents and "edgetok/cli/run.py" in first.contents
