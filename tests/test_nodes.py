"""Which nodes measure, who measures what, and that a packed model makes the same graphs on another machine."""

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgetok import cli
from edgetok.api.executors import find
from edgetok.api.subject import Subject, prepare
from edgetok.errors import EdgetokError, Refusal, RemoteError, UnknownName
from edgetok.evaluation import Evaluation, parse
from edgetok.exporters.sources import CaptureOptions
from edgetok.files import sha256_of
from edgetok.fingerprint import environment
from edgetok.nodes import About, Node, NodeLost, alike, measure, told
from edgetok.samples import from_bytes, to_bytes
from edgetok.serialize import write_model
from tests.test_tuning import evaluation

HERE = environment().model_dump(mode="json")
IDENTITY = {"model": "a" * 64, "samples": "b" * 64, "runtime": "onnxruntime 1.32.0", "cpu": HERE["cpu"], "rounds": "9"}


def node(
    name: str, evaluate: Callable[[str], Evaluation] = lambda reduce: evaluation(reduce, 5, 0.9), machine: str = "",
    stop: Callable[[], None] = lambda: None, model: str = "a" * 64, **changed: object,
) -> Node:  # fmt: skip
    about = About(machine or name, "x86-cpu", 197, 1.0, {**IDENTITY, "model": model}, {**HERE, **changed})
    return Node(name, about, evaluate, stop)


def test_only_nodes_in_like_states_measure() -> None:
    nodes = [node("a", cores=64), node("b"), node("c", model="d" * 64), node("d", kernel="6.1")]
    kept, left_out = alike(nodes)
    assert [each.name for each in kept] == ["b", "d"]  # another kernel is no reason
    assert left_out == {
        "a": f"cores: 64 (a), {HERE['cores']} (b)",
        "c": f"model: {'d' * 40}, not {'a' * 40}",
    }
    assert told(kept, left_out)["nodes"] == "b, d" and told(kept, left_out)["left out: a"] == left_out["a"]
    assert alike(nodes[:2])[0][0].name == "a"  # the first of equal groups
    older = node("e", packages={**HERE["packages"], "edgetok": "0.0.1"})
    assert alike([node("b"), older])[1]["e"].startswith("edgetok: 0.0.1 (e), ")


def test_nodes_share_the_work_and_one_machine_measures_one_at_a_time() -> None:
    both, running, most = threading.Barrier(2, timeout=10), set[str](), dict[str, int]()
    by: dict[str, str] = {}

    def measured(name: str, machine: str, reduce: str) -> Evaluation:
        by[reduce] = name
        running.add(name)
        most[machine] = max(most.get(machine, 0), sum(each[0] == machine for each in running))
        if reduce in ("first", "second"):
            both.wait()  # two machines measure at the same time, or this fails
        time.sleep(0.01)
        running.discard(name)
        return evaluation(reduce, 5, 0.9)

    nodes = [
        node(name, lambda reduce, name=name: measured(name, name[0], reduce), machine=name[0])
        for name in ("m1", "m2", "n1")
    ]
    kept: list[Evaluation] = []
    choices = ["first", "second", *map(str, range(8))]
    assert measure(nodes, choices, kept.append) == {}
    assert sorted(each.reduce for each in kept) == sorted(choices)
    assert most == {"m": 1, "n": 1} and {by["first"][0], by["second"][0]} == {"m", "n"}


def test_what_a_lost_node_measured_is_measured_by_another() -> None:
    def lost(reduce: str) -> Evaluation:
        raise NodeLost("the node a was lost: its power is off")

    kept: list[Evaluation] = []
    begun: list[tuple[str, float]] = []
    nodes = [node("a", lost, machine="m"), node("b", machine="m")]
    measure(nodes, ["x", "y"], kept.append, lambda text, done: begun.append((text, done)))
    assert [each.reduce for each in kept] == ["x", "y"]
    assert begun == [("x on a", 0.0), ("x on b", 0.0), ("y on b", 0.5)]
    with pytest.raises(RemoteError, match="the node a was lost: its power is off; no node is left to measure x"):
        measure([node("a", lost)], ["x"], kept.append)


def test_a_refusal_is_told_and_another_error_ends_all() -> None:
    stopped, asked = threading.Event(), threading.Event()

    def refusing(reduce: str) -> Evaluation:
        if reduce == "refused":
            raise Refusal("no such tokens")
        if reduce == "broken":
            asked.wait(10)
            raise EdgetokError("the process ended by signal 11")
        return evaluation(reduce, 5, 0.9)

    kept: list[Evaluation] = []
    refused = measure([node("a", refusing)], ["refused", "fine"], kept.append)
    assert {choice: str(why) for choice, why in refused.items()} == {"refused": "no such tokens"}
    assert [each.reduce for each in kept] == ["fine"]

    def long(reduce: str) -> Evaluation:
        asked.set()
        assert stopped.wait(10), "it was not told to stop"
        raise EdgetokError("stopped")

    with pytest.raises(EdgetokError, match="signal 11"):
        measure([node("a", refusing), node("b", long, stop=stopped.set)], ["broken", "long"], kept.append)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("subject")
    (folder / "0.txt").write_text("A sentence of some length, and tokens that are near each other.")
    return prepare("zoo:minilm", folder, CaptureOptions(length=24), "fp16", None)


def test_a_packed_model_makes_the_same_graphs(subject: Subject, tmp_path: Path) -> None:
    files = subject.pack()
    (tmp_path / "there").mkdir()
    task, there = subject.task(), Subject.unpack(files, tmp_path / "there").task()
    digests = []
    for each in (task, there):
        for reduce in ("tome:keep=0.6", "pitome:r=2,layers=0-1 + random:r=2,layers=2-3"):
            folder = tmp_path / str(len(digests))
            folder.mkdir()
            write_model(each.build(parse(reduce)).model, folder)
            digests.append(sha256_of(*sorted(folder.iterdir())))
    assert digests[:2] == digests[2:] and digests[0] != digests[1]
    assert (task.work, task.prefix) == (there.work, there.prefix)
    for mine, its in ((task.feeds, there.feeds), (task.timed, there.timed), (task.original, there.original)):
        assert mine.keys() == its.keys() and all(np.array_equal(mine[name], its[name]) for name in mine)


def test_arrays_are_read_in_the_order_of_their_names() -> None:
    arrays = {name: np.zeros(1) for name in "qwertyuiop"}  # safetensors itself gives 20 readings in 20 orders
    assert list(from_bytes(to_bytes(arrays))) == sorted(arrays)


def test_executors_are_found_by_name() -> None:
    assert find("local")[1] is None and find("ray:head:6379")[1] == "head:6379"
    with pytest.raises(UnknownName, match="no executor 'rai': did you mean 'ray'?"):
        find("rai")


@pytest.mark.parametrize(
    ("executor", "code", "message"),
    [
        ("local:here", 2, "--executor local:here: local is this machine and takes no address"),
        ("ray:127.0.0.1:1", 1, "edgetok[ray]"),
        ("dusk", 2, "no executor 'dusk': known: local, ray"),
    ],
)
def test_refused_before_anything_is_captured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    executor: str, code: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", None)  # not installed
    given = ["sweep", "no-such-source", "--reduce", "tome:keep=0.5", "--samples", str(tmp_path)]
    assert cli.main([*given, "--executor", executor, "--json"]) == code
    assert message in json.loads(capsys.readouterr().out)["error"]["message"]
