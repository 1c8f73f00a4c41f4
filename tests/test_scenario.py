"""Scenarios: what a query is, how many there are, and what a report says of them."""

from pathlib import Path

import numpy as np
import pytest

import edgetok
from edgetok import scenario, timing
from edgetok.errors import UnknownName, UsageError
from edgetok.profiling import Effort
from tests.test_cli import edgetok as command
from tests.test_memory import linear

QUICK = Effort(min_seconds=0, max_seconds=2, warm_up_seconds=0.3, layer_seconds=0.1, least=40)


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .onnx file with one small linear layer and a free batch."""
    path = tmp_path_factory.mktemp("scenario") / "layer.onnx"
    linear(path, width=32, layers=1)
    return path


def test_a_query_of_eight_samples(layers: Path, tmp_path: Path) -> None:
    """The batch of every run, the scenario in the report and on the terminal."""
    edgetok.export(str(layers), out=tmp_path / "bundle")
    report = edgetok.profile(tmp_path / "bundle", scenario="multi-stream", effort=QUICK, out=tmp_path / "report")
    assert report.model.latency.batch == 8 and report.scenario.startswith("multi-stream")
    assert report.model.latency.runs >= 40
    assert "queries of eight samples" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_a_fixed_batch_must_be_that_of_the_queries(layers: Path, tmp_path: Path) -> None:
    edgetok.export(str(layers), out=tmp_path / "four", batch=4)
    with pytest.raises(UsageError, match="asks 8 samples at once, and the batch of .*four is fixed at 4"):
        edgetok.profile(tmp_path / "four", scenario="multi-stream", effort=QUICK)
    edgetok.export(str(layers), out=tmp_path / "eight", batch=8)
    assert edgetok.profile(tmp_path / "eight", scenario="multi-stream", effort=QUICK).model.latency.batch == 8


def test_samples_are_used_again(layers: Path, tmp_path: Path) -> None:
    """Eight of three: the first ones once more."""
    bundle = edgetok.export(str(layers), out=tmp_path / "bundle")
    feeds = scenario.load("multi-stream").feeds(bundle, {"x": np.arange(3)})
    assert feeds["x"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_names_and_counts() -> None:
    """MLPerf's: early stopping needs 64 queries for p90 and 662 for p99; offline has 24576 samples."""
    found = {each.name: each for each in scenario.SCENARIOS}
    assert found["single-stream"].queries == 64 and found["multi-stream"].queries == 662
    assert found["offline"].queries * found["offline"].samples == 24576
    with pytest.raises(UnknownName, match="did you mean 'offline'"):
        scenario.load("ofline")


def test_the_fewest_runs_are_made() -> None:
    """By a clock under control: 100 runs of 1 ms where the percentile alone needs 36."""
    now = 0

    def run() -> None:
        nonlocal now
        now += 1_000_000

    timed = timing.measure(run, percentile=0.9, least=100, min_seconds=0, warm_up_seconds=1, clock=lambda: now)
    assert len(timed.milliseconds) == 100
    timed = timing.measure(run, percentile=0.9, min_seconds=0, warm_up_seconds=1, clock=lambda: now)
    assert len(timed.milliseconds) == 36


def test_an_unknown_scenario_is_one_line(layers: Path, tmp_path: Path) -> None:
    edgetok.export(str(layers), out=tmp_path / "bundle")
    ran = command("profile", tmp_path / "bundle", "--scenario", "server")
    assert ran.returncode != 0 and ran.stderr.startswith("error: no scenario 'server'")
