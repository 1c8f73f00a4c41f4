"""What was measured of several choices, as a table: schema-versioned JSON, and CSV."""

from __future__ import annotations

import csv
import io
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgetok.errors import OutputError, UsageError
from edgetok.evaluation import Evaluation
from edgetok.pareto import Point, front
from edgetok.report import REPORT, SCOPE, write_folder
from edgetok.tuning import Decision, Verdict, Wanted, unreduced


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Record):
    """One choice.

    Attributes:
        reduce: the choice; empty for the unreduced model.
        tokens: left behind the last block.
        flops: share of the unreduced model's multiplications.
        cosine: the least of any output's with the original's, pooled over tokens, over all samples.
        milliseconds: of the unreduced model, divided by the speed-up.
        speedup: against the unreduced model, in turns; the median of the rounds.
        low, high: its 95 % interval.
        best: whether it is on the Pareto front: nothing is as fast and as near, and better in one of the two.
    """

    reduce: str
    tokens: int
    flops: float
    cosine: float
    milliseconds: float
    speedup: float
    low: float | None
    high: float | None
    best: bool


class Tradeoff(_Record):
    """Choices, the fastest first. `schema_version` grows whenever a reader of the JSON would have to change.

    `wanted` is what was asked for, `verdict`, `why` and `chosen` what came of it; None where nothing was.
    """

    schema_version: Literal[1] = 1
    source: str
    device: str
    measured_on: dict[str, str]
    scope: str = SCOPE
    rows: tuple[Row, ...]
    left_out: dict[str, str] = {}
    wanted: Wanted | None = None
    verdict: Verdict | None = None
    why: str | None = None
    chosen: str | None = None

    @classmethod
    def of(
        cls,
        evaluations: Sequence[Evaluation],
        *,
        tokens: int,
        cosine: float,
        source: str,
        device: str,
        measured_on: Mapping[str, str],
        wanted: Wanted | None = None,
        decision: Decision | None = None,
        left_out: Mapping[str, str] | None = None,
    ) -> Tradeoff:
        """The table of what was measured.

        Args:
            evaluations: at least one.
            tokens: of the unreduced model.
            cosine: of the unreduced model.
            source: what was reduced.
            device: the name of the machine.
            measured_on: `edgetok.evaluation.Bench.identity`.
            wanted: what the user asks for.
            decision: what comes of it.
            left_out: choices that the model refuses, and why.
        """
        base = unreduced(evaluations)
        whole = Row(
            reduce="", tokens=tokens, flops=1, cosine=cosine, milliseconds=base, speedup=1, low=1, high=1, best=True
        )  # fmt: skip
        rows = sorted([whole, *(_row(each, base) for each in evaluations)], key=lambda row: row.milliseconds)
        best = front([(row.milliseconds, row.cosine) for row in rows])
        return cls(
            source=source,
            device=device,
            measured_on=dict(measured_on),
            rows=tuple(row.model_copy(update={"best": on}) for row, on in zip(rows, best, strict=True)),
            left_out=dict(left_out or {}),
            wanted=wanted,
            verdict=decision.verdict if decision else None,
            why=decision.why if decision else None,
            chosen=decision.chosen.reduce if decision and decision.chosen else None,
        )

    @property
    def points(self) -> tuple[Point, ...]:
        """The rows, as the Pareto picture takes them; the unreduced model is chosen where reducing does not pay."""
        base = next(row.milliseconds for row in self.rows if not row.reduce)
        chosen = {"reduce": self.chosen, "do not reduce here": ""}.get(self.verdict or "")
        return tuple(
            Point(
                row.reduce or "unreduced", row.milliseconds, row.cosine, row.high and base / row.high,
                row.low and base / row.low, best=row.best, chosen=row.reduce == chosen,
            )
            for row in self.rows
        )  # fmt: skip

    def csv(self) -> str:
        """One line a choice."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(Row.model_fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.model_dump() for row in self.rows)
        return text.getvalue()


def _row(evaluation: Evaluation, base: float) -> Row:
    speedup = evaluation.speedup
    return Row(
        reduce=evaluation.reduce,
        tokens=evaluation.tokens,
        flops=evaluation.flops,
        cosine=evaluation.cosine,
        milliseconds=base / speedup.value,
        speedup=speedup.value,
        low=speedup.low,
        high=speedup.high,
        best=False,
    )


def check_table(out: Path, force: bool) -> Path:
    """Make sure that a table may be written, and give its path back; worth asking before the long work.

    Raises:
        UsageError: neither .json nor .csv, nor a folder's name.
        OutputError: it exists.
    """
    if out.suffix not in (".json", ".csv", ""):
        raise UsageError(f"{out}: accepted are names that end in .json or .csv, and a folder's, without an ending")
    if out.exists() and not force:
        raise OutputError(f"{out} exists already: name another {_kind(out)}, or replace it with --force")
    if out.exists() and out.is_dir() != (_kind(out) == "folder"):
        raise OutputError(f"{out} is no {_kind(out)}, and is not replaced by one: name another")
    return out


def _kind(out: Path) -> str:
    return "file" if out.suffix else "folder"


def save(table: Tradeoff, out: Path) -> None:
    """Write a table, whole or not at all: one file, .json, .csv or .html, or a folder with all three.

    Raises:
        OutputError: it cannot be written.
    """
    from edgetok.page.html import tradeoff_page

    if not out.suffix:
        files = {REPORT: _json(table), "report.html": tradeoff_page(table), "table.csv": table.csv()}
        return write_folder(files, out)
    text = {".csv": Tradeoff.csv, ".json": _json, ".html": tradeoff_page}[out.suffix](table)
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)


def _json(table: Tradeoff) -> str:
    return table.model_dump_json(indent=2) + "\n"
