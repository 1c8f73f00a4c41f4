"""Profiles of a small transformer, reduced and not: worker, comparison, layers, trace, report."""

import csv
import json
import os
import re
import signal
from io import StringIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from edgetok.comparison import compare
from edgetok.errors import EdgetokError, InputError, OutputError, SourceError, UnknownName, UsageError
from edgetok.layers import NodeTime, ProfiledRun, inlined, layer_table, places
from edgetok.model import TensorSpec
from edgetok.profiling import Effort, profile_model
from edgetok.render import render
from edgetok.report import ProfileReport, save
from edgetok.trace import chrome_trace
from edgetok.worker import Side, Worker

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

BLOCKS, TOKENS, REMOVED = 3, 48, 8
INPUTS = (TensorSpec("x", "float32", ("batch", TOKENS, 32)),)
FEEDS = {"x": np.random.default_rng(0).standard_normal((2, TOKENS, 32)).astype(np.float32)}
EFFORT = Effort(min_seconds=0.02, max_seconds=0.5, warm_up_seconds=0.5, rounds=9, layer_seconds=0.05)

BLOCK = """
    attention/q: q{i} = MatMul(x{i}, wd)
    attention/sdpa: a{i} = Attention<q_num_heads=4, kv_num_heads=4>(q{i}, q{i}, q{i})
    attention/add: r{i} = Add(x{i}, a{i})
    {reduce}
    mlp/norm: n{i} = LayerNormalization(m{i}, one)
    mlp/up: u{i} = MatMul(n{i}, wu)
    mlp/bias: b{i} = Add(u{i}, bias)
    mlp/gelu: g{i} = Gelu(b{i})
    mlp/down: d{i} = MatMul(g{i}, wdown)
    mlp/add: x{j} = Add(m{i}, d{i})
"""
MERGE = """
<domain: "edgetok", opset_import: ["": 23]>
DropLast<count>(x) => (y) {
    axis = Constant<value_ints=[1]>()
    start = Constant<value_ints=[0]>()
    count = Constant<value_int: int=@count>()
    one = Reshape(count, axis)
    end = Neg(one)
    kept = Slice(x, start, end, axis)
    pooled = ReduceMean<keepdims=1>(x, axis)
    y = Add(kept, pooled)
}
"""
WEIGHTS = {"wd": (32, 32), "wu": (32, 128), "bias": (128,), "wdown": (128, 32), "one": (32,), "wh": (32, 10)}


def transformer(path: Path, *, reduce: bool) -> Path:
    """Three blocks whose nodes are named as an export names them; the reduction is a call of an ONNX function."""
    lines = ["embed/project: x0 = MatMul(x, wd)"]
    for i in range(BLOCKS):
        step = (
            f"reduce/drop: m{{i}} = edgetok.DropLast<count={REMOVED}>(r{{i}})"
            if reduce
            else "mlp/enter: m{i} = Identity(r{i})"
        )
        block = BLOCK.replace("{reduce}", step).replace("{i}", str(i)).replace("{j}", str(i + 1))
        lines += [f"blocks.{i}/{line.strip()}" for line in block.strip().splitlines()]
    lines.append(f"head/classify: y = MatMul(x{BLOCKS}, wh)")
    names, statements = zip(*(line.split(": ", 1) for line in lines), strict=True)
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 23, "edgetok": 1]> g (float[batch, {TOKENS}, 32] x) => '
        f"(float[batch, {TOKENS - reduce * BLOCKS * REMOVED}, 10] y) {{ {' '.join(statements)} }}" + MERGE * reduce
    )
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    draw = np.random.default_rng(1)
    for name, shape in WEIGHTS.items():
        weight = (draw.standard_normal(shape) / 8).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")

    def side(label, reduce):
        left = [TOKENS - reduce * REMOVED * i for i in range(BLOCKS + 1)]
        tokens = tuple(pairwise(left))
        return Side(
            label, transformer(folder / f"{label}.onnx", reduce=reduce), INPUTS, FEEDS, threads=1, tokens=tokens
        )

    return side("reduced", True), side("whole", False)


@pytest.fixture(scope="module")
def profile(sides):
    ids = {"reduced": "sha256:1", "whole": "sha256:2"}
    return profile_model(*sides, ids=ids, device="x86-cpu", environment={"onnxruntime": "1"}, effort=EFFORT)


def test_layers_add_up_to_the_run(profile):
    for measured in (profile.report.model, profile.report.against):
        layers = measured.layers
        assert [layer.name for layer in layers.layers] == ["embed", "blocks.0", "blocks.1", "blocks.2", "head"]
        total = sum(layer.milliseconds for layer in layers.layers) + layers.between_nodes
        assert total == pytest.approx(layers.whole) and layers.between_nodes > 0
        assert sum(layer.share for layer in layers.layers) == pytest.approx(1 - layers.between_nodes / layers.whole)
        for layer in layers.layers[1:-1]:
            assert layer.attention + layer.mlp + (layer.reduce or 0) == pytest.approx(layer.milliseconds)


