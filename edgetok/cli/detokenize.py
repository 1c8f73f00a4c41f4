"""`edgetok detokenize`: ids to a picture, recording or video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetok.cli._console import Answer, Device, Json, RuntimeName, Verbose, pairs


def command(
    bundle: Annotated[Path, typer.Argument(help="The folder of the bundle that made the tokens.")],
    tokens: Annotated[Path, typer.Argument(metavar="FILE.npz", help="What edgetok tokenize wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Where the signal is written.")],
    keep: Annotated[int | None, typer.Option(metavar="N", help="Use only the first tokens, or levels.")] = None,
    on: Device = "cpu",
    runtime: RuntimeName = "onnxruntime",
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Turn the ids of a discrete tokenizer back into a picture, recording or video."""
    from edgetok import api
    from edgetok.tokenizer.tokens import read

    signal = api.detokenize(bundle, read(tokens), out, keep=keep, device=on, runtime=runtime)
    data = {"written": str(out), "shape": list(signal.shape), "min": float(signal.min()), "max": float(signal.max())}
    rows = {"written": str(out), "signal": " x ".join(map(str, signal.shape[1:]))}
    return Answer(data, lambda console: console.print(pairs(rows)))
