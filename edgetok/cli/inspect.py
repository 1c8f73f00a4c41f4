"""`edgetok inspect`: what is in a bundle or an ONNX file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from math import log2, prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetok.cli._console import Answer, Json, Verbose, pairs, progress, size, table
from edgetok.errors import CaptureError, SourceError

if TYPE_CHECKING:
    from rich.console import Console

    from edgetok.tokenizer.description import Description

OPERATORS = 12  # shown; --json has them all
MOST_LISTED = 6  # codebooks, as well


def command(
    model: Annotated[Path, typer.Argument(metavar="BUNDLE|ONNX", help="A bundle's folder, or an .onnx file.")],
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Show blocks, tokens, operators and sizes, and what would keep tokens from being reduced."""
    with progress() as tell:
        tell(f"reading {model}", 0.0)
        data = _bundle(model) if model.is_dir() else _file(model)
    return Answer(data, lambda console: _render(data, console))


def _bundle(path: Path) -> dict[str, Any]:
    from edgetok import api
    from edgetok.bundle import is_bundle, open_bundle
    from edgetok.inspection import read
    from edgetok.tokenizer.usage import CodebookUse, codebook_use

    if not is_bundle(path):
        raise SourceError(f"{path} is a folder, but not a bundle: inspect takes a bundle's folder or an .onnx file")
    bundle = open_bundle(path)
    described = bundle.manifest.tokenizer
    codebooks: tuple[CodebookUse, ...] = ()
    if described is not None:
        codebooks = codebook_use(bundle.samples("expected")["ids"], described.sizes)
    return {
        "path": str(path),
        "codebooks": [each.model_dump() for each in codebooks],
        "bytes": sum(file.bytes for file in bundle.manifest.files.values()),
        "contents": asdict(read(bundle.model_path)),
        "tokens_per_block": api.tokens_per_block(bundle),
        "id": bundle.id,
        "manifest": bundle.manifest.model_dump(mode="json"),
    }


def _file(path: Path) -> dict[str, Any]:
    from edgetok.exporters.sources import capture
    from edgetok.inspection import Blocks, find_transformer, read

    data: dict[str, Any] = {"path": str(path), "contents": asdict(read(path)), "bytes": path.stat().st_size}
    try:
        blocks = find_transformer(capture(str(path)).model)
    except CaptureError as error:
        blocks = Blocks(0, None, 0, "unknown", str(error))
    return data | {"transformer": asdict(blocks)}


def _render(data: dict[str, Any], console: Console) -> None:
    contents, manifest = data["contents"], data.get("manifest")
    weights = ", ".join(f"{size(count)} {kind}" for kind, count in contents["weights"].items())
    rows = {"bundle" if manifest else "file": f"{data['path']}, {size(data['bytes'])}"}
    if manifest:
        source, recipe = manifest["source"], manifest["recipe"]
        rows |= {
            "id": data["id"],
            "source": f"{source['kind']}: {source['name']}, licence {source['licence'] or 'unknown'}",
            "reduced by": ", ".join(recipe["reduce"]) or "nothing",
            "attends": recipe["attention"] or "to all tokens",
            "quantised by": ", ".join(recipe["quantize"]) or "nothing",
            "against it": _fidelity(manifest["fidelity"]),
            "emits": f"{recipe['emit']} tokens, {recipe['dtype']}",
        }
    if manifest and (described := manifest.get("tokenizer")):
        rows["tokenizer"] = _tokenizer(described, manifest)
    rows |= {
        "weights": f"{contents['parameters'] / 1e6:.2f} M numbers: {weights}",
        "opset": f"{contents['opset']}, IR {contents['ir_version']}",
        "inputs": "\n".join(f"{name}: {kind}" for name, kind in contents["inputs"].items()),
        "outputs": "\n".join(f"{name}: {kind}" for name, kind in contents["outputs"].items()),
    }
    if books := data.get("codebooks"):
        rows["codes used"] = _used(books)
    if blocks := data.get("transformer"):
        tokens = "tokens not fixed" if blocks["tokens"] is None else f"{blocks['tokens']} tokens"
        rows["blocks"] = f"{blocks['count']}, {tokens}, {blocks['prefix']} of them prefix; mask: {blocks['mask']}"
        rows["reduction"] = f"refused: {blocks['refusal']}" if blocks["refusal"] else "possible behind every block"
    elif not data["tokens_per_block"]:
        rows["blocks"] = "none recognised"
    console.print(pairs(rows))
    if data.get("tokens_per_block"):
        _blocks(data["tokens_per_block"], manifest["schedule"] if manifest else [], console)
    if manifest and manifest["weights"]:
        _weights(manifest["weights"], console)
    shown = list(contents["operators"].items())
    made = table("operator", "nodes", right=("nodes",))
    for name, count in shown[:OPERATORS]:
        made.add_row(name, str(count))
    if len(shown) > OPERATORS:
        made.add_row(f"{len(shown) - OPERATORS} others", str(sum(count for _, count in shown[OPERATORS:])), style="dim")
    console.print(made)


