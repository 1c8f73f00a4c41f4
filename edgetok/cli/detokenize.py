"""`edgetok detokenize`: ids to a picture, recording, video or text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetok.cli._console import Answer, Device, Json, RuntimeName, Verbose, pairs
from edgetok.errors import OutputError


def command(
    bundle: Annotated[Path, typer.Argument(help="The folder of the bundle that made the tokens.")],
    tokens: Annotated[Path, typer.Argument(metavar="FILE.npz", help="What edgetok tokenize wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Where the signal is written.")],
    keep: Annotated[int | None, typer.Option(metavar="N", help="Use only the first tokens, or levels.")] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Chunk by chunk, by a codec that was exported with --stream.")
    ] = False,
    on: Device = "cpu",
    runtime: RuntimeName = "onnxruntime",
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Turn ids back into a picture, recording, video or text."""
    from edgetok import api
    from edgetok.api.text import detokenize_text, has_vocabulary
    from edgetok.bundle import open_bundle
    from edgetok.tokenizer.tokens import read

    opened = open_bundle(bundle)
    if opened.manifest.tokenizer is None and has_vocabulary(opened):
        text = detokenize_text(bundle, read(tokens))
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
        told = {"written": str(out), "characters": len(text)}
        return Answer(told, lambda console: console.print(pairs({name: str(value) for name, value in told.items()})))
    signal = api.detokenize(bundle, read(tokens), out, keep=keep, stream=stream, device=on, runtime=runtime)
    data = {"written": str(out), "shape": list(signal.shape), "min": float(signal.min()), "max": float(signal.max())}
    rows = {"written": str(out), "signal": " x ".join(map(str, signal.shape[1:]))}
    return Answer(data, lambda console: console.print(pairs(rows)))
