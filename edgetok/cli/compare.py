"""`edgetok compare`: bundles in turns, on the same inputs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from edgetok.cli._console import Answer, Device, Json, Verbose, progress, table

if TYPE_CHECKING:
    from rich.console import Console

    from edgetok.comparison import Comparison


def command(
    bundles: Annotated[list[Path], typer.Argument(help="Two bundles or more; each is compared with the last.")],
    on: Device = "cpu",
    rounds: Annotated[int, typer.Option(min=9, metavar="N", help="Turns of each side; 9 or more.")] = 15,
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Time bundles against the last one, in turns, one process each."""
    from edgetok import api

    with progress() as tell:
        found = api.compare(bundles, device=on, rounds=rounds, progress=tell)
    data = {"against": str(bundles[-1]), "comparisons": [asdict(each) | {"verdict": each.verdict} for each in found]}
    return Answer(data, lambda console: _render(found, console))


def _render(found: list[Comparison], console: Console) -> None:
    last = found[-1]
    made = table("", "ms", "speed-up", "95 % interval", "", right=("ms", "speed-up", "95 % interval"))
    for each in found:
        low, high = each.speedup.low, each.speedup.high
        interval = f"{low:.2f} – {high:.2f}" if low is not None and high is not None else ""
        made.add_row(
            each.label,
            f"{median(ours for ours, _ in each.rounds):.2f}",
            f"{each.speedup.value:.2f}x",
            interval,
            each.verdict,
        )
    made.add_row(last.against, f"{median(theirs for _, theirs in last.rounds):.2f}", "1.00x", "", "")
    console.print(made)
    console.print(f"medians of {len(last.rounds)} interleaved rounds, one process a side", style="dim")
