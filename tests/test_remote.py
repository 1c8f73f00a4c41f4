"""Run and profile over SSH, against a real sshd: what arrives, what a lost connection leaves, what is refused."""

import json
import os
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import psutil
import pytest

import edgetok
from edgetok import cli
from edgetok.api import remote
from edgetok.errors import RemoteError, UsageError
from edgetok.remote import connection as connections
from edgetok.remote import installation
from edgetok.remote.wheel import own_wheel
from tests.far_side import FarSide, far_side

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of libraries, when a command first loads them

GRAPH = """
<ir_version: 10, opset_import: ["": 23]> g (float[batch, 48, 32] x) => (float[batch, 48, 32] y) {
    q = MatMul(x, w)
    a = Attention<q_num_heads=4, kv_num_heads=4>(q, q, q)
    y = Add(x, a)
}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one block of attention, in a folder whose name a shell would stumble over."""
    model = onnx.parser.parse_model(GRAPH)
    weights = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32) / 6
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    folder = tmp_path_factory.mktemp("bundle")
    onnx.save(model, folder / "block.onnx")
    out = folder / "it's $(one) block"
    edgetok.export(str(folder / "block.onnx"), out=out)
    return out


@pytest.fixture(scope="module")
def shared() -> Iterator[FarSide]:
    """One device for all tests of this file: edgetok is installed there once."""
    device = far_side()
    yield device
    device.close()


@pytest.fixture
def device(shared: FarSide, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarSide]:
    """The device as it was set up, and this side's ssh by its ssh_config."""
    monkeypatch.setenv("PATH", f"{shared.near}:{os.environ['PATH']}")
    yield shared
    shared.set_shell()
    shared.know(shared.folder / "host.pub")
    assert shared.processes() == [], "nothing is left running there"
    jobs = shared.home / ".cache/edgetok/jobs"
    assert not jobs.exists() or not any(jobs.iterdir()), "no run is left there"
    assert not list(shared.home.rglob("blobs/.*")), "no half file is left there"


@pytest.fixture
def there() -> remote.Target:
    """How the device is asked for."""
    found = remote.target("ssh://device/cpu")
    assert found is not None
    return found


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
        if child.name() == "ssh":
            child.send_signal(signal.SIGKILL)


def environments(device: FarSide) -> set[Path]:
    return {ready.parent for ready in device.home.glob(".local/share/edgetok/envs/*/ready")}


def plant_others(device: FarSide) -> set[Path]:
    """Environments of other edgetoks, which fail if they are run."""
    for name in ("0.0.9-0123456789ab", f"{edgetok.__version__}-0123456789ab"):
        folder = device.home / ".local/share/edgetok/envs" / name
        (folder / "bin").mkdir(parents=True)
        (folder / "bin/edgetok").write_text("#!/bin/sh\nexit 9\n")
        (folder / "ready").write_text(name)
    device.own()
    return environments(device)


