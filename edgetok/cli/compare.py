"""`edgetok compare`: models side by side, and the one to take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetok.cli._console import Answer, Json, Verbose, progress, table

if TYPE_CHECKING:
    from rich.console import Console

    from edgetok.comparison_report import Compared, ComparisonReport

STYLES = {"pass": "bold green", "warn": "bold yellow", "fail": "bold red"}


def command(
    models: Annotated[
        list[Path], typer.Argument(help="Two or more bundles, or saved profiles; each is set against the last.")
    ],
    on: Annotated[
        str | None, typer.Option("--on", metavar="DEVICE", help="What bundles are measured on: cpu, auto or a name.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=9, metavar="N", help="Turns of each bundle; 9 or more. [default: 15]")
    ] = None,
    max_p99: Annotated[
        str | None, typer.Option("--max-p99", metavar="TIME", help="Choose among those whose p99 is at most 20ms.")
    ] = None,
    min_cosine: Annotated[
        float | None, typer.Option("--min-cosine", metavar="X", help="Choose among those as like their original.")
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare profiles of unlike states too, and say what differs.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Write report.html and report.json.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that exists.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Compare bundles, measured in turns, one process each; or profiles that were saved with profile -o.

    With limits, the fastest that is shown to keep them is chosen.
    """
    import sys
    from shlex import join

    from edgetok import api
    from edgetok.limits import Limits, milliseconds

    limits = Limits(None if max_p99 is None else milliseconds(max_p99), min_cosine)
    with progress() as tell:
        found = api.compare(
            models, device=on, rounds=rounds, limits=limits, anyway=anyway, out=out, force=force,
            command=join(["edgetok", *sys.argv[1:]]), progress=tell,
        )  # fmt: skip

    def render(console: Console) -> None:
        _render(found, console)
        if out is not None:
            console.print(f"written to {out}: report.html, report.json", markup=False, soft_wrap=True)

    data = found.model_dump(mode="json") | {"verdict": found.verdict}
    return Answer(data, render, exit_code=int(found.verdict == "fail"))


def _render(found: ComparisonReport, console: Console) -> None:
    from edgetok.comparison_report import UNLIKE

    for check in found.checks:
        if check.name == UNLIKE:
            console.print(f"unlike states: {check.detail}", style="bold yellow", markup=False)
    numbers = ("ms", "p99", "times", "95 %", "cosine", "MB")
    made = table("", *numbers, right=numbers)
    for row in found.rows:
        style = "bold green" if row.label == found.chosen else "" if row.best else "dim"
        made.add_row(f"{row.label} *" if row.best else row.label, *_figures(row, found.against), style=style)
    console.print(made)
    turns = f"ms: of {len(found.rounds)} turns, one process a side" if found.rounds else "ms: of the saved runs"
    legend = f"{turns}; times: as fast as {found.against}; *: none is faster and nearer"
    if not all(row.latency.p99.claimed for row in found.rows):
        legend += "; ?: of too few runs"
    console.print(legend, style="dim", markup=False, highlight=False)
    console.print(found.why, style=STYLES[found.verdict] if found.rows[0].limits else "dim", markup=False)
    for check in found.checks:
        if check.verdict == "warn" and check.name != UNLIKE:
            console.print(f"{check.name}: {check.detail}", style="yellow", markup=False, highlight=False)


def _figures(row: Compared, against: str) -> list[str]:
    interval = f"{row.speedup.low:.2f}–{row.speedup.high:.2f}" if row.speedup.low and row.speedup.high else "?"
    p99 = row.latency.p99
    return [
        f"{row.milliseconds:.2f}",
        f"{p99.value:.2f}" if p99.claimed else f"{p99.value:.2f}?",
        f"{row.speedup.value:.2f}",
        "" if row.label == against else interval,
        "?" if row.cosine is None else f"{row.cosine:.4f}",
        "?" if row.bytes is None else f"{row.bytes / 1e6:.1f}",
    ]
