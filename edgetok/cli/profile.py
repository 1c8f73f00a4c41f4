"""`edgetok profile`: how fast a bundle is, and where the time goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetok.cli._console import Answer, Arithmetic, Json, OrRemote, RuntimeName, Verbose, Wheels, progress, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from edgetok.page.devices import OnDevice
    from edgetok.remote.named import Target
    from edgetok.report import ProfileReport


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    against: Annotated[
        str | None, typer.Option(metavar="BUNDLE|SOURCE", help="Compare with it; a source is exported unreduced.")
    ] = None,
    input: Annotated[
        str | None, typer.Option("--input", metavar="FILE", help="Measure with it; a picture is shown with its tokens.")
    ] = None,
    on: Annotated[list[str], OrRemote] = ["cpu"],  # noqa: B006  # typer copies it
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
    if devices := remote.targets(on, wheels):
        asked = {"arithmetic": arithmetic, "runtime": runtime, "max-p99": max_p99, "scenario": scenario}
        asked["min-cosine"] = None if min_cosine is None else str(min_cosine)
        options = [f"--{name}={value}" for name, value in asked.items() if value is not None]
        options += ["--all-runtimes"] if all_runtimes else []
        return _on_devices(devices, bundle, against, input, out, force, options, written)
    with progress() as tell:
        report = api.profile(
            bundle,
            against=against,
            input=input,
            device=on[0],
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
    return _answer(report, out)


def _on_devices(
    devices: Sequence[Target],
    bundle: Path,
    against: str | None,
    input: str | None,
    out: Path | None,
    force: bool,
    options: list[str],
    written: str,
) -> Answer:
    """The same on devices over SSH; several give one report."""
    from edgetok.api import fleet, remote

    with progress() as tell:
        if len(devices) == 1:
            report = remote.profile_on(
                devices[0], bundle, against=against, input=input, out=out, force=force, options=options,
                command=written, progress=tell,
            )  # fmt: skip
            return _answer(report, out)
        found = fleet.profile_on_all(
            devices, bundle, against=against, input=input, out=out, force=force, options=options, command=written,
            progress=tell,
        )  # fmt: skip

    def render(console: Console) -> None:
        console.print(_compared(found))
        for each in found:
            if each.error is not None:
                console.print(f"{each.name}: {each.error}", style="red", markup=False, soft_wrap=True)
        if out is not None:
            console.print(f"written to {out}: report.html, report.json, and a folder for each", markup=False)

    passed = all(each.report is not None and each.report.verdict != "fail" for each in found)
    return Answer(fleet.as_json(found), render, exit_code=int(not passed))


def _compared(found: Sequence[OnDevice]) -> Table:
    """Devices side by side."""
    numbers = ("median, ms", "p90, ms", "p99, ms", "per second", "MB")
    made = table("device", "profile", *numbers, "", right=numbers)
    for each in found:
        if each.report is None:
            made.add_row(each.name, *[""] * 6, "failed")
            continue
        latency = each.report.model.latency
        times = [f"{quantile.value:.2f}" for quantile in (latency.median, latency.p90, latency.p99)]
        more = [f"{latency.samples_per_second:.1f}", f"{each.report.model.memory.peak / 1e6:.0f}"]
        made.add_row(each.name, each.report.device, *times, *more, each.report.verdict)
    return made


def _answer(report: ProfileReport, out: Path | None) -> Answer:
    def render(console: Console) -> None:
        from edgetok.render import render as print_report

        print_report(report, console)
        if out is not None:
            files = "report.html, report.json, layers.csv, trace.json"
            console.print(f"written to {out}: {files}", markup=False, soft_wrap=True)

    data = report.model_dump(mode="json") | {"verdict": report.verdict}
    return Answer(data, render, exit_code=int(report.verdict == "fail"))
