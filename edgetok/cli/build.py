"""`edgetok build`: what a device's TensorRT needs of a bundle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetok.cli._console import Answer, Json, Verbose, progress

if TYPE_CHECKING:
    from rich.console import Console

    from edgetok.api.building import Build


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    target: Annotated[str, typer.Option("--for", metavar="DEVICE", help="A device: see edgetok devices.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The folder that is written.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a build that is there.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Make what a device's TensorRT needs of a bundle, and say what must be done on the device itself."""
    from edgetok import api

    with progress(bar=True) as tell:
        built = api.build(bundle, target=target, out=out, force=force, progress=tell)
    data = {**asdict(built), "path": str(built.path)}
    return Answer(data, lambda console: _render(built, console))


def _render(built: Build, console: Console) -> None:
    from rich.padding import Padding
    from rich.text import Text

    for way in built.ways:
        console.print(Text.assemble((way.form, "bold"), (f"  {way.runtime} on {built.device}", "dim")))
        for file in way.made:
            console.print(Text(f"  {built.path / file}"))
        if way.plugins:
            console.print(Text(f"  plugins: {', '.join(f'{count} {name}' for name, count in way.plugins.items())}"))
        if way.missing:
            console.print(Padding(Text(way.missing, style="yellow"), (0, 0, 0, 2)))
        for line in way.to_do:
            console.print(Text(f"  there: {line}", style="green"), soft_wrap=True)
    if any(way.to_do for way in built.ways):
        where = f"there: on {built.device}, in a folder that the bundle and {built.path.name} were copied into"
        console.print(Text(where), soft_wrap=True)
