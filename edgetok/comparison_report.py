"""What a comparison of models reports, as data: schema-versioned JSON, the chosen one and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from edgetok.conditions import Conditions, Energy
from edgetok.limits import Judged, Limits, judge
from edgetok.manifest import Fidelity
from edgetok.pareto import Point, front
from edgetok.report import SCOPE, Check, Latency, Memory
from edgetok.statistics import Quantile, beyond, ratio, ties

UNLIKE = "unlike states"  # the name of checks that are told on top
NO_LIMIT = "no limit was given: with --min-cosine or --max-p99 the fastest that keeps them is chosen"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Compared(_Record):
    """One model beside the others.

    Attributes:
        label: what the report calls it.
        model_id: the bundle's id.
        runtime: name, version and settings.
        latency: of its runs alone, in a process of its own.
        memory, energy, conditions: meanwhile.
        bytes: of the graphs and weights; None where a saved report does not tell.
        fidelity: how near each output comes to the original's.
        milliseconds: of the last model the median of its turns, of the others that divided by the speed-up; of a saved
            profile, the median of its runs.
        low, high: the 95 % interval of that; in turns, the ratio's.
        speedup: how many times it runs while the last model runs once.
        limits: what was demanded of it, and whether it is shown.
        best: whether it is on the Pareto front: nothing is as fast and as near, and better in one of the two.
    """

    label: str
    model_id: str
    runtime: dict[str, str]
    latency: Latency
    memory: Memory
    energy: Energy
    conditions: Conditions
    bytes: int | None
    fidelity: tuple[Fidelity, ...]
    milliseconds: float
    low: float | None
    high: float | None
    speedup: Quantile
    limits: tuple[Judged, ...] = ()
    best: bool = False

    @property
    def cosine(self) -> float | None:
        """The least of any output's; None where nothing was compared."""
        return min((each.cosine for each in self.fidelity), default=None)

    @property
    def keeps(self) -> bool:
        """Whether all that was demanded is shown to be kept."""
        return all(limit.verdict == "pass" for limit in self.limits)


class ComparisonReport(_Record):
    """Models side by side, the fastest first.

    `schema_version` grows whenever a reader of the JSON would have to change. `against` is the model that speed-ups are
    set against. `rounds` has the milliseconds of each round of turns, one for each of `rows`; it is empty where saved
    reports were compared. `chosen` is the label of the fastest that keeps the limits, `why` says so, or why there is
    none; `limits` are what was demanded.
    """

    schema_version: Literal[1] = 1
    command: str | None = None
    device: str
    environment: dict[str, Any]
    scope: str = SCOPE
    limits: Limits
    against: str
    rows: tuple[Compared, ...]
    rounds: tuple[tuple[float, ...], ...] = ()
    chosen: str | None
    why: str
    checks: tuple[Check, ...]

    @classmethod
    def of(
        cls,
        rows: Sequence[Compared],
        rounds: Sequence[Sequence[float]],
        *,
        limits: Limits,
        device: str,
        environment: dict[str, Any],
        checks: Sequence[Check],
        command: str | None = None,
    ) -> ComparisonReport:
        """Put the models in order, judge them, and choose one.

        Args:
            rows: in the order they were given; the last is what the others are set against.
            rounds: milliseconds of each of these in every round; empty where none were made.
            limits: what is demanded of the one to choose.
            device: the name of the machine.
            environment: its fingerprint.
            checks: what to know before trusting the figures.
            command: what was typed.
        """
        order = sorted(range(len(rows)), key=lambda i: rows[i].milliseconds)
        best = front([(row.milliseconds, row.cosine) for row in rows])
        judged = [
            rows[i].model_copy(
                update={"best": best[i], "limits": judge(limits, rows[i].latency.p99, rows[i].fidelity)}
            )
            for i in order
        ]
        turns = tuple(tuple(each[i] for i in order) for each in rounds)
        chosen, why = _choose(judged, turns)
        return cls(
            command=command, device=device, environment=environment, limits=limits, against=rows[-1].label,
            rows=tuple(judged), rounds=turns, chosen=chosen, why=why, checks=tuple(checks),
        )  # fmt: skip

    @property
    def verdict(self) -> Literal["pass", "warn", "fail"]:
        """fail: limits were given and nothing is shown to keep them; warn: the conditions were doubtful."""
        if self.chosen is None and any(row.limits for row in self.rows):
            return "fail"
        return "warn" if any(check.verdict == "warn" for check in self.checks) else "pass"

    @property
    def points(self) -> tuple[Point, ...]:
        """The rows, as the Pareto picture takes them."""
        return tuple(
            Point(
                row.label, row.milliseconds, row.cosine, row.low, row.high, row.bytes, row.energy.gross, row.best,
                row.label == self.chosen,
            )
            for row in self.rows
        )  # fmt: skip


def _choose(rows: Sequence[Compared], rounds: Sequence[Sequence[float]]) -> tuple[str | None, str]:
    """The fastest that is shown to keep the limits, and why; rows are in order of latency."""
    if not rows[0].limits:
        return None, NO_LIMIT
    demanded = " and ".join(f"{limit.name} {limit.limit}" for limit in rows[0].limits)
    keeping = [i for i, row in enumerate(rows) if row.keeps]
    if not keeping:
        found = "; ".join(f"{row.label}: {_shortcomings(row)}" for row in rows)
        return None, f"none of {len(rows)} is shown to keep {demanded}: {found}"
    first, *others = keeping
    chosen = rows[first]
    why = f"{chosen.label}: {chosen.milliseconds:.4g} ms, the fastest of {len(keeping)} that keep {demanded}"
    why += ties([rows[i].label for i in others if not _is_slower(rows, i, first, rounds)])
    if open_ := [row.label for row in rows[:first] if all(limit.verdict != "fail" for limit in row.limits)]:
        why += f"; {', '.join(open_)}: faster, but not shown to keep them"
    return chosen.label, why


def _is_slower(rows: Sequence[Compared], one: int, other: int, rounds: Sequence[Sequence[float]]) -> bool:
    """Whether a row is slower than another beyond the interval: by the rounds, or by intervals that do not meet."""
    if rounds:
        return beyond(ratio([(each[one], each[other]) for each in rounds]).low, 1)
    return beyond(rows[one].low, rows[other].high)


def _shortcomings(row: Compared) -> str:
    return ", ".join(limit.found for limit in row.limits if limit.verdict != "pass")
