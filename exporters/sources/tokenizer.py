"""A discrete tokenizer becomes two graphs, from a signal to ids and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetok.errors import SourceError
from edgetok.model import Captured, Origin, TensorSpec
from edgetok.preprocess.huggingface import stored_picture, stored_rate
from edgetok.tokenizer.description import Description, Streaming
from edgetok.tokenizer.family import Parts, load
from edgetok.tokenizer.picture import Picture
from edgetok.tokenizer.waveform import Waveform

if TYPE_CHECKING:
    import torch

    from edgetok.exporters.sources import CaptureOptions

MOST_TOKENS = 4096  # of a stream's chunk: Mimi's five minutes, EnCodec's one


def capture_tokenizer(
    model: Any, family: str, origin: Origin, options: CaptureOptions, folder: Path | None = None
) -> Captured:
    """Export a model of a family of exporters/tokenizers/; its folder says how files are read, where there is one.

    Raises:
        SourceError: what was asked for does not fit the family.
        CaptureError: torch cannot export it.
    """
    import torch

    from edgetok.exporters.sources.pytorch import capture_module

    size = (options.size, options.size) if isinstance(options.size, int) else options.size
    make = partial(load(family).parts, model.eval().requires_grad_(False), options.length)
    parts: Parts = make(size)
    if folder is not None:
        parts = _as_stored(parts, folder, make if size is None else None)
    if options.stream is not None and parts.streams is None:
        raise SourceError(f"the family {family!r} does not stream as it is here: it is not causal; leave --stream out")
    batch = options.batch or 2
    kind: str = parts.signal.kind
    signal = torch.from_numpy(parts.signal.example((batch, *parts.shape)).astype(np.float32))
    encoder = capture_module(parts.encode, {kind: signal}, origin, batch=options.batch, free={kind: parts.free})
    encoder.inputs = tuple(_with_preprocess(spec, parts) for spec in encoder.inputs)
    encoder.check_near_ties = partial(_check_near_ties, parts.encode, family)
    outputs = {name: torch.from_numpy(array) for name, array in encoder.reference(encoder.example).items()}
    decoder = None
    if parts.decode is not None:
        free = {"ids": {1: "tokens"}} if parts.free_tokens else {}
        most = {}
        if parts.most_tokens is not None:
            most = {"tokens": parts.most_tokens}
            outputs["ids"] = outputs["ids"][:, : parts.most_tokens - 1]  # at the bound itself torch would fix the axis
        decoder = capture_module(parts.decode, outputs, origin, batch=options.batch, free=free, most=most)
    encoder.decoder = decoder
    streaming = None
    if options.stream is not None:
        encoder.streams, streaming = _streams(parts, origin, options, options.stream)
    encoder.tokenizer = Description(
        family=family, signal=parts.signal, sizes=parts.layout.sizes, skips=parts.layout.skips, keep=parts.keep,
        streaming=streaming,
    )  # fmt: skip
    return encoder


def _check_near_ties(encode: torch.nn.Module, family: str, feeds: dict[str, np.ndarray], ids: np.ndarray) -> None:
    """Make sure that each id of a signal is the best or a near-tie: see `edgetok.tokenizer.near_ties`."""
    import torch

    from edgetok.tokenizer import near_ties

    (signal,) = map(torch.from_numpy, feeds.values())
    near_ties.check(load(family).searches, encode, signal, torch.from_numpy(ids))


def _as_stored(parts: Parts, folder: Path, make: Callable[[tuple[int, int]], Parts] | None) -> Parts:
    """The same, its files read as preprocessor_config.json says: size, mean and std, or the sampling rate.

    Args:
        parts: as the family has them.
        folder: of the source.
        make: makes the parts for another size; None where the user gave one.

    Raises:
        SourceError: the file is malformed, or its size is none that the family takes.
    """
    signal = parts.signal
    if isinstance(signal, Waveform):
        return replace(parts, signal=signal.model_copy(update={"rate": stored_rate(folder, signal.rate)}))
    if not isinstance(signal, Picture):
        return parts
    read = stored_picture(folder, signal.preprocess)
    if read.size != signal.preprocess.size:
        if make is None:
            read = read.resized(*signal.preprocess.size)
        else:
            parts = make(read.size)
            if parts.shape[1:] != read.size:
                raise SourceError(f"preprocessor_config.json asks for {read.size}: the model takes {parts.shape[1:]}")
    return replace(parts, signal=signal.model_copy(update={"preprocess": read}))


def _streams(
    parts: Parts, origin: Origin, options: CaptureOptions, milliseconds: float
) -> tuple[tuple[Captured, Captured], Streaming]:
    """The graphs for one chunk of a stream, as many whole tokens as the time needs, and how they are run."""
    import torch

    from edgetok.exporters.sources.pytorch import capture_module
    from edgetok.modules.memory import Stream

    assert parts.streams is not None and isinstance(parts.signal, Waveform) and parts.decode is not None
    hop, rate, least = parts.streams.hop, parts.signal.rate, parts.streams.least
    tokens = max(1, ceil(milliseconds * rate / 1000 / hop))
    if tokens > MOST_TOKENS:
        raise SourceError(f"chunks of {milliseconds:g} ms: at most {MOST_TOKENS * hop / rate:g} s are accepted")
    length = max(tokens, least, 2)  # of the example: torch would fix an axis of one
    batch = options.batch or 2
    waveform = torch.from_numpy(parts.signal.example((batch, parts.signal.channels, length * hop)).astype(np.float32))
    ids = torch.zeros((batch, length, len(parts.layout.sizes)), dtype=torch.int64)

    def one(part: torch.nn.Module, chunk: dict[str, torch.Tensor], free: dict[str, dict[int, str]]) -> Captured:
        of = Stream(part).eval()
        return capture_module(of, chunk | of.start(chunk), origin, batch=options.batch, free=free)

    encoder = one(parts.encode, {"waveform": waveform}, {"waveform": {2: "samples"}})
    decoder = one(parts.decode, {"ids": ids}, {"ids": {1: "tokens"}})
    streaming = Streaming(
        chunk=tokens, first=max(tokens, least), hop=hop, encode_inputs=encoder.inputs, decode_inputs=decoder.inputs
    )
    return (encoder, decoder), streaming


def capture_shipped(folder: Path, origin: Origin, described: dict[str, Any], options: CaptureOptions) -> Captured:
    """A tokenizer that comes as encode.onnx and decode.onnx, without torch."""
    import onnx_ir as ir

    from edgetok import graph as g
    from edgetok.exporters.sources.onnx_file import reference_of

    if options.length is not None or options.size is not None:
        raise SourceError(f"{origin.name} takes signals of any size: leave --length and --size out")
    description = Description.model_validate(described)
    shape = {"picture": (3, 96, 128), "waveform": (1, 32000), "video": (3, 16, 128, 128)}[description.signal.kind]
    signal = description.signal.example((options.batch or 2, *shape)).astype(np.float32)

    def captured(name: str, feeds: dict[str, np.ndarray]) -> Captured:
        model = ir.load(folder / name)
        inputs, outputs = g.specs(model.graph.inputs), g.specs(model.graph.outputs)
        return Captured(model, inputs, outputs, origin, reference_of(folder / name), feeds)

    (given,) = g.specs(ir.load(folder / "encode.onnx").graph.inputs)
    encoder = captured("encode.onnx", {given.name: signal})
    encoder.decoder = captured("decode.onnx", encoder.reference(encoder.example))
    encoder.tokenizer = description
    return encoder


def _with_preprocess(spec: TensorSpec, parts: Parts) -> TensorSpec:
    """Pictures of one size can be given to `run` as well."""
    if isinstance(parts.signal, Picture) and not parts.signal.free:
        return replace(spec, preprocess=parts.signal.preprocess)
    return spec
