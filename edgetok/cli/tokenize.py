"""`edgetok tokenize`: a picture, recording, video or text to ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetok.cli._console import Answer, Device, Json, RuntimeName, Verbose, pairs
from edgetok.cli._console import size as spelt

if TYPE_CHECKING:
    from rich.console import Console


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle of a tokenizer, or of a model that reads text.")],
    file: Annotated[Path, typer.Argument(help="A picture, recording, video or text.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.npz", help="Where the ids are written.")],
    keep: Annotated[
        int | None, typer.Option(metavar="N", help="Only the first tokens, or levels, where the tokenizer can.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(metavar="NAME", help="Texts: greedy, fewest, longest-first and others.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Chunk by chunk, by a codec that was exported with --stream.")
    ] = False,
    on: Device = "cpu",
    runtime: RuntimeName = "onnxruntime",
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Turn a picture, recording or video into the ids of a discrete tokenizer, or a text into those of a vocabulary."""
    from edgetok.api.text import has_vocabulary
    from edgetok.bundle import open_bundle
    from edgetok.errors import UsageError

    described = open_bundle(bundle).manifest.tokenizer
    if described is None and has_vocabulary(open_bundle(bundle)):
        if keep is not None or stream:
            raise UsageError("--keep and --stream are for pictures, recordings and videos: a text is taken whole")
        return _text(bundle, file, out, mode)
    if mode is not None:
        raise UsageError(f"--mode {mode} is for texts, and {bundle} reads none")
    return _signal(bundle, file, out, keep, stream, on, runtime)


def _text(bundle: Path, file: Path, out: Path, mode: str | None) -> Answer:
    from edgetok.api.text import tokenize_text
    from edgetok.preprocess.text import read_text
    from edgetok.tokenizer.tokens import write

    tokens = tokenize_text(bundle, read_text(str(file)), mode=mode)
    write(tokens, out)
    each = tokens.extent[0] / tokens.count
    data = {
        "bundle": tokens.bundle, "file": str(file), "written": str(out), "bytes": tokens.extent[0],
        "tokens": tokens.count, "bytes_per_token": each, "mode": mode,
    }  # fmt: skip
    rows = {"tokens": f"{tokens.count}, {each:.2f} bytes of text each", "written": str(out)}
    return Answer(data, lambda console: console.print(pairs(rows)))


def _signal(bundle: Path, file: Path, out: Path, keep: int | None, stream: bool, on: str, runtime: str) -> Answer:
    from math import log2

    from edgetok import api
    from edgetok.bundle import open_bundle
    from edgetok.tokenizer.tokens import write
    from edgetok.tokenizer.usage import codebook_use

    tokens = api.tokenize(bundle, file, keep=keep, stream=stream, device=on, runtime=runtime)
    write(tokens, out)
    described = open_bundle(bundle).manifest.tokenizer
    assert described is not None
    ids = tokens.arrays["ids"]
    sizes = described.sizes[: ids.shape[2]] if ids.ndim == 3 else described.sizes
    units = described.signal.units(tokens.extent)
    data: dict[str, Any] = {
        "bundle": tokens.bundle,
        "file": str(file),
        "written": str(out),
        "extent": list(tokens.extent),
        "ids": list(ids.shape),
        "tokens": tokens.count,
        "bits": tokens.count * sum(map(log2, sizes)),
        "unit": described.signal.unit,
        "codes_used": sum(book.used for book in codebook_use(ids, sizes)) / sum(sizes),
        "note": tokens.note,
    }
    data["bits_per_unit"] = data["bits"] / units
    return Answer(data, lambda console: _render(data, out, console))


def _render(data: dict[str, Any], out: Path, console: Console) -> None:
    from edgetok.tokenizer.usage import told_rate

    each = told_rate(data["bits_per_unit"], data["unit"])
    rows = {
        "tokens": f"{data['tokens']}, {spelt(round(data['bits'] / 8))} of ids, {each}",
        "codes used": f"{data['codes_used']:.1%} of those there are",
        "written": f"{data['written']}, {spelt(out.stat().st_size)}",
    }
    console.print(pairs(rows | ({"note": data["note"]} if data["note"] else {})))
