"""`edgetok sweep`: choices that are spelt out, measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetok.cli._console import Answer, Device, Json, Verbose, progress, table
from edgetok.cli.export import pixels

if TYPE_CHECKING:
    from rich.console import Console

    from edgetok.tradeoff import Row, Tradeoff

STYLES = {"reduce": "bold green", "do not reduce here": "bold yellow", "out of reach": "bold red"}


def command(
    source: Annotated[str, typer.Argument(help="As edgetok export takes it.")],
    reduce: Annotated[
        list[str],
        typer.Option("--reduce", metavar="SPEC", help="One choice; repeated. Several at once with ' + ' in between."),
    ],
    samples: Annotated[Path | None, typer.Option(metavar="DIR", help="Files such as the model will see.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE|DIR", help="A new .json or .csv file, or a folder for the report."),
    ] = None,
    target_latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="Choose the nearest to the original that takes at most 25ms.")
    ] = None,
    min_cosine: Annotated[
        float | None, typer.Option(metavar="X", help="Choose the fastest with at least this cosine.")
    ] = None,
    on: Device = "cpu",
    dtype: Annotated[str, typer.Option(metavar="TYPE", help="fp32, fp16 or bf16.")] = "fp32",
    batch: Annotated[int | None, typer.Option(min=1, metavar="N", help="Fix the batch.")] = None,
    length: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of a text or a recording.")] = None,
    picture: Annotated[str | None, typer.Option("--size", metavar="N|HxW", help="Of a picture in pixels.")] = None,
    rounds: Annotated[int, typer.Option(min=9, metavar="N", help="Turns of each side; 9 or more.")] = 9,
    executor: Annotated[
        str, typer.Option(metavar="NAME[:ADDRESS]", help="local, or ray: on a Ray cluster that runs.")
    ] = "local",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Measure choices of techniques: latency against the unreduced model, and fidelity."""
    from edgetok import api

    with progress(bar=True) as tell:
        found = api.sweep(
            source,
            reduce=reduce,
            samples=samples,
            out=out,
            target_latency=target_latency,
            min_cosine=min_cosine,
            device=on,
            dtype=dtype,  # type: ignore[arg-type]  # api says what is accepted
            batch=batch,
            length=length,
            size=None if picture is None else pixels(picture),
            rounds=rounds,
            executor=executor,
            force=force,
            progress=tell,
        )

    def render(console: Console) -> None:
        print_table(found, console)
        if out is not None:
            files = "" if out.suffix else ": report.html, report.json, table.csv"
            console.print(f"written to {out}{files}", markup=False, soft_wrap=True)

    return Answer(found.model_dump(mode="json"), render, exit_code=int(found.verdict == "out of reach"))


def print_table(found: Tradeoff, console: Console) -> None:
    """The choices, the fastest first."""
    numbers = ("tokens", "FLOPs", "cosine", "ms", "times", "95 %")
    made = table("", *numbers, right=numbers)
    for row in found.rows:
        name = row.reduce or "unreduced"
        style = "bold green" if row.reduce and row.reduce == found.chosen else "" if row.best else "dim"
        made.add_row(f"{name} *" if row.best else name, *_figures(row), style=style)
    console.print(made)
    legend = "times: as fast as unreduced; cosine: least of any output and sample; *: none is faster and nearer"
    console.print(legend, style="dim", markup=False, highlight=False)
    if found.verdict is not None:
        console.print(f"{found.verdict}: {found.why}", style=STYLES[found.verdict], markup=False)
    if "nodes" in found.measured_on:
        console.print(f"measured on {found.measured_on['nodes']}", style="dim", markup=False, highlight=False)
    for name, why in found.measured_on.items():
        if name.startswith("left out: "):
            console.print(f"{name}: {why}", style="yellow", markup=False)
    for name, why in found.left_out.items():
        console.print(f"{name} is refused: {why}", style="yellow", markup=False)


def _figures(row: Row) -> list[str]:
    interval = "" if not row.reduce else f"{row.low:.2f}–{row.high:.2f}" if row.low and row.high else "?"
    return [
        str(row.tokens),
        f"{row.flops:.0%}",
        f"{row.cosine:.4f}",
        f"{row.milliseconds:.2f}",
        f"{row.speedup:.2f}",
        interval,
    ]
