"""The doctor, on this installation and on folders with two runtimes."""

import base64
import hashlib
import io

import pytest
from rich.console import Console

from edgetok import devices, doctor


def install(folder, name, version, content):
    """What pip leaves of a wheel: its files, and their hashes in RECORD; the last wheel's files win."""
    (folder / "onnxruntime").mkdir(parents=True, exist_ok=True)
    (folder / "onnxruntime" / "__init__.py").write_bytes(content)
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"onnxruntime/__init__.py,sha256={digest},{len(content)}\n{info.name}/RECORD,,\n")


def runtime(folder):
    return doctor.one_runtime(doctor.packages([str(folder)]))


def test_no_runtime(tmp_path):
    check = runtime(tmp_path)
    assert (check.status, check.remedy) == ("absent", "pip install 'edgetok[cpu]'")


def test_one_runtime(tmp_path):
    install(tmp_path, "onnxruntime", "1.23.2", b"cpu")
    assert runtime(tmp_path) == doctor.Check(name="onnxruntime", status="ok", detail="onnxruntime 1.23.2")


def test_two_runtimes_in_one_folder(tmp_path):
    install(tmp_path, "onnxruntime", "1.32.0", b"cpu")
    install(tmp_path, "onnxruntime-gpu", "1.31.1", b"gpu")
    check = runtime(tmp_path)
    assert check.status == "fail"
    assert check.detail == (
        "onnxruntime 1.32.0, onnxruntime-gpu 1.31.1 are installed into one folder and overwrite each other: "
        "1 files are not those of onnxruntime, such as onnxruntime/__init__.py"
    )
    assert check.remedy == "pip uninstall -y onnxruntime onnxruntime-gpu, then install the one that is wanted"


@pytest.mark.parametrize("left", [b"another wheel's", None], ids=["changed", "missing"])
def test_a_runtime_whose_files_are_not_its_own(tmp_path, left):
    install(tmp_path, "onnxruntime", "1.32.0", b"cpu")
    file = tmp_path / "onnxruntime" / "__init__.py"
    file.write_bytes(left) if left else file.unlink()
    check = runtime(tmp_path)
    assert check.status == "fail"
    assert check.detail == "onnxruntime 1.32.0: 1 files are not those of onnxruntime, such as onnxruntime/__init__.py"


def test_a_package_that_does_not_work_says_why():
    check = doctor.attempt("onnxruntime", "raise ImportError('libfoo.so.1: cannot open')", "reinstall it")
    assert (check.status, check.detail) == ("fail", "ImportError: libfoo.so.1: cannot open")
    check = doctor.attempt("onnxruntime", "import os; os.abort()", "reinstall it")
    assert (check.status, check.detail, check.remedy) == ("fail", "ended with exit code -6", "reinstall it")


def test_this_installation(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGETOK_CACHE", str(tmp_path / "cache"))
    diagnosis = doctor.examine(devices.load_all())
    checks = {check.name: check for check in diagnosis.checks}
    assert checks["core packages"].status == "ok"
    assert checks["onnxruntime works"].detail.startswith("runs a model of opset 23")
    assert checks["safetensors works"].status == "ok"
    assert checks["cache"].detail == str(tmp_path / "cache")
    assert diagnosis.healthy
    console = Console(file=io.StringIO(), width=100)
    diagnosis.render(console)
    assert all(check.name in console.file.getvalue() for check in diagnosis.checks)
    assert doctor.Diagnosis.model_validate_json(diagnosis.model_dump_json()) == diagnosis


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGETOK_CACHE", str(tmp_path / "file"))
    check = doctor.cache()
    assert check.status == "fail"
    assert check.remedy == "set EDGETOK_CACHE to a folder that can"


def test_no_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.compiler().status == "absent"


def test_what_is_absent_is_no_failure():
    absent = doctor.Check(name="torch", status="absent", detail="not installed", remedy="install it")
    failed = doctor.Check(name="cache", status="fail", detail="cannot be written")
    assert doctor.Diagnosis(checks=(absent,)).healthy
    assert not doctor.Diagnosis(checks=(absent, failed)).healthy
