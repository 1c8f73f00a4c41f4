"""Tokenize and detokenize: signals to the ids of a discrete tokenizer, and back."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2, prod
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.api import streaming
from edgetok.api.loading import load, resolve_device
from edgetok.bundle import Bundle, open_bundle
from edgetok.errors import InputError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from edgetok.manifest import Dtype, Fidelity
    from edgetok.model import Captured
    from edgetok.tokenizer.description import Description
    from edgetok.tokenizer.tokens import Tokens

    Arrays = dict[str, np.ndarray]


def tokenize(
    bundle: str | Path,
    file: str | Path,
    *,
    keep: int | None = None,
    stream: bool = False,
    device: str = "cpu",
    runtime: str = "onnxruntime",
) -> Tokens:
    """Turn a picture, recording or video into ids.

    Args:
        bundle: of a discrete tokenizer.
        file: what is tokenized.
        keep: the first so many tokens of each piece, or levels of each token, where the tokenizer allows that.
        stream: chunk by chunk, where the bundle has the graphs for it; the ids are the same.
        device: a profile of devices/ that fits this machine, "cpu", or "auto": see `edgetok.machine.resolve`.
        runtime: "onnxruntime" or "openvino".

    Raises:
        InputError: the file is not of the kind that the tokenizer takes.
        UsageError: the bundle is no tokenizer, or it keeps all or nothing.
    """
    import numpy as np

    from edgetok.tokenizer.tokens import Tokens

    opened = open_bundle(Path(bundle))
    described = _described(opened)
    check_keep(described, keep)
    whole = described.signal.read(str(file))
    given = opened.manifest.inputs[0].name
    if stream:
        with streaming.stream(bundle, "waveform", device=device, runtime=runtime) as chunks:
            made = [{"ids": streaming.through(chunks, whole.array)}]
    else:
        with load(bundle, device=device, runtime=runtime) as model:
            made = [model.run({given: piece}) for piece in described.signal.cut(whole.array)]
    arrays = {name: np.concatenate([each[name] for each in made]) for name in made[0]}
    arrays["ids"] = _cut(arrays["ids"], described, keep)
    return Tokens(arrays, tuple(whole.array.shape[2:]), opened.id, whole.note)


def detokenize(
    bundle: str | Path,
    tokens: Tokens,
    file: str | Path | None = None,
    *,
    keep: int | None = None,
    stream: bool = False,
    device: str = "cpu",
    runtime: str = "onnxruntime",
) -> np.ndarray:
    """Turn ids back into a signal.

    Args:
        bundle: the one that made them.
        tokens: as `tokenize` gives them, or `edgetok.tokenizer.tokens.read` reads them.
        file: where the signal is written.
        keep: use the first so many tokens or levels only.
        stream: chunk by chunk, where the bundle has the graphs for it.
        device: a profile of devices/ that fits this machine, "cpu", or "auto": see `edgetok.machine.resolve`.
        runtime: "onnxruntime" or "openvino".

    Returns:
        (1, channels, ...) fp32.

    Raises:
        InputError: tokens of another bundle, ids outside the codebook, or tokens that do not make such a signal.
        OutputError: the file cannot be written.
    """
    from edgetok import runtimes
    from edgetok.tokenizer.head import check_ids

    opened = open_bundle(Path(bundle))
    described = _described(opened)
    resolve_device(device, runtime)
    check_keep(described, keep)
    if tokens.bundle != opened.id:
        raise InputError(f"tokens of the bundle {tokens.bundle[:12]}, and this is {opened.id[:12]}: use theirs")
    arrays = {**tokens.arrays, "ids": _filled(_cut(tokens.arrays["ids"], described, keep), described)}
    if missing := {spec.name for spec in described.decode_inputs} - set(arrays):
        raise InputError(f"the tokens lack {', '.join(missing)}, which the decoder needs beside the ids")
    check_ids(arrays["ids"], described.layout)
    _check_places(arrays, tokens.extent, described)
    if stream:
        with streaming.stream(bundle, "ids", device=device, runtime=runtime) as chunks:
            pieces = [streaming.through(chunks, arrays["ids"])]
    else:
        names, pieces = [spec.name for spec in described.decode_inputs], []
        with runtimes.load(runtime)(opened.decoder_path, described.decode_inputs) as decoder:
            for i in range(len(arrays["ids"])):
                (piece,) = decoder.run({name: arrays[name][i : i + 1] for name in names}).values()
                pieces.append(piece)
    signal = described.signal.join(pieces, tokens.extent)
    if described.signal.kind == "picture" and signal.shape[2:] != tokens.extent:
        raise InputError(
            f"the tokens make a picture of {signal.shape[2]}x{signal.shape[3]}, and say that they were made of one of "
            f"{tokens.extent[0]}x{tokens.extent[1]}: edgetok tokenize writes them"
        )
    if file is not None:
        described.signal.save(signal, Path(file))
    return signal


def described_with_decoder(
    captured: Captured, original: Mapping[str, np.ndarray], expected: Arrays, dtype: Dtype
) -> tuple[Description, tuple[Fidelity, ...], dict[str, Arrays]]:
    """Check a tokenizer's decoder against its original, type it, and complete what its bundle says of it.

    Returns:
        The description, how near what is decoded of the expected ids comes to what the original makes of its own, and
        the sample sets that are added: what is decoded.

    Raises:
        ParityError: the captured decoder does not compute what the original does.
    """
    from dataclasses import replace

    from edgetok.api.samples import run_graph
    from edgetok.fidelity import check_exact, compare_outputs, same_ids
    from edgetok.retype import retype

    assert captured.tokenizer is not None
    ids = expected["ids"]
    extent = captured.example[captured.inputs[0].name].shape[2:]
    bits = ids.shape[1] * sum(map(log2, captured.tokenizer.sizes))
    found = {
        "tokens": ids.shape[1],
        "rate": round(bits / captured.tokenizer.signal.units(extent), 6),
        "same_ids": round(same_ids(ids, original["ids"]), 6),
    }
    if captured.decoder is None:
        return captured.tokenizer.model_copy(update=found), (), {}
    decoder = captured.decoder
    fixed = decoder.inputs[0].shape[0]
    count = fixed if isinstance(fixed, int) else len(ids)
    feeds, own = ({spec.name: side[spec.name][:count] for spec in decoder.inputs} for side in (expected, original))
    check_exact(run_graph(decoder.model, decoder.inputs, feeds), decoder.reference(feeds))
    retype(decoder.model, dtype)
    got = run_graph(decoder.model, decoder.inputs, feeds)
    near = compare_outputs(got, decoder.reference(own))  # there and back: what other ids make counts
    inputs = tuple(replace(spec, preprocess=None) for spec in decoder.inputs)
    found |= {"decode_inputs": inputs, "decode_outputs": decoder.outputs}
    return captured.tokenizer.model_copy(update=found), near, {"decoded": got}


def check_keep(described: Description, keep: int | None) -> None:
    """Make sure that a tokenizer can do with fewer.

    Raises:
        UsageError: it cannot, or not with as few.
    """
    if keep is None:
        return
    if described.keep is None:
        raise UsageError(f"the tokenizer {described.family!r} needs all of its tokens: leave --keep out")
    most = f" and at most {len(described.sizes)}" if described.keep == "levels" else ""
    if keep < 1 or (described.keep == "levels" and keep > len(described.sizes)):
        raise UsageError(f"--keep {keep}: at least 1{most} {described.keep} are kept")


def _check_places(arrays: Arrays, extent: tuple[int, ...], described: Description) -> None:
    """Make sure that ids lie where the file says: axes of the signal, and a picture's rows and columns of tokens.

    Raises:
        InputError: they do not.
    """
    axes = len(described.decode_outputs[0].shape) - 2
    if len(extent) != axes:
        kind = described.signal.kind
        raise InputError(f"the tokens say that they are of a signal of {len(extent)} axes: a {kind} has {axes}")
    grid, count = arrays.get("grid"), arrays["ids"].shape[1]
    sides = [] if grid is None else grid.reshape(len(grid), -1).tolist()
    if grid is not None and any(min(each) < 1 or prod(each) != count for each in sides):
        raise InputError(f"a grid of {' x '.join(map(str, grid.ravel()[:2]))} tokens: there are {count}")


def _described(bundle: Bundle) -> Description:
    if bundle.manifest.tokenizer is None:
        raise UsageError(f"{bundle.path} is no discrete tokenizer: edgetok run runs it")
    return bundle.manifest.tokenizer


def _cut(ids: np.ndarray, described: Description, keep: int | None) -> np.ndarray:
    if keep is None:
        return ids
    return ids[:, :keep] if described.keep == "tokens" else ids[..., :keep]


def _filled(ids: np.ndarray, described: Description) -> np.ndarray:
    """Levels that were left out, as -1."""
    import numpy as np

    levels = len(described.sizes)
    if described.keep != "levels" or ids.ndim != 3 or ids.shape[2] >= levels:
        return ids
    return np.pad(ids, ((0, 0), (0, 0), (0, levels - ids.shape[2])), constant_values=-1)
