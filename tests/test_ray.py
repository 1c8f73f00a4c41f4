"""A sweep on a real Ray cluster: a head without processors and two nodes, all on this machine.

Both nodes are one machine to edgetok, so they take turns; what one was measuring when it is lost goes to the other.
"""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import edgetok
from edgetok import cli
from edgetok.api.subject import Subject, prepare
from edgetok.errors import EdgetokError
from edgetok.evaluation import parse
from edgetok.exporters.sources import CaptureOptions
from edgetok.files import sha256_of
from edgetok.serialize import write_model

pytestmark = [pytest.mark.more, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
ray = pytest.importorskip("ray", reason="Ray has no wheel for this Python")
ROOT = Path(__file__).parent.parent
CHOICES = ["tome:keep=0.6", "random:keep=0.6", "tome:keep=0.8"]


class Cluster:
    """Ray's own processes, on a port of their own; `temporary` is where nodes put temporary files."""

    def __init__(self, folder: Path):
        self.folder, self.temporary = folder, folder / "tmp"
        self.temporary.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str, cores: set[int] | None = None) -> None:
        """One node; it has joined when `wait_for` says so."""
        fixed = ["start", "--block", "--object-store-memory=300000000", "--disable-usage-stats", *options]
        path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        patient = {"RAY_raylet_start_wait_time_s": "300"}  # a busy machine does not start a node in the usual 30 s
        with (self.folder / "log").open("ab") as log:
            self.started.append(
                subprocess.Popen(
                    [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *fixed],
                    env={**os.environ, **patient, "PYTHONPATH": path, "TMPDIR": str(self.temporary)},
                    preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
                    stdout=log, stderr=log, start_new_session=True,
                )
            )  # fmt: skip

    def head(self) -> None:
        host, port = self.address.split(":")
        given = [f"--port={port}", f"--temp-dir={self.folder}/ray", "--num-cpus=0", "--include-dashboard=false"]
        self.start("--head", f"--node-ip-address={host}", *given)
        while True:
            try:
                return socket.create_connection((host, int(port)), 1).close()
            except OSError:
                assert self.started[0].poll() is None, (self.folder / "log").read_text()
                time.sleep(0.1)

    def node(self, cores: set[int] | None = None) -> None:
        self.start(f"--address={self.address}", "--num-cpus=1", cores=cores)

    def processors(self) -> float:
        """Of all nodes, those that are not taken."""
        ray.init(address=self.address, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR)
        try:
            return float(ray.available_resources().get("CPU", 0))
        finally:
            ray.shutdown()

    def wait_for(self, processors: int) -> None:
        end = time.monotonic() + 300
        while self.processors() != processors:
            assert time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.5)

    def kill_node(self, name: str) -> None:
        """End the raylet of a node of this name at once, as a machine that loses its power."""
        number = name.split()[-1]
        for each in self.started:
            for process in psutil.Process(each.pid).children(recursive=True):
                if "raylet/raylet" in process.cmdline()[0] and f"--node_id={number}" in " ".join(process.cmdline()):
                    process.kill()
                    return
        pytest.fail(f"no node {name}")

    def stop(self) -> None:
        processes = [child for each in self.started for child in psutil.Process(each.pid).children(recursive=True)]
        for each in reversed(self.started):  # a node leaves through the head, so that goes last
            each.terminate()
            each.wait(60)
        for left in psutil.wait_procs(processes, timeout=20)[1]:
            left.kill()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # Ray's sockets want a short path
    made = Cluster(folder)
    try:
        made.head()
        for number in (1, 2):  # started together, one of them was seen never to join
            made.node()
            made.wait_for(number)
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    (folder / "0.txt").write_text("A sentence of some length, with tokens to merge.")
    (folder / "1.txt").write_text("And another one, rather short.")
    return folder


def command(samples: Path, *more: object) -> list[str]:
    fixed = ["sweep", "zoo:minilm", "--length", "24", "--samples", samples, *more]
    return [*map(str, fixed), "--json"]


