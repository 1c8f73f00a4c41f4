"""One copy of each module, and a wheel that puts edgetok/ and nothing else into site-packages."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAPPED = ("devices", "exporters", "plugins", "runtimes")  # beside edgetok/ in a checkout, inside it in a wheel


@pytest.mark.parametrize("folder", MAPPED)
def test_bare_import_is_refused(folder: str) -> None:
    code = f"import edgetok.{folder}\ntry:\n    import {folder}\nexcept ImportError as error:\n    print(error)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"import edgetok.{folder}, not {folder}: it would be a second copy\n"


LIBRARY = "edgetok/plugins/native/libedgetok.so"


def build(kind: str, source: Path, out: Path, compiler: str = "g++") -> Path:
    """Build a wheel or an sdist without a network: hatchling is installed."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    subprocess.run(command, cwd=source, env={**os.environ, "CXX": compiler}, check=True)
    (archive,) = out.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> dict[str, bytes]:
    """Every file of a wheel but its list of files, which names the builder's order."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in sorted(archive.namelist()) if not name.endswith("/RECORD")}


@pytest.mark.full
def test_wheel_holds_edgetok_and_nothing_else(wheel: Path) -> None:
    top = {name.partition("/")[0] for name in contents(wheel)}
    assert {name for name in top if not name.endswith(".dist-info")} == {"edgetok"}


@pytest.mark.full
def test_wheel_holds_every_file(wheel: Path) -> None:
    expected = {"edgetok/py.typed"}
    for folder in ("edgetok", *MAPPED):
        inside = "" if folder == "edgetok" else "edgetok/"
        files = [
            file
            for kind in ("*.py", "*.toml", "*.json", "*.j2", "*.onnx", "*.cpp", "*.h", "*.cu")
            for file in (ROOT / folder).rglob(kind)
        ]
        expected |= {inside + file.relative_to(ROOT).as_posix() for file in files}
    assert any(name.startswith("edgetok/devices/") and name.endswith(".toml") for name in expected)
    expected |= {LIBRARY} if shutil.which("g++") else set()
    assert {name for name in contents(wheel) if ".dist-info/" not in name} == expected


@pytest.mark.full
def test_wheel_without_a_compiler(wheel: Path, tmp_path: Path) -> None:
    """What was built where there is none lacks the library and nothing else, and runs on any machine."""
    without = build("wheel", ROOT, tmp_path, compiler="no-such-compiler")
    assert without.name.endswith("-py3-none-any.whl")
    assert set(contents(wheel)) - set(contents(without)) <= {LIBRARY}
    if shutil.which("g++"):
        assert "-py3-none-linux_" in wheel.name and LIBRARY in contents(wheel)


@pytest.mark.full
def test_wheel_carries_its_licence(wheel: Path) -> None:
    (name,) = [name for name in contents(wheel) if name.endswith("/licenses/LICENSE")]
    assert contents(wheel)[name] == (ROOT / "LICENSE").read_bytes()


@pytest.mark.full
def test_wheel_by_way_of_the_sdist_is_the_same(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as archive:
        kept = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Debian 12's Python 3.11.2 has none
        archive.extractall(tmp_path, **kept)
    (source,) = tmp_path.glob("edgetok-*")
    assert contents(build("wheel", source, tmp_path / "again")) == contents(wheel)


@pytest.mark.full
def test_installed_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"import edgetok, {', '.join(f'edgetok.{folder}' for folder in MAPPED)}\n"
        "print(edgetok.__file__, edgetok.exporters.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    inside = tmp_path / "edgetok"
    assert done.stdout.split() == [str(inside / "__init__.py"), str(inside / "exporters" / "__init__.py")]