def _tokenizer(described: dict[str, Any], manifest: dict[str, Any]) -> str:
    """What is made of what, and at which rate: of a piece as large as the bundle's samples are."""
    from edgetok.tokenizer.description import Description
    from edgetok.tokenizer.usage import told_rate

    known = Description.model_validate(described)
    sizes = ", ".join(f"{count} id{'s'[: count > 1]} of {size}" for size, count in Counter(known.sizes).items())
    levels = f"a token is {sizes}: {sum(map(log2, known.sizes)):.4g} bits"
    kept = f"; the first {known.keep} suffice" if known.keep else ""
    rate = f"{told_rate(known.rate, known.signal.unit)} of its samples, {_pace(known)}" if known.rate else "no samples"
    way = "ids and back" if known.decode_inputs else "ids; there is no decoder"
    lines = [f"{known.family}: a {known.signal.kind} to {way}", f"{levels}{kept}", rate]
    if (cut := known.streaming) is not None and known.signal.kind == "waveform":
        each, first = (count * cut.hop / known.signal.rate * 1e3 for count in (cut.chunk, cut.first))
        lines.append(f"streams in chunks of {each:.4g} ms, the first of {first:.4g} ms")
    return "\n".join(lines)


def _pace(known: Description) -> str:
    """How many tokens a unit of the signal has, or how many units a token."""
    tokens, unit = known.rate / known.layout.bits, known.signal.unit
    return f"{tokens:.4g} tokens a {unit}" if tokens >= 1 else f"a token for {1 / tokens:.4g} {unit}s"


def _used(books: list[dict[str, Any]]) -> str:
    """Codes that occur and the entropy of their counts; of many codebooks, the range."""
    used, entropy = ([book[name] for book in books] for name in ("used", "entropy"))
    if len(books) <= MOST_LISTED:
        each = "\n".join(f"{book['used']} of {book['size']}, entropy {book['entropy']:.2f} bits" for book in books)
    else:
        sizes = f"{min(used)} to {max(used)} of {max(book['size'] for book in books)} in each of {len(books)} codebooks"
        each = f"{sizes}\nentropy {min(entropy):.2f} to {max(entropy):.2f} bits"
    return f"{each}\nover {books[0]['ids']} tokens of its samples"


def _fidelity(outputs: list[dict[str, Any]]) -> str:
    return "\n".join(f"{each['output']}: cosine {each['cosine']:.6f}" for each in outputs) or "not compared"


def _weights(weights: list[dict[str, Any]], console: Console) -> None:
    """A line per kind of weight: how it is stored, and the worst of its layers."""
    made = table(
        "weights", "layers", "block", "scales", "bits", "SQNR, dB", right=("layers", "block", "bits", "SQNR, dB")
    )
    kinds: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for each in weights:
        kinds.setdefault((each["format"], each["block"], each["scales"]), []).append(each)
    for (name, block, scales), layers in kinds.items():
        count = sum(prod(each["shape"]) for each in layers)
        bits = sum(prod(each["shape"]) * each["bits_per_weight"] for each in layers) / count
        errors = [each["sqnr_db"] for each in layers if each["sqnr_db"] is not None]
        worst = f"{min(errors):.1f} to {max(errors):.1f}" if errors else "equal"
        made.add_row(name, str(len(layers)), str(block), scales, f"{bits:.2f}", worst)
    console.print(made)
    console.print("plain onnxruntime expands them to fp32 at loading; edgetok run keeps them packed", style="dim")


def _blocks(tokens: list[tuple[int, int]], schedule: list[dict[str, Any]], console: Console) -> None:
    """A line per block, with a bar as long as the share of the tokens that is left."""
    by = {step["block"]: step["technique"] for step in schedule}
    about = min((step["block"] for step in schedule if step["dynamic"]), default=len(tokens))
    made = table("block", "in", "out", "by", "", right=("block", "in", "out"))
    for block, (before, after) in enumerate(tokens):
        bar = "█" * max(1, round(30 * after / tokens[0][0]))
        marks = ("~" if block > about else "", "~" if block >= about else "")
        made.add_row(str(block), f"{marks[0]}{before}", f"{marks[1]}{after}", by.get(block, ""), f"[cyan]{bar}[/]")
    for step in schedule:
        if step["block"] is None:
            made.add_row("behind", str(step["tokens_in"]), str(step["tokens_out"]), step["technique"], "")
    console.print(made)
