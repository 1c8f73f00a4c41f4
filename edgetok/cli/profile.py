"""`edgetok profile`: how fast a bundle is, and where the time goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetok.cli._console import Answer, Arithmetic, Device, Json, RuntimeName, Verbose, progress

if TYPE_CHECKING:
    from rich.console import Console


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    against: Annotated[
        str | None, typer.Option(metavar="BUNDLE|SOURCE", help="Compare with it; a source is exported unreduced.")
    ] = None,
    input: Annotated[
        str | None, typer.Option("--input", metavar="FILE", help="Measure with it; a picture is shown with its tokens.")
    ] = None,
    on: Device = "cpu",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Write report.html, report.json, layers.csv and trace.json."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that exists.")] = False,
    arithmetic: Arithmetic = "a32",
    runtime: RuntimeName = "onnxruntime",
    all_runtimes: Annotated[
        bool, typer.Option("--all-runtimes", help="Also time the bundle on every installed runtime, in turns.")
    ] = False,
    max_p99: Annotated[
        str | None, typer.Option("--max-p99", metavar="TIME", help="Fail where p99 of the latency is above, as 20ms.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(metavar="NAME", help="single-stream, multi-stream or offline, as MLPerf has them.")
    ] = None,
    min_cosine: Annotated[
        float | None, typer.Option("--min-cosine", metavar="X", help="Fail where an output is less like the original.")
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Measure latency, memory and the time of each block, alone or against the original."""
    import sys
    from shlex import join

    from edgetok import api
    from edgetok.limits import Limits, milliseconds

    limits = Limits(None if max_p99 is None else milliseconds(max_p99), min_cosine)
    with progress() as tell:
        report = api.profile(
            bundle,
            against=against,
            input=input,
            device=on,
            out=out,
            force=force,
            arithmetic=arithmetic,  # type: ignore[arg-type]  # api says what is accepted
            runtime=runtime,
            all_runtimes=all_runtimes,
            limits=limits,
            scenario=scenario,
            command=join(["edgetok", *sys.argv[1:]]),
            progress=tell,
        )

    def render(console: Console) -> None:
        from edgetok.render import render as print_report

        print_report(report, console)
        if out is not None:
            files = "report.html, report.json, layers.csv, trace.json"
            console.print(f"written to {out}: {files}", markup=False, soft_wrap=True)

    data = report.model_dump(mode="json") | {"verdict": report.verdict}
    return Answer(data, render, exit_code=int(report.verdict == "fail"))
