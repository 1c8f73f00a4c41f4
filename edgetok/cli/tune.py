"""`edgetok tune`: technique, layers and counts, chosen by what this machine measures."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from edgetok.cli._console import Answer, Device, Json, Verbose, progress
from edgetok.cli.export import pixels
from edgetok.cli.sweep import print_table

if TYPE_CHECKING:
    from rich.console import Console


def command(
    source: Annotated[str, typer.Argument(help="As edgetok export takes it.")],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="The new folder; beside it OUT.journal, OUT.tune.json and OUT.tune.html."),
    ],
    reduce: Annotated[
        list[str], typer.Option("--reduce", metavar="NAMES", help="To choose from, as in tome,pitome. May be repeated.")
    ],
    target_latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="The nearest to the original that takes at most 25ms.")
    ] = None,
    min_cosine: Annotated[
        float | None, typer.Option(metavar="X", help="The fastest with at least this cosine.")
    ] = None,
    samples: Annotated[Path | None, typer.Option(metavar="DIR", help="Files such as the model will see.")] = None,
    on: Device = "cpu",
    dtype: Annotated[str, typer.Option(metavar="TYPE", help="fp32, fp16 or bf16.")] = "fp32",
    batch: Annotated[int | None, typer.Option(min=1, metavar="N", help="Fix the batch.")] = None,
    length: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of a text or a recording.")] = None,
    picture: Annotated[str | None, typer.Option("--size", metavar="N|HxW", help="Of a picture in pixels.")] = None,
    max_evaluations: Annotated[int, typer.Option(min=1, metavar="N", help="Measure at most so many.")] = 20,
    time_limit: Annotated[str | None, typer.Option(metavar="TIME", help="Begin nothing after 10m.")] = None,
    rounds: Annotated[int, typer.Option(min=9, metavar="N", help="Turns of each side; 9 or more.")] = 9,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Choose how tokens are reduced by what this machine measures, and export the choice.

    What was measured is kept in OUT.journal: a run that was stopped, or one with another target, goes on there.
    """
    from edgetok import api

    with progress(bar=True) as tell:
        found = api.tune(
            source,
            reduce=reduce,
            out=out,
            samples=samples,
            target_latency=target_latency,
            min_cosine=min_cosine,
            device=on,
            dtype=dtype,  # type: ignore[arg-type]  # api says what is accepted
            batch=batch,
            length=length,
            size=None if picture is None else pixels(picture),
            max_evaluations=max_evaluations,
            time_limit=time_limit,
            rounds=rounds,
            force=force,
            progress=tell,
        )

    def render(console: Console) -> None:
        print_table(found.table, console)
        if found.bundle is not None:
            console.print(f"next: edgetok profile {quote(str(found.bundle.path))}", markup=False, soft_wrap=True)

    data = found.table.model_dump(mode="json") | {"path": str(found.bundle.path) if found.bundle else None}
    return Answer(data, render, exit_code=0 if found.bundle else 1)
