"""The report as a page: whole, quiet, readable by a program; tests/test_browser.py opens it."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO

import pytest
from rich.console import Console

from edgetok.comparison import Comparison
from edgetok.conditions import Conditions, Energy, Span
from edgetok.errors import UsageError
from edgetok.layers import Layer, LayerTable, NodeTime, Operator, ProfiledRun, operator_table
from edgetok.limits import Limits, judge, milliseconds
from edgetok.manifest import Fidelity
from edgetok.page.html import profile_page
from edgetok.render import render
from edgetok.report import Check, Latency, Measured, Memory, OnRuntime, ProfileReport
from edgetok.roofline import Roof, Roofline, Work
from edgetok.statistics import quantile, ratio
from edgetok.timing import Timing, WarmUp

DEMANDED = Limits(max_p99=30, min_cosine=0.99)
FIGURES = {"figure-latency", "figure-speedup", "figure-tokens", "figure-blocks", "figure-operators"} | {
    "figure-memory", "figure-roofline"
}
VOID = {"meta", "link", "br"}
OPTIONAL = {"td", "th", "tr", "p"}  # HTML lets their end tags out


def measured(label: str, slower: float, blocks: int) -> Measured:
    times = tuple(slower * (20 + 0.01 * (i * 37 % 100)) for i in range(400))
    part = 18 * slower / blocks
    rows = [
        Layer(f"blocks.{i}", 257 - i, 256 - i, part, 0.9 / blocks, part / 2, part / 4, part / 4, 0.1)
        for i in range(blocks)
    ]
    table = LayerTable(20 * slower, tuple(rows), 2 * slower, 0.1, 1.0, 2.0, 16)
    return Measured(
        label=label,
        model_id="0" * 64,
        runtime={"runtime": "onnxruntime", "version": "1.32.0", "threads": "2"},
        latency=Latency.of(Timing(times, WarmUp(25, 0.5, steady=True), (0.0, 8.0)), batch=1),
        memory=Memory(peak=200_000_000, before_loading=50_000_000, timeline=((0.0, 90_000_000), (8.0, 110_000_000))),
        energy=Energy("INA3221 of the module: VDD_IN", 0.3 * slower, 0.1 * slower, 15.0, 10.0, 80),
        conditions=Conditions({"cpu-thermal": Span(40.0, 40.0, 55.0, 54.0)}, {"cpu": Span(2000, 1500, 2000, 1500)}, {}),
        layers=table,
        operators=(Operator("MatMul", 72, 12 * slower), Operator("Add", 24, 3 * slower)),
    )


def made(label: str = "small", blocks: int = 12, limits: Limits = DEMANDED) -> ProfileReport:
    fidelity = (Fidelity(output="logits", cosine=0.97, sqnr_db=12.0, max_abs=0.1, top1=1.0),)
    ours, theirs = measured(label, 1.0, blocks), measured("original", 1.5, blocks)
    rounds = tuple((20.0 + i % 3, 30.0 + i % 2) for i in range(15))
    roof = Roof(operations=332e9, bandwidth=40e9, source="2 cores x 2596 MHz x 64 a clock")
    return ProfileReport(
        roofline=Roofline.of("fp32", Work(operations=15_200_000_000, bytes=96_000_000), roof, 98.0),
        command=f"edgetok profile {label}",
        device="x86-cpu",
        environment={"cpu": "Xeon", "packages": {"numpy": "2.0"}, "governors": ["performance"]},
        model=ours,
        against=theirs,
        comparison=Comparison(label, "original", ratio([(b, a) for a, b in rounds]), rounds),
        fidelity=fidelity,
        limits=judge(limits, ours.latency.p99, fidelity),
        checks=(Check(name="clock", verdict="warn", detail="the system does not say"),),
    )


class Reader(HTMLParser):
    """Element names, ids, what would be loaded, the text; complains of end tags that fit no start."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.ids, self.loaded, self.text, self.tags = [], [], [], "", set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        found = dict(attrs)
        self.ids += filter(None, [found.get("id")])
        self.loaded += [value for key, value in attrs if key in ("src", "href", "xlink:href", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open[-1] in OPTIONAL and self.open[-1] != tag:
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_every_figure_is_there_and_nothing_is_loaded():
    report = made()
    text = profile_page(report)
    found = Reader(text)
    assert set(found.ids) >= FIGURES and found.open == []
    assert "script" not in found.tags and all(each.startswith(("#", "data:,")) for each in found.loaded)
    assert not re.search(r"url\((?!#)|@import", text)
    assert "1.48 times as fast as original" in found.text and "edgetok profile small" in found.text
    assert profile_page(report) == text  # no date, nothing drawn


def test_colours_are_the_page_s():
    text = profile_page(made())
    assert not re.search(r"#0[1-6]0[1-6]0[1-6]", text)
    assert {f"var(--series-{i})" for i in range(3)} | {"var(--ink)"} <= set(re.findall(r"var\(--[\w-]+\)", text))


def test_the_verdict_comes_first():
    found = Reader(profile_page(made())).text
    assert found.index("FAIL") < found.index("Latency") and "0.9700 of logits" in found
    assert made(limits=Limits()).verdict == "warn"  # of the clock
    assert made(limits=Limits(max_p99=30)).verdict == "warn"


def test_where_no_block_was_recognised_none_is_drawn():
    report = made()
    rest = replace(report.model.layers.layers[0], name="other", tokens_in=None, tokens_out=None)
    alone = report.model.model_copy(update={"layers": replace(report.model.layers, layers=(rest,))})
    found = Reader(profile_page(report.model_copy(update={"model": alone})))
    assert FIGURES - set(found.ids) == {"figure-tokens", "figure-blocks"} and "other" in found.text


def test_names_are_text_not_markup():
    found = Reader(profile_page(made(label="<script>alert(1)</script>&")))
    assert "script" not in found.tags and "<script>alert(1)</script>&" in found.text


def test_a_model_alone():
    report = made().model_copy(update={"against": None, "comparison": None, "fidelity": (), "limits": ()})
    found = Reader(profile_page(report))
    assert FIGURES - set(found.ids) == {"figure-speedup"} and "No limit was demanded" in found.text


def test_each_runtime_is_told_with_its_accuracy_or_its_reason():
    near = (Fidelity(output="logits", cosine=0.987654, sqnr_db=30.0, max_abs=0.1),)
    faster = OnRuntime(
        runtime={"runtime": "openvino", "version": "2026.4", "precision": "f32"}, median=16.0,
        speedup=ratio([(20.0, 16.0)] * 9), fidelity=near, original=near,
    )  # fmt: skip
    first = OnRuntime(runtime={"runtime": "onnxruntime", "version": "1.32.0"}, median=20.0, original=near)
    broken = OnRuntime(runtime={"runtime": "other"}, refused="it cannot load model.onnx")
    update = {"runtimes": (first, faster, broken), "runtime_why": "the default, which runs every bundle"}
    report = made().model_copy(update=update)
    page, shown = Reader(profile_page(report)).text, StringIO()
    render(report, Console(file=shown, width=100))
    for text in (page, shown.getvalue()):
        assert "other does not run it: it cannot load model.onnx" in text and text.count("0.987654") == 3
        assert "untime: onnxruntime, the default, which runs every bundle" in text and "1.25" in text


def test_five_hundred_blocks():
    assert len(profile_page(made(blocks=500))) < 6_000_000


def test_operators_are_those_of_the_faster_half():
    def run(start, *nodes):
        times = [NodeTime(f"n{i}", op, start + i, duration) for i, (op, duration) in enumerate(nodes)]
        return ProfiledRun(start, sum(duration for _, duration in nodes), tuple(times))

    fast = run(0, ("Add", 1000.0), ("MatMul", 3000.0), ("Add", 1000.0))
    slow = run(10, ("Add", 90000.0), ("MatMul", 90000.0), ("Add", 90000.0))
    assert operator_table([fast, slow]) == (Operator("MatMul", 1, 3.0), Operator("Add", 2, 2.0))


@pytest.mark.parametrize(("text", "value"), [("20ms", 20), ("0.02s", 20), ("800us", 0.8), (" .5 ms", 0.5)])
def test_times_have_units(text, value):
    assert milliseconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["20", "ms", "-1ms", "0ms", "1e3ms", "20 minutes", "nan ms"])
def test_what_is_no_time(text):
    with pytest.raises(UsageError, match="a number with its unit is accepted"):
        milliseconds(text)


def test_a_limit_is_judged_by_the_interval():
    p99 = quantile([10 + i / 1000 for i in range(1000)], 0.99)
    few = quantile([10.0, 11.0, 12.0], 0.99)

    def verdict(limits, found=p99, fidelity=()):
        (judged,) = judge(limits, found, fidelity)
        return judged.verdict

    assert verdict(Limits(max_p99=11)) == "pass" and verdict(Limits(max_p99=10.5)) == "fail"
    assert verdict(Limits(max_p99=p99.value)) == "warn"  # within the interval
    assert verdict(Limits(max_p99=100), few) == "warn"  # too few runs to say
    assert verdict(Limits(min_cosine=0.9)) == "warn"  # nothing was compared
    with pytest.raises(UsageError, match="a cosine of 1.5: -1 to 1 are accepted"):
        Limits(min_cosine=1.5)
