"""`edgetok profile`: how fast a bundle is, and where the time goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetok.cli._console import Answer, Arithmetic, Json, OrRemote, RuntimeName, Verbose, Wheels, progress

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
    on: Annotated[str, OrRemote] = "cpu",
    wheels: Wheels = None,
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
    typed: Annotated[str | None, typer.Option(hidden=True)] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Measure latency, memory and the time of each block, alone or against the original."""
    import sys
    from shlex import join

    from edgetok import api
    from edgetok.api import remote
    from edgetok.limits import Limits, milliseconds

    limits = Limits(None if max_p99 is None else milliseconds(max_p99), min_cosine)
    written = typed or join(["edgetok", *sys.argv[1:]])
    device = remote.target(on, wheels)
    with progress() as tell:
        if device is not None:
            asked = {"arithmetic": arithmetic, "runtime": runtime, "max-p99": max_p99, "scenario": scenario}
            options = [f"--{name}={value}" for name, value in asked.items() if value is not None]
            options += [f"--min-cosine={min_cosine}"] if min_cosine is not None else []
            options += ["--all-runtimes"] if all_runtimes else []
            report = remote.profile_on(
                device, bundle, against=against, input=input, out=out, force=force, options=options, command=written,
                progress=tell,
            )  # fmt: skip
        else:
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
                command=written,
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
