"""What is chosen from, what is decided, and how it is told."""

import json
from pathlib import Path

import pytest

from edgetok import tradeoff, tuning
from edgetok.errors import EdgetokError, OutputError, Refusal, UnknownName, UsageError
from edgetok.evaluation import Evaluation, parse, spell
from edgetok.flops import Work
from edgetok.journal import Journal
from edgetok.manifest import Fidelity
from edgetok.tuning import Limits, Wanted, decide, grid
from tests.test_page import Reader

WORK = Work(197, 100, (100,) * 12, (20,) * 12)


def evaluation(reduce: str, milliseconds: float, cosine: float, spread: float = 0.0) -> Evaluation:
    """Nine rounds against 10 ms of the unreduced model."""
    turns = [milliseconds * (1 + spread * (i - 4)) for i in range(9)]
    near = Fidelity(output="y", cosine=cosine, sqnr_db=None, max_abs=0.5)
    return Evaluation(reduce=reduce, tokens=33, flops=0.5, fidelity=(near,), rounds=tuple((own, 10.0) for own in turns))


FAST, MIDDLE, NEAR = evaluation("fast", 4, 0.8), evaluation("middle", 6, 0.95), evaluation("near", 9, 0.99)
SLOW = evaluation("slow", 11, 0.999)


def test_the_grid_has_sixty_points_for_three_techniques() -> None:
    found = grid(["tome,pitome,random"], WORK, 1)
    assert len(found) == 60 and {each.technique for each in found} == {"tome", "pitome", "random"}
    first = found[0]
    assert (first.reduce, first.blocks) == ("tome:keep=0.8,layers=0-11", 1.0)
    assert first.left == pytest.approx(0.8, abs=0.01) and 0 < first.flops < 1
    assert {each.reduce.partition("layers=")[2] for each in found} == {"0-11", "3-11", "6-11", "0-5"}


def test_options_and_layers_of_the_users_own() -> None:
    found = grid(["tome:layers=4-7,proportional=false,random:seed=3", "pitome:margin=0.5"], WORK, 1)
    spelt = [each.reduce for each in found]
    assert "tome:keep=0.5,layers=4-7,proportional=false" in spelt and "random:keep=0.5,layers=0-11,seed=3" in spelt
    assert len(found) == 4 + 20 + 20
    assert {each.technique for each in found} == {"tome:proportional=false", "random:seed=3", "pitome:margin=0.5"}


def test_counts_that_a_block_would_clamp_are_no_candidates() -> None:
    assert [each.reduce for each in grid(["tome:layers=5"], WORK, 1)] == [
        "tome:keep=0.8,layers=5", "tome:keep=0.65,layers=5", "tome:keep=0.5,layers=5",
    ]  # fmt: skip


def test_models_of_few_blocks_and_few_tokens() -> None:
    one = Work(65, 100, (100,), (20,))
    assert [each.reduce for each in grid(["tome"], one, 1)] == [
        f"tome:keep={keep},layers=0-0" for keep in (0.8, 0.65, 0.5)
    ]
    with pytest.raises(UsageError, match="1 tokens cannot go from block 0: it has 2, 1 of them prefix"):
        grid(["tome"], Work(2, 100, (100,), (20,)), 1)


