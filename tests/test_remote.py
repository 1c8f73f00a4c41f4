"""Run and profile over SSH, against a real sshd: what arrives, what a lost connection leaves, what is refused."""

import json
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any

import numpy as np
import psutil
import pytest

import edgetok
from edgetok import cli
from edgetok.api import remote
from edgetok.errors import RemoteError
from edgetok.remote import connection as connections
from edgetok.remote.named import Target
from tests.far_side import FarSide

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of libraries, when a command first loads them


class Heard:
    """What was told of the progress; `at` does something when a text is heard."""

    def __init__(self, at: str = "nothing", do: Callable[[], None] = lambda: None):
        self.texts: list[str] = []
        self._at, self._do = at, do

    def __call__(self, text: str, done: float) -> None:
        self.texts.append(text)
        if self._at in text:
            self._at = "nothing more"
            self._do()

    def __contains__(self, part: str) -> bool:
        return any(part in text for text in self.texts)


def kill_ssh() -> None:
    """Kill this process's connections, as a network that goes away does."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # one that has ended meanwhile
            if child.name() == "ssh":
                child.send_signal(signal.SIGKILL)


def plant_others(far: FarSide) -> set[Path]:
    """Environments of other edgetoks, which fail if they are run."""
    for name in ("0.0.9-0123456789ab", f"{edgetok.__version__}-0123456789ab"):
        folder = far.home / ".local/share/edgetok/envs" / name
        (folder / "bin").mkdir(parents=True)
        (folder / "bin/edgetok").write_text("#!/bin/sh\nexit 9\n")
        (folder / "ready").write_text(name)
    far.own()
    return far.environments()


def test_run(far: FarSide, there: Target, block: Path, tmp_path: Path) -> None:
    """The outputs are this machine's own; what was sent once is not sent again.

    Other edgetoks that are there, an older one and one of the same version with other files, are left alone.
    """
    for made in far.environments():  # of tests before this one
        shutil.rmtree(made)
    shutil.rmtree(far.home / ".cache/edgetok/blobs", ignore_errors=True)
    others = plant_others(far)
    samples = edgetok.load(block).bundle.samples("inputs")
    np.savez(tmp_path / "in -put.npz", **samples)
    heard = Heard()
    told = remote.run_on(there, block, inputs=[str(tmp_path / "in -put.npz")], out=tmp_path / "y.npz", progress=heard)
    assert told["id"] == edgetok.load(block).bundle.id and told["written"] == str(tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as got:
        np.testing.assert_allclose(got["y"], edgetok.load(block).run(samples)["y"], rtol=0, atol=1e-5)
    assert "sending" in heard and "trying what is installed" in heard, "the doctor looks at a fresh installation"
    assert f"edgetok 0.0.9, {edgetok.__version__} with other files, left as they are" in heard
    (made,) = far.environments() - others
    assert sorted(path.name for path in made.glob("lib/*/site-packages/*") if path.suffix == ".dist-info") == [
        "edgetok-0.1.0.dist-info",
        *(path.name for path in made.glob("lib/*/site-packages/pip-*")),
        *(path.name for path in made.glob("lib/*/site-packages/setuptools-*.dist-info")),
    ], "the device's own numpy and onnxruntime are used, and not shadowed"
    again = Heard()
    assert "errors" in remote.run_on(there, block, progress=again)
    assert "sending" not in again and "installing" not in again
    assert far.environments() - others == {made}


def test_profile_through_a_lost_connection(
    far: FarSide, block: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The terminal: a name of devices.toml, a connection killed while it is measured, the report brought back."""
    (tmp_path / "edgetok").mkdir()
    (tmp_path / "edgetok/devices.toml").write_text('[board]\naddress = "ssh://device"\ndevice = "cpu"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    out = tmp_path / "report"
    arguments = ["profile", str(block), "--on", "board", "-o", str(out), "--json"]
    monkeypatch.setattr("sys.argv", ["edgetok", *arguments])
    connections_before = far.connections()
    killer = Thread(target=kill_when_begun, args=[far])
    killer.start()
    assert cli.main() == 0
    killer.join()
    assert far.connections() == connections_before + 2
    told = json.loads(capsys.readouterr().out)
    assert told["model"]["label"] == block.name
    assert {path.name for path in out.iterdir()} == {"report.html", "report.json", "layers.csv", "trace.json"}
    written = json.loads((out / "report.json").read_text())
    assert written == {name: value for name, value in told.items() if name != "verdict"}
    assert written["command"] == shlex.join(["edgetok", *arguments])


def kill_when_begun(far: FarSide) -> None:
    """Kill the connection once something runs there."""
    end = time.monotonic() + 120
    while not list(far.home.glob(".cache/edgetok/jobs/*/begun")) and time.monotonic() < end:
        time.sleep(0.05)
    kill_ssh()


@pytest.mark.more
def test_profile_against_another(
    far: FarSide, there: Target, block: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A connection that is lost in the middle of the measuring itself, and both sides of a comparison."""
    heard = Heard("measuring", kill_ssh)
    report = remote.profile_on(there, block, against=block, out=tmp_path / "report", progress=heard)
    assert "the connection was lost; connecting again" in heard
    assert report.comparison is not None
    assert json.loads((tmp_path / "report/report.json").read_text()) == report.model_dump(mode="json")
    assert cli.main(["profile", str(block), "--on", "ssh://device"]) == 0
    assert "median, ms" in capsys.readouterr().out


@pytest.mark.more
def test_a_limit_that_fails(far: FarSide, block: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That is no error: the report is whole, and the exit code is 1."""
    assert cli.main(["profile", str(block), "--on", "ssh://device", "--max-p99", "0.01us", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "fail"


@pytest.mark.more
def test_a_connection_lost_while_sending(far: FarSide, there: Target, block: Path) -> None:
    shutil.rmtree(far.home / ".cache/edgetok/blobs", ignore_errors=True)
    heard = Heard("sending", kill_ssh)
    assert "errors" in remote.run_on(there, block, progress=heard)
    assert "the connection was lost; connecting again" in heard


@pytest.mark.more
def test_a_connection_that_stays_away(
    far: FarSide, there: Target, block: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up, and what runs there ends by itself."""
    monkeypatch.setattr(connections, "PATIENCE", 1.5)

    def vanish() -> None:
        far.set_shell("exit 255")
        kill_ssh()

    with pytest.raises(RemoteError, match=r"ssh://device/cpu: the connection was lost .* did not come back in 2 s"):
        remote.profile_on(there, block, progress=Heard("measuring", vanish))
    far.set_shell()
    (job,) = (far.home / ".cache/edgetok/jobs").iterdir()
    with connections.Connection(there.address) as connection:
        connection.ask("remove", {"job": job.name})


def test_an_interruption_leaves_nothing_there(far: FarSide, there: Target, block: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remote.profile_on(there, block, options=["--scenario=offline"], progress=Heard("measuring", interrupt))


@pytest.mark.more
def test_what_is_killed_there_is_told(far: FarSide, there: Target, block: Path) -> None:
    def kill() -> None:
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            if f"{far.home}" in (told := line.read_bytes().decode()) and "profile" in told.split("\0"):
                os.kill(int(line.parent.name), signal.SIGKILL)

    with pytest.raises(RemoteError, match="ssh://device/cpu: edgetok was ended by signal 9 there, without an answer"):
        remote.profile_on(there, block, options=["--scenario=offline"], progress=Heard("measuring", kill))


def test_what_fails_there_is_told_here(
    far: FarSide, block: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", str(block), "--on", "ssh://device/jetson-orin-nano-jp62"]) == 1
    assert "error: ssh://device/jetson-orin-nano-jp62: 'jetson-orin-nano-jp62' is not this" in capsys.readouterr().err
    assert cli.main(["run", str(block), "--on", "ssh://device/jetson", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)["error"]
    assert told["kind"] == "RemoteError" and "no device 'jetson'" in told["message"]
    (tmp_path / "report").mkdir()
    assert cli.main(["profile", str(block), "--on", "ssh://device", "-o", str(tmp_path / "report")]) == 1
    assert "exists already" in capsys.readouterr().err


REFUSED = {
    "unknown": "ssh://device is refused: .*Host key verification failed.*; connect "
    "once by hand \\(ssh device\\) and compare the fingerprint, or add its key with ssh-keyscan",
    "changed": "ssh://device is refused: .*Host key verification failed.*; find out why its key is another one",
    "key": "ssh://device is refused: .*Permission denied \\(publickey\\).*; no key of yours is accepted.*ssh-copy-id",
    "no python": "ssh://device has no python3 \\(.*\\): install Python 3.10 or newer there",
    "talkative": "ssh://device answered 'Welcome!', which is none of edgetok's: what its shell's startup files print",
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(far: FarSide, block: Path, case: str) -> None:
    """What stands in the way is told, and what helps; nothing is installed or sent before that."""
    if case == "unknown":
        far.know(None)
    elif case == "changed":
        far.know(far.folder / "other.pub")
    elif case == "key":
        far.know(far.folder / "host.pub", "other")
    elif case == "no python":
        far.set_shell(path="/nonexistent")
    elif case == "talkative":
        far.set_shell("echo Welcome!")
    found = remote.target("ssh://device")
    assert found is not None
    with pytest.raises(RemoteError, match=REFUSED[case]):
        remote.run_on(found, block)


def test_a_full_disk(far: FarSide, there: Target, block: Path, tmp_path: Path) -> None:
    """A limit on the size of a file stands for the disk: what is sent does not fit, and no half of it stays."""
    shutil.copytree(block, tmp_path / "bundle")
    np.savez(tmp_path / "big.npz", x=np.random.default_rng(0).standard_normal((400, 48, 32)).astype(np.float32))
    far.set_shell("ulimit -f 500")  # blocks of 512 bytes
    with pytest.raises(RemoteError, match=r"device/cpu: the disk is full \(\d+ MB are free\); nothing is left half"):
        remote.run_on(there, block, inputs=[str(tmp_path / "big.npz")])
    far.set_shell()
    assert "outputs" in remote.run_on(there, block, inputs=[str(tmp_path / "big.npz")])


def test_a_slow_reader_gets_every_file(far: FarSide, there: Target, tmp_path: Path) -> None:
    """The device has sent all and is gone before the first file is read here: the others are still in the pipe."""
    out = far.home / ".cache/edgetok/jobs/slow/out"
    out.mkdir(parents=True)
    for name in ("a", "b", "c"):
        (out / name).write_text(name * 1000)
    far.own()
    read: dict[str, str] = {}

    def heard(answer: dict[str, Any], stream: IO[bytes]) -> None:
        time.sleep(1)
        read[answer["file"]] = stream.read(answer["size"]).decode()

    with connections.Connection(there.address) as connection:
        connection.ask("collect", {"job": "slow"}, heard=heard)
    shutil.rmtree(out.parent)
    assert read == {name: name * 1000 for name in ("a", "b", "c")}


@pytest.mark.more
def test_several_devices_give_one_report(
    far: FarSide, block: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same machine under two profiles, and one that does not answer: it is listed, and the others are whole."""
    out, names = tmp_path / "all", ("ssh://device/cpu", "ssh://device", "ssh://127.0.0.1:1")
    arguments = ["profile", str(block), *(f"--on={name}" for name in names), "-o", str(out)]
    assert cli.main([*arguments, "--json"]) == 1, "for one has failed"
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((out / "report.json").read_text()) and list(told["devices"]) == list(names)
    assert "Connection refused" in told["devices"][names[2]]["error"]
    page = (out / "report.html").read_text()
    for folder, name in (("device-cpu", names[0]), ("device", names[1])):
        assert "error" not in told["devices"][name]
        report = json.loads((out / folder / "report.json").read_text())
        assert report | {"verdict": told["devices"][name]["verdict"]} == told["devices"][name]
        assert f'href="{folder}/report.html"' in page and f"{report['model']['latency']['p99']['value']:.2f}" in page
    assert "Connection refused" in page and "<script" not in page and "src=" not in page
    assert cli.main([*arguments, "--force"]) == 1
    assert "written to" in capsys.readouterr().out
    assert cli.main(["profile", str(block), "--on=cpu", f"--on={names[0]}"]) == 2
    assert cli.main(["profile", str(block), f"--on={names[0]}", f"--on={names[0]}"]) == 2
    assert "a device is named twice" in capsys.readouterr().err
