"""`edgetok export`: a model becomes a bundle."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from edgetok.cli._console import Answer, Json, Verbose, pairs, progress, size, table
from edgetok.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from edgetok.bundle import Bundle
    from edgetok.manifest import Manifest


def command(
    source: Annotated[
        str, typer.Argument(help="zoo:NAME, FILE.onnx, a Hugging Face folder, or package.module:callable.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The new folder.")],
    reduce: Annotated[
        list[str] | None, typer.Option("--reduce", metavar="SPEC", help="As in tome:r=16,layers=2-11. May be repeated.")
    ] = None,
    quantize: Annotated[
        list[str] | None,
        typer.Option("--quantize", metavar="SPEC", help="As in nvfp4 or lut:bits=3,skip=head. May be repeated."),
    ] = None,
    activations: Annotated[
        str | None, typer.Option(metavar="SPEC", help="int8, fp8 or fp4, rounded in the graph: int8:skip=head.")
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Which keys attention looks at: window:size=256, or auto:mass=0.95."),
    ] = None,
    dtype: Annotated[str, typer.Option(metavar="TYPE", help="fp32, fp16 or bf16, written into the graph.")] = "fp32",
    emit: Annotated[
        str, typer.Option(metavar="TOKENS", help="full: restored at the outputs; reduced: as they are.")
    ] = "full",
    min_cosine: Annotated[
        float, typer.Option(min=-1, max=1, metavar="X", help="Least cosine with the original.")
    ] = 0.9,
    min_same_ids: Annotated[
        float, typer.Option(min=0, max=1, metavar="X", help="Least share of a tokenizer's ids that are the original's.")
    ] = 0.0,
    samples: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Check with these files. The bundle will contain them.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Fix the batch; otherwise it stays dynamic.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tokens of a text, samples of a recording.")
    ] = None,
    picture: Annotated[
        str | None, typer.Option("--size", metavar="N|HxW", help="Height and width of a picture in pixels.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--for", metavar="DEVICE", help="Refuse what cannot run there: see edgetok devices.")
    ] = None,
    stream: Annotated[
        str | None, typer.Option(metavar="TIME", help="A causal codec also takes chunks, as 80ms; in whole tokens.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Turn a model into one portable bundle, checked against the original."""
    from edgetok import api
    from edgetok.limits import milliseconds

    with progress() as tell:
        bundle = api.export(
            source,
            out=out,
            reduce=reduce or (),
            quantize=quantize or (),
            activations=activations,
            attention=attention,
            dtype=dtype,  # type: ignore[arg-type]  # api says what is accepted
            emit=emit,  # type: ignore[arg-type]
            batch=batch,
            length=length,
            size=None if picture is None else pixels(picture),
            stream=None if stream is None else milliseconds(stream),
            min_cosine=min_cosine,
            min_same_ids=min_same_ids,
            samples=samples,
            target=target,
            force=force,
            progress=lambda text: tell(text, 0.0),
        )
    data = {"path": str(bundle.path), "id": bundle.id, "manifest": bundle.manifest.model_dump(mode="json")}
    return Answer(data, lambda console: _render(bundle, console))


def pixels(text: str) -> int | tuple[int, int]:
    """Read --size: 224, or 224x320 (height x width)."""
    match = re.fullmatch(r"([1-9]\d{0,4})(?:[x×]([1-9]\d{0,4}))?", text)
    if match is None:
        raise UsageError(f"--size {text!r}: accepted is one number of pixels, 224, or height x width, 224x320")
    return (int(match[1]), int(match[2])) if match[2] else int(match[1])


def weights(manifest: Manifest) -> str:
    """How the weights are stored, in a line."""
    if not manifest.weights:
        return manifest.recipe.dtype
    count = sum(prod(each.shape) for each in manifest.weights)
    bits = sum(prod(each.shape) * each.bits_per_weight for each in manifest.weights) / count
    layers = f"{len(manifest.weights)} linear layers"
    return f"{', '.join(manifest.recipe.quantize)}: {bits:.2f} bits each in {layers}, the rest {manifest.recipe.dtype}"


def attended(manifest: Manifest) -> str:
    """Which keys attention looks at, in a line."""
    if not manifest.sparse:
        return "to all tokens"
    densities = [each.density for each in manifest.sparse]
    blocks = f"{len(densities)} blocks, {sum(densities) / len(densities):.0%} of the pairs of tokens"
    return f"{manifest.recipe.attention}: {blocks}"


def _render(bundle: Bundle, console: Console) -> None:
    manifest = bundle.manifest
    tokens = [str(manifest.tokens)]
    for step in manifest.schedule:
        behind = f" of {step.tokens_in} behind" if step.block is None else ""
        tokens.append(f"{'~' if step.dynamic else ''}{step.tokens_out}{behind}")
    rows = {
        "bundle": str(bundle.path),
        "id": bundle.id[:16],
        "source": f"{manifest.source.kind}: {manifest.source.name}"
        + (f", licence {manifest.source.licence}" if manifest.source.licence else ""),
        "reduced by": ", ".join(manifest.recipe.reduce) or "nothing",
        "tokens": " > ".join(tokens) if manifest.tokens else "no transformer blocks were recognised",
        "attention": attended(manifest),
        "weights": weights(manifest),
        "size": size(sum(file.bytes for file in manifest.files.values())),
    }
    console.print(pairs(rows))
    classifies = any(each.top1 is not None for each in manifest.fidelity)
    numbers = ("cosine", "SQNR, dB", "top-1")[: 3 if classifies else 2]
    near = table("against the original", *numbers, right=numbers)
    for each in manifest.fidelity:
        sqnr = "equal" if each.sqnr_db is None else f"{each.sqnr_db:.1f}"
        top = "" if each.top1 is None else f"{each.top1:.0%}"
        near.add_row(*(each.output, f"{each.cosine:.6f}", sqnr, top)[: 1 + len(numbers)])
    console.print(near)
    if manifest.tokenizer is not None:
        console.print(f"{manifest.tokenizer.same_ids:.2%} of its samples' ids are the original's")
    folder = quote(str(bundle.path))
    following = f"run {folder}" if manifest.tokenizer is None else f"tokenize {folder} FILE -o tokens.npz"
    console.print(f"next: edgetok {following}", markup=False, soft_wrap=True)