def test_what_merging_cost_and_what_the_smaller_blocks_saved(profile):
    reduced, whole = profile.report.model.layers, profile.report.against.layers
    blocks = [(a, b) for a, b in zip(reduced.layers, whole.layers, strict=True) if a.name.startswith("blocks")]
    assert reduced.merging_cost == pytest.approx(sum(a.reduce for a, _ in blocks)) and reduced.merging_cost > 0
    assert reduced.blocks_saved == pytest.approx(sum(b.milliseconds - a.attention - a.mlp for a, b in blocks))
    assert whole.merging_cost is None and whole.blocks_saved is None
    assert [(a.tokens_in, a.tokens_out) for a, _ in blocks] == [(48, 40), (40, 32), (32, 24)]


def test_report_holds_what_a_reader_needs(profile):
    report = profile.report
    assert report.schema_version == 1 and report.device == "x86-cpu" and report.model.model_id == "sha256:1"
    latency = report.model.latency
    assert latency.batch == 2 and latency.runs >= 36 and latency.p90.claimed
    assert latency.fastest <= latency.median.value <= latency.p90.value <= latency.p99.value
    assert len(report.comparison.rounds) == 9 and report.comparison.speedup.claimed
    assert report.model.memory.peak > report.model.memory.before_loading > 0
    names = {check.name for check in report.checks}
    assert {"idle machine", "clock", "warm-up, reduced", "runs, whole", "layers, reduced"} <= names
    assert ProfileReport.model_validate_json(report.model_dump_json()) == report


def test_trace_nests(profile):
    for pid, label in ((1, "reduced"), (2, "whole")):
        events = [event for event in profile.trace["traceEvents"] if event["pid"] == pid]
        assert events[0] == {"ph": "M", "name": "process_name", "pid": pid, "tid": 1, "args": {"name": label}}
        open_spans = []
        for event in events[1:]:
            assert event["ph"] == "X" and event["tid"] == 1 and event["dur"] >= 0
            start, end = event["ts"], event["ts"] + event["dur"]
            while open_spans and open_spans[-1] <= start and end > open_spans[-1]:
                open_spans.pop()
            assert not open_spans or end <= open_spans[-1]
            open_spans.append(end)
        assert {event["cat"] for event in events[1:]} >= {"run", "block", "part", "MatMul"}


def test_terminal_table_fits_and_says_it_in_words(profile):
    text = StringIO()
    render(profile.report, Console(file=text, width=100))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert re.search(r"reduced is [\d.]+x \[[\d.]+, [\d.]+\] as fast as whole", text.getvalue())
    assert "merging cost" in text.getvalue() and "48 > 40" in text.getvalue()


def test_report_is_saved_whole_or_not_at_all(profile, tmp_path):
    folder = tmp_path / "new" / "report"
    save(profile.report, profile.trace, folder)
    assert sorted(file.name for file in folder.iterdir()) == ["layers.csv", "report.html", "report.json", "trace.json"]
    assert json.loads((folder / "report.json").read_text())["schema_version"] == 1
    assert json.loads((folder / "trace.json").read_text()) == profile.trace
    rows = list(csv.DictReader((folder / "layers.csv").read_text().splitlines()))
    assert [row["model"] for row in rows] == ["reduced"] * 5 + ["whole"] * 5 and rows[1]["tokens_out"] == "40"

    with pytest.raises(OutputError, match=r"report exists already: name another folder, or pass --force"):
        save(profile.report, profile.trace, folder)
    (folder / "mine.txt").write_text("kept")
    save(profile.report, profile.trace, folder, force=True)
    assert (folder / "mine.txt").read_text() == "kept"
    assert [path.name for path in folder.parent.iterdir()] == ["report"]


