"""`edgetok text-graph`: a bundle's vocabulary as a graph from a text to the model's inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetok.cli._console import Answer, Json, Verbose, pairs


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle of a model that reads text.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.onnx", help="Where the graph is written.")],
    check: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A text whose lines the graph must cut as the library does.")
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Write the vocabulary as a graph of onnxruntime-extensions, where that cuts as the library does."""
    from edgetok.api.text import text_graph
    from edgetok.preprocess.text import read_text

    texts = text_graph(bundle, out, read_text(str(check)).splitlines() if check else ())
    data = {"written": str(out), "texts": texts}
    rows = {"written": str(out), "checked": f"{texts} texts, equal to the library's ids"}
    return Answer(data, lambda console: console.print(pairs(rows)))
