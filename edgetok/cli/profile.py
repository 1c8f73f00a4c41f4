"""`edgetok profile`: how fast a bundle is, and where the time goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetok.cli._console import Answer, Arithmetic, Device, Json, Verbose, progress

if TYPE_CHECKING:
    from rich.console import Console


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    against: Annotated[
        str | None, typer.Option(metavar="BUNDLE|SOURCE", help="Compare with it; a source is exported unreduced.")
    ] = None,
    on: Device = "cpu",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Write report.json, layers.csv and trace.json.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that exists.")] = False,
    arithmetic: Arithmetic = "a32",
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Measure latency, memory and the time of each block, alone or against the original."""
    from edgetok import api

    with progress() as tell:
        report = api.profile(
            bundle,
            against=against,
            device=on,
            out=out,
            force=force,
            arithmetic=arithmetic,  # type: ignore[arg-type]  # api says what is accepted
            progress=tell,
        )

    def render(console: Console) -> None:
        from edgetok.render import render as print_report

        print_report(report, console)
        if out is not None:
            console.print(f"written to {out}: report.json, layers.csv, trace.json", markup=False, soft_wrap=True)

    return Answer(report.model_dump(mode="json"), render)