def measured(journal: Path) -> dict[str, dict[str, object]]:
    """What does not depend on the hour, by choice."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    return {line.pop("reduce"): line for line in lines[1:] if line.pop("rounds")}


def digests(subject: Subject) -> list[str]:
    """Of the graphs that choices make."""
    made = []
    for choice in CHOICES:
        with tempfile.TemporaryDirectory() as folder:
            write_model(subject.task().build(parse(choice)).model, Path(folder))
            made.append(sha256_of(*sorted(Path(folder).iterdir())))
    return made


def unpacked(files: dict[str, bytes]) -> tuple[str, list[str]]:
    """Where this runs, and the digests of what it makes of a packed subject."""
    with tempfile.TemporaryDirectory() as folder:
        return ray.get_runtime_context().get_node_id(), digests(Subject.unpack(files, Path(folder)))


def test_a_node_makes_graphs_of_the_same_bytes(cluster: Cluster, samples: Path) -> None:
    subject = prepare("zoo:minilm", samples, CaptureOptions(length=24), "fp16", None)
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR)
    try:
        nodes = [node["NodeID"] for node in ray.nodes() if "CPU" in node["Resources"]]
        where, there = ray.get(ray.remote(unpacked).remote(subject.pack()))
    finally:
        ray.shutdown()
    assert where in nodes and there == digests(subject) and len(set(there)) == len(CHOICES)


def test_the_same_as_on_this_machine(
    cluster: Cluster, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {}
    for executor in ("local", f"ray:{cluster.address}"):
        given = [option for choice in (*CHOICES, "diffrate:keep=0.5") for option in ("--reduce", choice)]
        out = tmp_path / executor.partition(":")[0]
        assert cli.main(command(samples, *given, "-o", out, "--min-cosine", 0.5, "--executor", executor)) in (0, 1)
        answers[out.name] = json.loads(capsys.readouterr().out)
    here, there = answers["local"], answers["ray"]
    fixed = [
        {row["reduce"]: (row["tokens"], row["flops"], row["cosine"]) for row in each["rows"]} for each in (here, there)
    ]
    assert fixed[0] == fixed[1] and set(CHOICES) <= fixed[0].keys()
    assert measured(tmp_path / "local.journal") == measured(tmp_path / "ray.journal")  # to the last digit
    assert here["left_out"] == there["left_out"]
    nodes = there["measured_on"].pop("nodes").split(", ")
    assert len(nodes) == 2 and here["measured_on"] == there["measured_on"]
    assert [each["milliseconds"] for each in there["rows"]] == sorted(each["milliseconds"] for each in there["rows"])
    page = (tmp_path / "ray" / "report.html").read_text()
    assert 'id="figure-pareto"' in page and all(node in page for node in nodes)
    assert list(cluster.temporary.glob("edgetok-*")) == [] and cluster.processors() == 2


def test_an_error_of_a_choice_is_the_same_error(
    cluster: Cluster, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for executor in ("local", f"ray:{cluster.address}"):
        assert cli.main(command(samples, "--reduce", "tome:r=1,layers=9", "--executor", executor)) == 2
        said.append(json.loads(capsys.readouterr().out)["error"])
    assert said[0] == said[1] and "block 9 does not exist" in said[0]["message"]
    assert list(cluster.temporary.glob("edgetok-*")) == []


def test_interrupted(cluster: Cluster, samples: Path, tmp_path: Path) -> None:
    out, executor = tmp_path / "table.json", f"ray:{cluster.address}"
    choices = [f"--reduce=tome:r={r},layers={block}" for r in (1, 2, 3) for block in range(6)]
    run = subprocess.Popen(
        [sys.executable, "-m", "edgetok", *command(samples, *choices, "-o", out, "--executor", executor)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    journal = tmp_path / "table.json.journal"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        assert run.poll() is None, run.stderr and run.stderr.read()
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode == 130 and not out.exists()
    lines = journal.read_bytes().splitlines(keepends=True)
    assert 3 <= len(lines) < len(choices) and all(line.endswith(b"\n") for line in lines)
    cluster.wait_for(2)  # the actors are gone
    assert list(cluster.temporary.glob("edgetok-*")) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [journal.name]


def test_nodes_in_unlike_states_are_left_out(cluster: Cluster, samples: Path) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core cannot be taken from this machine")
    cluster.node(cores={min(cores)})
    cluster.wait_for(3)
    executor = f"ray:{cluster.address}"
    table = edgetok.sweep("zoo:minilm", reduce=CHOICES[:1], samples=samples, length=24, executor=executor)
    (left_out,) = (name for name in table.measured_on if name.startswith("left out: "))
    name = left_out.removeprefix("left out: ")
    assert table.measured_on[left_out].startswith(f"cores: 1 ({name}), {len(cores)} (")
    assert len(table.measured_on["nodes"].split(", ")) == 2 and name not in table.measured_on["nodes"]


def test_what_a_lost_node_was_measuring_is_measured_by_another(cluster: Cluster, samples: Path) -> None:
    begun: list[str] = []

    def progress(text: str, done: float) -> None:
        if " on " in text:
            begun.append(text)
            if len(begun) == 2:
                cluster.kill_node(text.partition(" on ")[2])

    executor = f"ray:{cluster.address}"
    table = edgetok.sweep(
        "zoo:minilm", reduce=CHOICES, samples=samples, length=24, executor=executor, progress=progress
    )  # fmt: skip
    assert {row.reduce for row in table.rows} == {"", *CHOICES}
    lost, again = (text.partition(" on ") for text in begun[1:3])
    assert lost[0] == again[0] and lost[2] != again[2]


def test_no_cluster_runs(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EdgetokError, match=r"no Ray cluster answers at '127.0.0.1:1': .*--executor ray:HOST:PORT"):
        edgetok.sweep("zoo:minilm", reduce=CHOICES, samples=samples, executor="ray:127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(EdgetokError, match=r"no Ray cluster answers at 'nowhere'"):
        edgetok.sweep("zoo:minilm", reduce=CHOICES, samples=samples, executor="ray")