def test_run(device: FarSide, there: remote.Target, bundle: Path, tmp_path: Path) -> None:
    """The outputs are this machine's own; what was sent once is not sent again.

    Other edgetoks that are there, an older one and one of the same version with other files, are left alone.
    """
    others = plant_others(device)
    samples = edgetok.load(bundle).bundle.samples("inputs")
    np.savez(tmp_path / "in -put.npz", **samples)
    heard = Heard()
    told = remote.run_on(there, bundle, inputs=[str(tmp_path / "in -put.npz")], out=tmp_path / "y.npz", progress=heard)
    assert told["id"] == edgetok.load(bundle).bundle.id and told["written"] == str(tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as got:
        np.testing.assert_allclose(got["y"], edgetok.load(bundle).run(samples)["y"], rtol=0, atol=1e-5)
    assert "sending" in heard and "trying what is installed" in heard, "the doctor looks at a fresh installation"
    assert f"edgetok 0.0.9, {edgetok.__version__} with other files, left as they are" in heard
    (made,) = environments(device) - others
    assert sorted(path.name for path in made.glob("lib/*/site-packages/*") if path.suffix == ".dist-info") == [
        "edgetok-0.1.0.dist-info",
        *(path.name for path in made.glob("lib/*/site-packages/pip-*")),
        *(path.name for path in made.glob("lib/*/site-packages/setuptools-*.dist-info")),
    ], "the device's own numpy and onnxruntime are used, and not shadowed"
    again = Heard()
    assert "errors" in remote.run_on(there, bundle, progress=again)
    assert "sending" not in again and "installing" not in again
    assert environments(device) - others == {made}


def test_profile_by_a_name(
    device: FarSide, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The terminal: a name of devices.toml, another bundle to compare with, the report brought back."""
    (tmp_path / "edgetok").mkdir()
    (tmp_path / "edgetok/devices.toml").write_text('[board]\naddress = "ssh://device"\ndevice = "cpu"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    out = tmp_path / "report"
    arguments = ["profile", bundle, "--on", "board", "--against", bundle, "-o", out, "--json"]
    monkeypatch.setattr("sys.argv", ["edgetok", *map(str, arguments)])
    assert cli.main() == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"]["label"] == bundle.name and told["comparison"] is not None
    assert {path.name for path in out.iterdir()} == {"report.html", "report.json", "layers.csv", "trace.json"}
    written = json.loads((out / "report.json").read_text())
    assert written == {name: value for name, value in told.items() if name != "verdict"}
    assert written["command"].startswith("edgetok profile ") and "--on board" in written["command"]
    assert cli.main(["run", str(bundle), "--on", "board"]) == 0
    assert "as promised" in capsys.readouterr().out


def test_a_lost_connection_is_resumed(device: FarSide, there: remote.Target, bundle: Path, tmp_path: Path) -> None:
    heard = Heard("measuring", kill_ssh)
    report = remote.profile_on(there, bundle, out=tmp_path / "report", progress=heard)
    assert "the connection was lost; connecting again" in heard
    assert json.loads((tmp_path / "report/report.json").read_text()) == report.model_dump(mode="json")


@pytest.mark.more
def test_a_limit_that_fails(device: FarSide, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That is no error: the report is whole, and the exit code is 1."""
    assert cli.main(["profile", str(bundle), "--on", "ssh://device", "--max-p99", "0.01us", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "fail"


@pytest.mark.more
def test_a_connection_lost_while_sending(device: FarSide, there: remote.Target, bundle: Path) -> None:
    shutil.rmtree(device.home / ".cache/edgetok/blobs", ignore_errors=True)
    heard = Heard("sending", kill_ssh)
    assert "errors" in remote.run_on(there, bundle, progress=heard)
    assert "the connection was lost; connecting again" in heard


@pytest.mark.more
def test_a_connection_that_stays_away(
    device: FarSide, there: remote.Target, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up, and what runs there ends by itself."""
    monkeypatch.setattr(connections, "PATIENCE", 1.5)

    def vanish() -> None:
        device.set_shell("exit 255")
        kill_ssh()

    with pytest.raises(RemoteError, match=r"ssh://device/cpu: the connection was lost .* did not come back in 2 s"):
        remote.profile_on(there, bundle, progress=Heard("measuring", vanish))
    device.set_shell()
    (job,) = (device.home / ".cache/edgetok/jobs").iterdir()
    with connections.Connection(there.address) as connection:
        connection.ask("remove", {"job": job.name})


def test_an_interruption_leaves_nothing_there(device: FarSide, there: remote.Target, bundle: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remote.profile_on(there, bundle, options=["--scenario=offline"], progress=Heard("measuring", interrupt))


@pytest.mark.more
def test_what_is_killed_there_is_told(device: FarSide, there: remote.Target, bundle: Path) -> None:
    def kill() -> None:
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            if f"{device.home}" in (told := line.read_bytes().decode()) and "profile" in told.split("\0"):
                os.kill(int(line.parent.name), signal.SIGKILL)

    with pytest.raises(RemoteError, match="ssh://device/cpu: edgetok was ended by signal 9 there, without an answer"):
        remote.profile_on(there, bundle, options=["--scenario=offline"], progress=Heard("measuring", kill))


def test_what_fails_there_is_told_here(
    device: FarSide, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", str(bundle), "--on", "ssh://device/jetson-orin-nano-jp62"]) == 1
    assert "error: ssh://device/jetson-orin-nano-jp62: 'jetson-orin-nano-jp62' is not this" in capsys.readouterr().err
    assert cli.main(["run", str(bundle), "--on", "ssh://device/jetson", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)["error"]
    assert told["kind"] == "RemoteError" and "no device 'jetson'" in told["message"]
    (tmp_path / "report").mkdir()
    assert cli.main(["profile", str(bundle), "--on", "ssh://device", "-o", str(tmp_path / "report")]) == 1
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
def test_refused(device: FarSide, bundle: Path, case: str) -> None:
    """What stands in the way is told, and what helps; nothing is installed or sent before that."""
    if case == "unknown":
        device.know(None)
    elif case == "changed":
        device.know(device.folder / "other.pub")
    elif case == "key":
        device.know(device.folder / "host.pub", "other")
    elif case == "no python":
        device.set_shell(path="/nonexistent")
    elif case == "talkative":
        device.set_shell("echo Welcome!")
    found = remote.target("ssh://device")
    assert found is not None
    with pytest.raises(RemoteError, match=REFUSED[case]):
        remote.run_on(found, bundle)


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8", "3.9"])
def test_an_old_python_is_told(device: FarSide, there: remote.Target, bundle: Path, version: str) -> None:
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*versions.glob(f"{version}.*/bin/python{version}"), *filter(None, [shutil.which(f"python{version}")])]
    if not found or subprocess.run([found[0], "-c", "0"], capture_output=True, check=False).returncode:
        pytest.skip(f"no Python {version} here")
    folder = device.folder / f"python{version}"
    folder.mkdir()
    (folder / "python3").symlink_to(Path(found[0]).resolve())
    device.set_shell(f'PATH={folder}:/usr/bin:/bin exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"')  # nothing is run
    with pytest.raises(RemoteError, match=rf"has Python {version}\.\d+: edgetok needs 3.10 or newer as python3 there"):
        remote.run_on(there, bundle)


def test_root_is_refused(device: FarSide, there: remote.Target, bundle: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the login is not root's, for the tests are not")
    device.set_shell('exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"', path="/usr/bin:/bin")
    with pytest.raises(RemoteError, match="ssh://device/cpu logs in as root: edgetok installs nothing as root. Log"):
        remote.run_on(there, bundle)


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
    device: FarSide, bundle: Path, tmp_path: Path, names: tuple[str, ...], told: str
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    found = remote.target("ssh://device", tmp_path)
    assert found is not None
    with pytest.raises(RemoteError) as refused:
        remote.run_on(found, bundle)
    assert told in str(refused.value)
    with pytest.raises(UsageError, match="--wheels is for a device over SSH, and --on cpu means this machine"):
        remote.target("cpu", tmp_path)


def test_a_full_disk(device: FarSide, there: remote.Target, bundle: Path, tmp_path: Path) -> None:
    """A limit on the size of a file stands for the disk: what is sent does not fit, and no half of it stays."""
    shutil.copytree(bundle, tmp_path / "bundle")
    np.savez(tmp_path / "big.npz", x=np.random.default_rng(0).standard_normal((400, 48, 32)).astype(np.float32))
    device.set_shell("ulimit -f 500")  # blocks of 512 bytes
    with pytest.raises(RemoteError, match=r"device/cpu: the disk is full \(\d+ MB are free\); nothing is left half"):
        remote.run_on(there, bundle, inputs=[str(tmp_path / "big.npz")])
    device.set_shell()
    assert "outputs" in remote.run_on(there, bundle, inputs=[str(tmp_path / "big.npz")])


@pytest.mark.more
def test_several_devices_give_one_report(
    device: FarSide, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same machine under two profiles, and one that does not answer: it is listed, and the others are whole."""
    out, names = tmp_path / "all", ("ssh://device/cpu", "ssh://device", "ssh://127.0.0.1:1")
    arguments = ["profile", str(bundle), *(f"--on={name}" for name in names), "-o", str(out)]
    assert cli.main([*arguments, "--json"]) == 1, "for one has failed"
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((out / "report.json").read_text()) and list(told["devices"]) == list(names)
    assert "Connection refused" in told["devices"][names[2]]["error"]
    page = (out / "report.html").read_text()
    for folder, name in (("device-cpu", names[0]), ("device", names[1])):
        report = json.loads((out / folder / "report.json").read_text())
        assert report | {"verdict": told["devices"][name]["verdict"]} == told["devices"][name]
        assert f'href="{folder}/report.html"' in page and f"{report['model']['latency']['p99']['value']:.2f}" in page
    assert "Connection refused" in page and "<script" not in page and "src=" not in page
    assert cli.main([*arguments, "--force"]) == 1
    assert "written to" in capsys.readouterr().out
    assert cli.main(["profile", str(bundle), "--on=cpu", f"--on={names[0]}"]) == 2
    assert cli.main(["profile", str(bundle), f"--on={names[0]}", f"--on={names[0]}"]) == 2
    assert "a device is named twice" in capsys.readouterr().err


@pytest.mark.more
def test_doctor_looks_there(device: FarSide, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--on", "ssh://device", "--json"]) == 0
    told = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert told["cache"]["detail"] == str(device.home / ".cache/edgetok") and told["onnxruntime works"]["status"] == "ok"
    assert cli.main(["doctor", "--on", "cpu"]) == 2


@pytest.mark.more
def test_wheels_that_are_carried(device: FarSide, bundle: Path, tmp_path: Path) -> None:
    """A device that lacks a package gets it from the folder, with no index; without it pip's words are told."""
    there = remote.required("ssh://device/cpu", tmp_path)
    site = Path(np.__file__).parent.parent
    seen = device.home / "seen"
    seen.mkdir()
    for path in site.iterdir():
        if not path.name.lower().startswith(("soxr", "edgetok", "__editable__")):
            (seen / path.name).symlink_to(path)
    pth = next(device.home.glob(".local/lib/*/site-packages/device.pth"))
    before = pth.read_text()
    try:
        pth.write_text(str(seen))
        repack("soxr", tmp_path)
        (tmp_path / "unasked-1-py3-none-any.whl").write_bytes(b"")
        assert "errors" in remote.run_on(there, bundle)
        added = {path.name for made in environments(device) for path in made.glob("lib/*/site-packages/soxr")}
        assert added == {"soxr"}
        (wheel,) = tmp_path.glob("soxr*")
        wheel.unlink()
        with pytest.raises(RemoteError, match=r"pip failed: ERROR: .*soxr.*a wheel is missing in .*; packages of the .* nu"):
            remote.run_on(there, bundle)
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
def test_operators_are_built_there(device: FarSide, there: remote.Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device of another architecture."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    monkeypatch.setattr(installation, "_can_share_operators", lambda _: False)
    before = environments(device)
    for made in before:
        shutil.rmtree(made)
    device.compiler = "g++"
    device.set_shell()
    checks = {check["name"]: check for check in remote.doctor_on(there)["checks"]}
    device.compiler = "none"
    assert checks["native operators"]["status"] == "ok", checks["native operators"]


def test_the_wheel_is_the_same_whenever_it_is_made() -> None:
    first, again = own_wheel(native=False), own_wheel(native=False)
    assert first.packed() == again.packed() and first.digest == again.digest
    assert not any(name.endswith(".so") or "__pycache__" in name for name in first.contents)
    assert "edgetok/exporters/tome.py" in first.contents and "edgetok/cli/run.py" in first.contents