@pytest.mark.parametrize(
    ("reduce", "error", "message"),
    [
        (["tome,pitom"], UnknownName, "no technique 'pitom': did you mean 'pitome' or"),
        (["tome:margn=1"], UnknownName, "no option of 'tome' 'margn'"),
        (["tome:keep=0.5"], UsageError, "'tome:keep=0.5': how many tokens go is what tune finds out: leave out keep"),
        (["tome:layers=3-20"], UsageError, "block 20 does not exist"),
        (["tome,vtc-cls"], UsageError, "vtc-cls acts behind the encoder, which it makes no faster"),
        ([], UsageError, "give the techniques to choose from, as in --reduce tome,pitome"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_from(reduce: list[str], error: type[EdgetokError], message: str) -> None:
    with pytest.raises(error, match=message):
        grid(reduce, WORK, 1)


@pytest.mark.parametrize(
    ("text", "seconds"), [("25ms", 0.025), ("0.025s", 0.025), (".5s", 0.5), ("10m", 600), ("2h", 7200)]
)
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    assert tuning.duration("--target-latency", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["25", "25 ms", "fast", "-3ms", "0ms", "1e3s", ""])
def test_times_without_a_unit_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"--time-limit '{text}': accepted is a time with its unit, as in 25ms"):
        tuning.duration("--time-limit", text)


@pytest.mark.parametrize(("given", "got"), [((None, None), "neither"), ((25.0, 0.9), "both")])
def test_exactly_one_target(given: tuple[float | None, float | None], got: str) -> None:
    with pytest.raises(UsageError, match=f"give one of --target-latency 25ms and --min-cosine 0.98; got {got}"):
        Wanted(*given)
    with pytest.raises(UsageError, match="min_cosine=1.5: accepted is a number between 0 and 1"):
        Wanted(cosine=1.5)


@pytest.mark.parametrize(
    ("wanted", "measured", "verdict", "chosen", "why"),
    [
        (Wanted(milliseconds=7), (FAST, MIDDLE, NEAR), "reduce", MIDDLE, "middle: 6 ms, cosine 0.9500"),
        (Wanted(milliseconds=9.5), (FAST, MIDDLE, NEAR), "reduce", NEAR, "near: 9 ms, cosine 0.9900"),
        (Wanted(cosine=0.9), (FAST, MIDDLE, NEAR), "reduce", MIDDLE, "middle: 6 ms, cosine 0.9500"),
        (
            Wanted(milliseconds=3), (FAST, MIDDLE), "out of reach", None,
            "2 measured, none takes at most 3 ms; nearest: fast, 4 ms, cosine 0.8000",
        ),
        (
            Wanted(cosine=0.995), (FAST, NEAR, SLOW), "do not reduce here", None,
            "3 measured, none is faster and holds cosine 0.995; nearest: near, cosine 0.9900, 9 ms",
        ),
        (
            Wanted(cosine=0.9), (SLOW,), "do not reduce here", None,
            "1 measured, none is faster than the unreduced model beyond the interval; nearest: slow, 0.909",
        ),
        (Wanted(milliseconds=8), (SLOW,), "out of reach", None, "1 measured, none is faster than the unreduced"),
        (
            Wanted(milliseconds=12), (FAST,), "do not reduce here", None,
            "the unreduced model takes 10 ms, which meets the target",
        ),
    ],
)  # fmt: skip
def test_what_is_decided(
    wanted: Wanted, measured: tuple[Evaluation, ...], verdict: str, chosen: Evaluation | None, why: str
) -> None:
    decision = decide(measured, wanted)
    assert (decision.verdict, decision.chosen) == (verdict, chosen) and decision.why.startswith(why)


def test_faster_within_the_interval_is_not_faster() -> None:
    unsure = evaluation("unsure", 9.8, 0.99, spread=0.02)
    assert unsure.speedup.value > 1 and not unsure.is_faster
    assert decide([unsure], Wanted(cosine=0.9)).verdict == "do not reduce here"


def test_what_is_not_shown_to_be_slower_than_the_chosen_is_named() -> None:
    overlap = [evaluation(f"tie{i}", 6 + i / 10, 0.95, spread=0.02) for i in range(1, 3)]
    chosen = evaluation("chosen", 6, 0.95, spread=0.02)
    rough = evaluation("rough", 6.05, 0.7, spread=0.02)
    why = decide([NEAR, overlap[1], chosen, overlap[0], rough], Wanted(cosine=0.9)).why
    assert why == "chosen: 6 ms, cosine 0.9500; tie1, tie2 are not shown to be slower"  # near is, rough is not near
    why = decide([NEAR, chosen, overlap[0]], Wanted(cosine=0.9)).why
    assert why.endswith("0.9500; tie1 is not shown to be slower")
    few = chosen.model_copy(update={"reduce": "few", "rounds": ((6.5, 10.0),)})  # one round has no interval
    assert decide([MIDDLE, few], Wanted(cosine=0.9)).why.endswith("; few is not shown to be slower")
    assert "slower" not in decide([chosen, overlap[0]], Wanted(milliseconds=7)).why  # the nearest is chosen there


def test_no_time_for_a_single_candidate(tmp_path: Path) -> None:
    candidates = grid(["tome"], WORK, 1)
    with Journal(tmp_path / "journal", {}) as journal:
        with pytest.raises(
            EdgetokError, match="the time limit of 0 s was over before the first candidate was measured"
        ):
            tuning.tune(candidates, lambda _: FAST, journal, Wanted(cosine=0.9), Limits(seconds=0))
        journal.append(FAST.model_copy(update={"reduce": candidates[0].reduce}))  # of an earlier run: it decides
        decision, _ = tuning.tune(candidates, lambda _: FAST, journal, Wanted(cosine=0.7), Limits(seconds=0))
        assert decision.chosen


def test_what_the_model_refuses_is_left_out(tmp_path: Path) -> None:
    asked = []

    def evaluate(reduce: str) -> Evaluation:
        asked.append(reduce)
        if reduce.startswith("pitome") or not reduce.endswith("layers=6-11"):
            raise Refusal("between the blocks, tokens are laid out on the grid")
        return evaluation(reduce, 6, 0.95)

    candidates = grid(["tome,pitome"], WORK, 1)
    with Journal(tmp_path / "journal", {}) as journal:
        decision, refused = tuning.tune(candidates, evaluate, journal, Wanted(cosine=0.9), Limits())
        assert decision.verdict == "reduce" and {entry.reduce for entry in journal.entries} < set(asked)
    assert len(refused) == 3 + 4 and set(refused.values()) == {"between the blocks, tokens are laid out on the grid"}
    with Journal(tmp_path / "other", {}) as journal, pytest.raises(Refusal, match="between the blocks"):
        tuning.tune(grid(["pitome"], WORK, 1), evaluate, journal, Wanted(cosine=0.9), Limits())


def test_several_at_once_have_one_spelling() -> None:
    assert spell("tome:layers=0-5,r=8+random:r=4,layers=6-11") == "tome:r=8,layers=0-5 + random:r=4,layers=6-11"
    assert [spec.name for spec in parse("tome:r=8,layers=0-5 + random:r=4,layers=6-11")] == ["tome", "random"]


def table() -> tradeoff.Tradeoff:
    measured = [NEAR, FAST, MIDDLE, SLOW, evaluation("beaten", 6.5, 0.9)]
    decision = decide(measured, Wanted(cosine=0.9))
    return tradeoff.Tradeoff.of(
        measured, tokens=197, cosine=1.0, source="callable: vit", device="x86-cpu", measured_on={"rounds": "9"},
        wanted=Wanted(cosine=0.9), decision=decision,
    )  # fmt: skip


def test_the_table_marks_what_nothing_else_beats() -> None:
    rows = {row.reduce: row for row in table().rows}
    assert list(rows) == ["fast", "middle", "beaten", "near", "", "slow"]
    assert [name for name, row in rows.items() if row.best] == ["fast", "middle", "near", ""]
    assert rows[""].milliseconds == 10 and rows["middle"].milliseconds == pytest.approx(6)
    assert table().chosen == "middle"


def test_the_table_on_the_disk(tmp_path: Path) -> None:
    tradeoff.save(table(), tmp_path / "new" / "table.json")
    assert json.loads((tmp_path / "new" / "table.json").read_text()) == table().model_dump(mode="json")
    tradeoff.save(table(), tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[0] == "reduce,tokens,flops,cosine,milliseconds,speedup,low,high,best" and len(lines) == 7
    with pytest.raises(OutputError, match="table.csv exists already: name another file, or replace it with --force"):
        tradeoff.check_table(tmp_path / "table.csv", force=False)
    assert tradeoff.check_table(tmp_path / "table.csv", force=True) == tmp_path / "table.csv"
    with pytest.raises(UsageError, match="table.txt: accepted are names that end in .json or .csv"):
        tradeoff.check_table(tmp_path / "table.txt", force=False)


def test_the_table_as_a_folder_with_a_page(tmp_path: Path) -> None:
    out = tmp_path / "report"
    tradeoff.save(table(), tradeoff.check_table(out, force=False))
    assert sorted(file.name for file in out.iterdir()) == ["report.html", "report.json", "table.csv"]
    assert (out / "table.csv").read_text() == table().csv()
    page = Reader((out / "report.html").read_text())
    assert {"figure-pareto", "choices"} <= set(page.ids) and page.open == [] and "script" not in page.tags
    assert page.text.index("REDUCE") < page.text.index(table().why) < page.text.index("Latency and fidelity")
    with pytest.raises(OutputError, match="report exists already: name another folder"):
        tradeoff.check_table(out, force=False)
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(OutputError, match=r"a\.csv is no file, and is not replaced by one"):
        tradeoff.check_table(tmp_path / "a.csv", force=True)


def test_where_reducing_does_not_pay_the_unreduced_model_is_chosen() -> None:
    measured = [SLOW, FAST]
    decision = decide(measured, Wanted(cosine=0.999))
    found = tradeoff.Tradeoff.of(
        measured, tokens=197, cosine=1.0, source="vit", device="x86-cpu", measured_on={}, decision=decision
    )
    assert found.verdict == "do not reduce here" and found.chosen is None
    assert [point.label for point in found.points if point.chosen] == ["unreduced"]
    assert [point.label for point in table().points if point.chosen] == ["middle"]
    bounds = {point.label: (point.low, point.milliseconds, point.high) for point in table().points}
    assert all(low <= middle <= high for low, middle, high in bounds.values())
