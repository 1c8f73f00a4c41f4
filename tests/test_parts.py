"""A request taken apart: steps under a clock that the test owns, those of each runtime, and how they are told."""

from ctypes import c_float
from io import StringIO
from random import Random

import numpy as np
import pytest
from rich.console import Console

import edgetok
from edgetok import parts, runtimes
from edgetok.checks import parts_checks
from edgetok.errors import OutputError
from edgetok.page.html import profile_page
from edgetok.parts import PREPARE, Part, Step
from edgetok.profiling import Effort
from edgetok.render import render
from edgetok.statistics import quantile
from edgetok.timing import sample_steps
from tests.test_memory import linear
from tests.test_page import Reader, made
from tests.test_profiling import FEEDS, INPUTS, transformer
from tests.test_timing import Machine

pytest.importorskip("onnxruntime")

QUICK = Effort(min_seconds=0.05, max_seconds=1.0, warm_up_seconds=0.5, rounds=9, layer_seconds=0.1, idle_seconds=0.1)
ON_CARD = (("check the arrays", "host", 0.1), ("copy in", "copy", 2.0), ("launch", "host", 0.5),
           ("compute", "device", 8.0), ("copy out", "copy", 1.0))  # fmt: skip


def test_each_step_has_its_own_times():
    """By a clock under control: uniform from 1 to 3 ms, always 5 ms; the third is told by the device, 0.5 ms."""
    draw = Random(0)
    drawn, fixed = Machine(lambda n: draw.uniform(1, 3)), Machine(lambda n: 5)

    def clock():
        return drawn.now + fixed.now

    steps = (Step("drawn", "host", drawn.run), Step("fixed", "copy", fixed.run), Step("card", "device", lambda: 0.5))
    times = sample_steps(steps, 2001, clock=clock)
    assert [len(taken) for taken in times] == [2001] * 3 and set(times[1]) == {5} and set(times[2]) == {0.5}
    part = Part.of(steps[0], times[0])
    assert part.milliseconds.low < 2 < part.milliseconds.high and part.milliseconds.value == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("name", runtimes.of_files())
def test_the_steps_of_a_runtime_are_a_run(name, tmp_path):
    """What the last step hands out is what a run gives; every runtime that runs bundles here tells its steps."""
    with runtimes.load(name)(transformer(tmp_path / "model.onnx", reduce=True), INPUTS, threads=1) as runtime:
        wanted = runtime.run(FEEDS)
        steps = runtime.steps(FEEDS)
        *_, handed = [step.run() for step in steps]
    got = handed if isinstance(handed, list) else list(handed.values())
    for one, other in zip(got, wanted.values(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [step.name for step in steps] == ["check the arrays", "feed", "compute", "hand the outputs out"]
    assert {step.where for step in steps} == {"host"}


def test_a_profile_times_the_way_from_the_file(tmp_path):
    linear(tmp_path / "layer.onnx", width=32, layers=1)
    edgetok.export(str(tmp_path / "layer.onnx"), out=tmp_path / "bundle")
    np.savez(tmp_path / "x.npz", x=np.ones((1, 32), np.float32))
    report = edgetok.profile(tmp_path / "bundle", input=tmp_path / "x.npz", effort=QUICK, out=tmp_path / "report")
    found = {part.name: part.milliseconds for part in report.model.parts}
    assert next(iter(found)) == PREPARE and len(found) == 5 and all(each.claimed for each in found.values())
    page = Reader((tmp_path / "report" / "report.html").read_text())
    assert "parts" in page.ids and parts.HOST in page.text and parts.OWN not in page.text
    with pytest.raises(OutputError, match="report exists already"):  # before anything is measured
        edgetok.profile(tmp_path / "bundle", out=tmp_path / "report", progress=lambda *_: pytest.fail("measured"))


def shown(report) -> tuple[str, str]:
    text = StringIO()
    render(report, Console(file=text, width=100))
    return Reader(profile_page(report)).text, " ".join(text.getvalue().split())


def test_host_device_and_copies_are_told_apart():
    found = tuple(Part(name, where, quantile([value] * 9, 0.5)) for name, where, value in ON_CARD)
    assert parts.together(found) == pytest.approx({"host": 0.6, "copy": 3, "device": 8})
    report = made()
    for text in shown(report.model_copy(update={"model": report.model.model_copy(update={"parts": found})})):
        assert "the parts may be more than a run takes" in text and parts.HOST not in text
    assert "copy in 2.00, launch 0.500, compute 8.00" in text and "together host 0.600, copy 3.00, device 8.00" in text


def test_parts_that_are_no_run_are_warned_of():
    latency = made().model.latency  # of 20.5 ms

    def verdicts(*parts):
        found = [Part(str(value), where, quantile([value] * 9, 0.5)) for where, value in parts]
        return [check.verdict for check in parts_checks("small", latency, found)]

    assert verdicts(("host", 1.0), ("host", 19.0)) == ["pass"] and verdicts(("host", 41.0)) == ["warn"]
    assert verdicts() == verdicts(("host", 41.0), ("device", 5.0)) == []


def test_a_runtime_that_times_neither_parts_nor_nodes():
    report = made()
    bare = report.model.model_copy(update={"parts": (), "layers": None, "operators": ()})
    page, terminal = shown(report.model_copy(update={"model": bare}))
    assert parts.UNTOLD in page and parts.UNTOLD in terminal
    assert "onnxruntime does not time single nodes" in page and "figure-blocks" not in page
    assert "Where a run of small goes" not in terminal


def test_events_of_a_card():
    """The CUDA runtime takes the calls: without a driver it says so by its code, with a card it measures."""
    cuda = pytest.importorskip("polygraphy.cuda")
    from polygraphy.exception import PolygraphyException

    from edgetok.engine.events import Stopwatch

    try:
        cuda.wrapper()
    except (OSError, PolygraphyException):
        pytest.skip("no CUDA runtime library: pip install nvidia-cuda-runtime")
    try:
        watch = Stopwatch(0)
    except PolygraphyException as error:
        assert "CUDA Error" in str(error)
        took = c_float()
        assert cuda.wrapper().handle.cudaEventElapsedTime(took, None, None)  # refused by its code, not a crash
        return
    watch.start()
    watch.stop()
    assert 0 <= watch.milliseconds() < 100