def test_report_that_cannot_be_written(profile, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write the report to .*: (Not a directory|File exists)"):
        save(profile.report, profile.trace, tmp_path / "file" / "report")


def test_profile_of_one_model_alone(sides):
    alone = profile_model(sides[0], ids={"reduced": "x"}, device="x86-cpu", environment={}, effort=EFFORT).report
    assert alone.against is None and alone.comparison is None
    assert alone.model.layers.merging_cost > 0 and alone.model.layers.blocks_saved is None


def test_sides_take_turns(sides):
    told = []
    with Worker(sides[0]) as first, Worker(sides[1]) as second:
        (comparison,) = compare([first, second], rounds=9, turn_seconds=0, progress=lambda _, done: told.append(done))
        with pytest.raises(UsageError, match="rounds=8: a ratio with an interval needs at least 9"):
            compare([first, second], rounds=8)
    assert (comparison.label, comparison.against) == ("reduced", "whole")
    ratios = sorted(against / own for own, against in comparison.rounds)
    assert (comparison.speedup.low, comparison.speedup.value, comparison.speedup.high) == (
        ratios[1],
        ratios[4],
        ratios[7],
    )
    assert told[-1] == 1


def test_worker_does_not_count_its_parents_memory(sides):
    ballast = np.ones(60_000_000)  # 480 MB
    with Worker(sides[0]) as worker:
        assert worker.peak_memory() < ballast.nbytes


def test_worker_hands_on_errors_under_their_own_name(sides, tmp_path):
    side = sides[0]
    with (
        pytest.raises(SourceError, match="cannot load gone.onnx"),
        Worker(Side("gone", tmp_path / "gone.onnx", INPUTS, FEEDS)),
    ):
        pass
    with (
        pytest.raises(UnknownName, match="no runtime 'onnx'"),
        Worker(Side("x", side.model, INPUTS, FEEDS, runtime="onnx")),
    ):
        pass
    wrong = {"x": FEEDS["x"].astype(np.float64)}
    with Worker(Side("wrong", side.model, INPUTS, wrong)) as worker, pytest.raises(InputError, match="is float64"):
        worker.sample(1)


def test_worker_gets_the_values_of_a_transposed_view(tmp_path):
    """The model gathers out of range unless every row is [1, 2]."""
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (int64[batch, 2] x) => (float[batch, 2] y) '
        "<float[2] table = {1, 2}, int64[2] end = {1, 2}> { i = Sub(x, end) z = Mul(i, x) y = Gather(table, z) }"
    )
    onnx.save(graph, tmp_path / "model.onnx")
    inputs = (TensorSpec("x", "int64", ("batch", 2)),)
    columns = np.array([[1, 1, 1], [2, 2, 2]]).T  # in memory 1 1 1 2 2 2: [2, 1] would index out of range
    with Worker(Side("view", tmp_path / "model.onnx", inputs, {"x": columns})) as worker:
        assert len(worker.sample(2)) == 2


def test_worker_that_dies(sides):
    with Worker(sides[0]) as worker:
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(EdgetokError, match="the process that ran reduced ended by signal 9: it left no message"):
            worker.sample(1)


def test_inlined_nodes_are_named_after_their_call(sides, tmp_path):
    plain = onnx.load_from_string(inlined(sides[0].model))
    inside = [node.name for node in plain.graph.node if node.name.startswith("blocks.1/reduce/drop/")]
    assert len(inside) == 8 and not plain.functions and inside[-1].startswith("blocks.1/reduce/drop/Add.")

    model = onnx.load(sides[0].model)
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    with Worker(Side("external", tmp_path / "model.onnx", INPUTS, FEEDS)) as worker:
        (run,) = worker.profile(warm_up=0, runs=1)
    assert sum(node.name.startswith("blocks.1/reduce/drop/") for node in run.nodes) >= 3


def test_fused_nodes_go_with_the_node_before():
    names = [
        "ReorderInput",
        "embed/conv",
        "blocks.0/mlp/up",
        "BiasGelu_token_4",
        "fused blocks.10/attention/q",
        "x",
        "head/fc",
    ]
    nodes = tuple(NodeTime(name, "Op", 10.0 * i, 8) for i, name in enumerate(names))
    attention, mlp, embed = ("blocks.10", "attention"), ("blocks.0", "mlp"), ("embed", "")
    assert places(nodes) == [
        (embed, False),
        (embed, True),
        (mlp, True),
        (mlp, False),
        (attention, True),
        (attention, False),
        (("head", ""), True),
    ]
    table = layer_table([ProfiledRun(0, 70, nodes)])
    assert [layer.name for layer in table.layers] == ["embed", "blocks.0", "blocks.10", "head"]
    assert table.by_neighbour == pytest.approx(0.024) and table.between_nodes == pytest.approx(0.014)


def test_nodes_without_any_known_name():
    table = layer_table([ProfiledRun(0, 10, (NodeTime("conv1", "Conv", 0, 9),))])
    assert [layer.name for layer in table.layers] == ["other"] and table.merging_cost is None and not table.by_neighbour


def test_layers_leave_the_slower_half_of_the_runs_out():
    def run(slowness):
        return ProfiledRun(0, 1000 * slowness, (NodeTime("head/fc", "MatMul", 0, 900 * slowness),))

    table = layer_table([run(1), run(1), run(50), run(2)])
    assert (table.whole, table.layers[0].milliseconds, table.runs) == (1, 0.9, 4)


def test_trace_shows_the_run_of_median_length_and_never_overlaps():
    nodes = (
        NodeTime("head/a", "A", 100, 11),
        NodeTime("head/b", "B", 110, 30),
    )  # microseconds, rounded: a ends after b
    runs = [ProfiledRun(99, 45, nodes), ProfiledRun(0, 900, ()), ProfiledRun(0, 1, ())]
    spans = [event for event in chrome_trace({"m": runs})["traceEvents"] if event["ph"] == "X"]
    assert [(span["name"], span["ts"], span["dur"]) for span in spans] == [
        ("run", 0, 45),
        ("head", 1, 40),
        ("head/a", 1, 10),
        ("head/b", 11, 30),
    ]
