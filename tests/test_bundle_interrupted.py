"""An export that is killed, interrupted or runs out of disk leaves no half bundle and loses no whole one.

The interruptions are real signals, sent at every single file operation of `write_bundle` in turn: Python reports each
to an audit hook before it happens.
"""

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

import edgetok
from edgetok.bundle import is_bundle, open_bundle, write_bundle
from edgetok.errors import BundleError, OutputError
from edgetok.manifest import BuiltOn, Manifest, Recipe
from edgetok.model import Origin

OPERATIONS = ("open", "os.mkdir", "os.rename", "os.scandir", "os.remove", "os.rmdir", "shutil.rmtree")
MODEL = np.random.default_rng(0).bytes(200_000)  # nothing here runs it


def write(out: Path, name: str, force: bool = False) -> str:
    manifest = Manifest(
        source=Origin("onnx", name), recipe=Recipe(), tokens=4, inputs=(), outputs=(), tools={},
        built_on=BuiltOn(machine="x86_64", cpu_features=()),
    )  # fmt: skip
    samples = {kind: {"x": np.zeros(5000)} for kind in ("inputs", "original", "expected")}
    return write_bundle(out, MODEL, manifest, samples, force).id


def interrupted_writes(parent: Path, number: int, force: bool) -> Iterator[tuple[Path, int]]:
    """Interrupt an export at its first file operation, another at its second, and so on until one goes through.

    Yields:
        The folder it was given, and the exit status: the signal's number negated, or 3 for a KeyboardInterrupt.
    """
    # forked by a process of its own: this one may have threads
    command = [sys.executable, __file__, parent, str(int(number)), "force" if force else ""]
    path = os.pathsep.join([str(Path(edgetok.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path})
    statuses = json.loads((parent / "statuses.json").read_text())
    assert len(statuses) > 20, "there are more file operations than that"
    for step, status in enumerate(statuses):
        yield parent / str(step) / "small", status


def sweep(parent: Path, number: int, force: bool) -> None:
    """The process behind `interrupted_writes`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    statuses: list[int] = []
    while 0 not in statuses:
        out = parent / str(len(statuses)) / "small"
        out.parent.mkdir()
        if force:
            write(out, "old")
        child = os.fork()
        if child == 0:
            write_and_exit(out, number, len(statuses), force)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    (parent / "statuses.json").write_text(json.dumps(statuses[:-1]))


def write_and_exit(out: Path, number: int, step: int, force: bool) -> NoReturn:
    """Write a bundle, and have the signal strike at the given file operation."""
    operations = itertools.count()

    def strike(event: str, arguments: tuple) -> None:
        if event in OPERATIONS and str(out.parent) in str(arguments[0]) and next(operations) == step:
            os.kill(os.getpid(), number)

    sys.addaudithook(strike)
    status = 4
    try:
        write(out, "new", force)
        status = 0
    except KeyboardInterrupt:
        status = 3
    finally:
        os._exit(status)


def whole_bundles(folder: Path) -> list[str]:
    """Names of the sources of all bundles; whatever else is there must not look like one."""
    found = []
    for path in folder.iterdir():
        if is_bundle(path):
            found.append(open_bundle(path).manifest.source.name)
        else:
            with pytest.raises(BundleError):
                open_bundle(path)
    return sorted(found)


def test_killed(tmp_path):
    """After the rename there is a bundle, before it there is none."""
    seen = []
    for out, status in interrupted_writes(tmp_path, signal.SIGKILL, force=False):
        assert status == -signal.SIGKILL
        seen.append(whole_bundles(out.parent))
        assert out.exists() == bool(seen[-1])
    assert seen == sorted(seen) and seen[0] == [] and seen[-1] == ["new"]


def test_killed_while_replacing(tmp_path):
    """At every moment one of the two is whole; under its own name but between two renames."""
    aside = 0
    for out, status in interrupted_writes(tmp_path, signal.SIGKILL, force=True):
        assert status == -signal.SIGKILL
        found = whole_bundles(out.parent)
        assert found in (["old"], ["new"], ["new", "old"])
        if not out.exists():
            aside += 1
            assert found == ["old"]
    assert aside == 1


def test_left_by_a_kill(tmp_path):
    shutil.move(write(tmp_path / "small", "new") and tmp_path / "small", tmp_path / ".small.tmp-0123abcd")
    assert not is_bundle(tmp_path / ".small.tmp-0123abcd")
    with pytest.raises(BundleError, match="was left by an interrupted export: delete it and export again"):
        open_bundle(tmp_path / ".small.tmp-0123abcd")


@pytest.mark.parametrize("force", [False, True])
def test_ctrl_c(tmp_path, force):
    """Nothing is left but a whole bundle, under its own name."""
    for out, status in interrupted_writes(tmp_path, signal.SIGINT, force):
        assert status == 3, "KeyboardInterrupt goes on to the caller"
        found = whole_bundles(out.parent)
        assert found in ([["old"], ["new"]] if force else [[], ["new"]])
        assert [path.name for path in out.parent.iterdir()] == ["small"] * len(found)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A real file system of 512 kB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root; test_file_size_limit runs everywhere")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("no leave to mount a small disk here; test_file_size_limit runs everywhere")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("free", [0, 40_000, 100_000, 230_000, 300_000])  # a bundle takes 340 kB
def test_full_disk(small_disk, free):
    (small_disk / "filler").write_bytes(b"x" * (512 * 1024 - 4096 * 2 - free))
    with pytest.raises(OutputError, match=f"^{small_disk}/small cannot be written: the disk is full; nothing was left"):
        write(small_disk / "small", "new")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
    (small_disk / "filler").unlink()
    write(small_disk / "small", "new")


def test_full_disk_spares_the_old_bundle(small_disk):
    old = write(small_disk / "small", "old")
    with pytest.raises(OutputError, match="the disk is full"):
        write(small_disk / "small", "new", force=True)
    assert open_bundle(small_disk / "small").id == old
    assert [path.name for path in small_disk.iterdir()] == ["small"]


def test_full_disk_while_writing_weights_beside(small_disk, monkeypatch):
    import onnx
    import onnx_ir as ir

    from edgetok import serialize

    monkeypatch.setattr(serialize, "INLINE_LIMIT", 1000)
    weights = onnx.numpy_helper.from_array(np.zeros(1_000_000, np.float32), "w")
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [weights]))
    manifest = Manifest(
        source=Origin("onnx", "x"), recipe=Recipe(), tokens=4, inputs=(), outputs=(), tools={},
        built_on=BuiltOn(machine="x86_64", cpu_features=()),
    )  # fmt: skip
    with pytest.raises(OutputError, match="the disk is full; nothing was left behind"):
        write_bundle(small_disk / "small", ir.from_proto(model), manifest, {})
    assert not list(small_disk.iterdir())


def test_file_size_limit(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match="small cannot be written: File too large; nothing was left behind"):
            write(tmp_path / "small", "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


if __name__ == "__main__":
    sweep(Path(sys.argv[1]), int(sys.argv[2]), bool(sys.argv[3]))
