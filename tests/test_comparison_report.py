"""Which of several models is chosen, and what is said of the others."""

from edgetok.comparing import ITSELF
from edgetok.comparison_report import NO_LIMIT, Compared, ComparisonReport
from edgetok.limits import Limits
from edgetok.manifest import Fidelity
from edgetok.report import Check, Latency
from edgetok.timing import Timing, WarmUp
from tests.test_page import measured

CHECK = Check(name="clock", verdict="pass", detail="")


def row(label: str, milliseconds: float, cosine: float | None, p99: float = 0.0, runs: int = 400) -> Compared:
    """A model whose slowest fiftieth of the runs takes `p99` milliseconds more."""
    times = [milliseconds + (p99 if i % 50 == 0 else 0) for i in range(runs)]
    like = measured(label, 1.0, 2)
    fidelity = () if cosine is None else (Fidelity(output="y", cosine=cosine, sqnr_db=20.0, max_abs=0.1),)
    return Compared(
        label=label, model_id="0" * 64, runtime=like.runtime, memory=like.memory, energy=like.energy,
        conditions=like.conditions, bytes=10**7, fidelity=fidelity, milliseconds=milliseconds, low=milliseconds - 1,
        high=milliseconds + 1, speedup=ITSELF,
        latency=Latency.of(Timing(tuple(times), WarmUp(9, 1.0, steady=True), (0.0, 9.0)), batch=1),
    )  # fmt: skip


def report(*rows: Compared, limits: Limits, rounds=(), checks=(CHECK,)) -> ComparisonReport:
    return ComparisonReport.of(rows, rounds, limits=limits, device="x86-cpu", environment={}, checks=checks)


ROWS = row("whole", 40, 1.0), row("half", 20, 0.97), row("most", 30, 0.99), row("worse", 35, 0.95)


def test_the_fastest_that_keeps_the_limit_is_chosen() -> None:
    found = report(*ROWS, limits=Limits(min_cosine=0.98))
    assert [each.label for each in found.rows] == ["half", "most", "worse", "whole"]
    assert [each.best for each in found.rows] == [True, True, False, True]
    assert found.chosen == "most" and found.verdict == "pass" and found.against == "worse"
    assert found.why == "most: 30 ms, the fastest of 2 that keep cosine to the original at least 0.98"
    assert [point.label for point in found.points if point.chosen] == ["most"]


def test_both_limits_hold() -> None:
    found = report(row("a", 20, 0.99, p99=9), row("b", 25, 0.985), limits=Limits(max_p99=26, min_cosine=0.98))
    assert found.chosen == "b"  # 99 of 100 runs of a are within 29 ms
    found = report(row("a", 20, 0.99), row("b", 25, 0.985), limits=Limits(max_p99=26, min_cosine=0.98))
    assert found.chosen == "a"


def test_none_keeps_the_limits() -> None:
    found = report(*ROWS[1:], limits=Limits(min_cosine=0.999))
    assert found.chosen is None and found.verdict == "fail" and not any(point.chosen for point in found.points)
    assert found.why.startswith("none of 3 is shown to keep cosine to the original at least 0.999: half: 0.9700 of y;")


def test_no_limit_chooses_nothing() -> None:
    found = report(*ROWS, limits=Limits())
    assert (found.chosen, found.why, found.verdict) == (None, NO_LIMIT, "pass")
    doubtful = report(*ROWS, limits=Limits(), checks=[CHECK.model_copy(update={"verdict": "warn"})])
    assert doubtful.verdict == "warn"


def test_what_is_not_shown_to_keep_a_limit_is_not_chosen_but_told() -> None:
    few = row("few", 20, 0.99, runs=40)  # too few runs to bound p99
    found = report(few, row("many", 30, 0.99), row("blind", 25, None), limits=Limits(max_p99=40, min_cosine=0.9))
    assert found.chosen == "many" and found.why.endswith("; few, blind: faster, but not shown to keep them")


def test_a_tie_is_told_by_the_rounds_or_else_by_the_intervals() -> None:
    rows, limits = (row("a", 20, 0.99), row("b", 20.5, 0.99)), Limits(min_cosine=0.9)
    assert report(*rows, limits=limits).why.endswith("; b is not shown to be slower")  # 19 to 21 and 19.5 to 21.5
    apart = [(20 + i, 20.5 + i) for i in range(9)]  # b is slower in every round
    assert "not shown" not in report(*rows, limits=limits, rounds=apart).why
    mixed = [(20, 20.5 if i % 2 else 19.5) for i in range(9)]
    assert report(*rows, limits=limits, rounds=mixed).why.endswith("; b is not shown to be slower")


def test_rounds_follow_the_rows() -> None:
    found = report(*ROWS, limits=Limits(), rounds=[(40, 20, 30, 35)] * 9)
    assert found.rounds == ((20, 30, 35, 40),) * 9
    assert ComparisonReport.model_validate_json(found.model_dump_json()) == found

