"""`edgetok build-plugins`: the TensorRT plugin library, built on the machine that runs the engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetok.cli._console import Answer, Json, Verbose, progress


def command(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the library goes.")] = Path("."),
    headers: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Where TensorRT's or CUDA's headers are, if not where JetPack puts them."),
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Build edgetok's operators as a plugin library for TensorRT 10.3, as on JetPack 6: needs g++, no nvcc."""
    from edgetok.api.plugins import operators
    from edgetok.tensorrt import library

    with progress() as tell:
        tell("compiling", 0.0)
        built = library.build(output, operators(), headers or [])
    data = {"library": str(built), "operators": operators(), "bytes": built.stat().st_size}
    told = f"{built}: {', '.join(operators())}\ntrtexec --staticPlugins={built} --onnx=... --saveEngine=..."
    return Answer(data, lambda console: console.print(told, markup=False, highlight=False))
