"""Codecs chunk by chunk: a live source, or a file as if it were one, by a bundle's graphs for streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgetok.bundle import open_bundle
from edgetok.errors import ParityError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from edgetok.model import Captured
    from edgetok.tokenizer.description import Streaming
    from edgetok.tokenizer.stream import Run, Stream

    Given = Literal["waveform", "ids"]

WHOLE_TOLERANCE = 1e-4  # of the largest sample: chunks add up in another order than the whole does


@contextmanager
def stream(
    bundle: str | Path, given: Given, *, device: str = "cpu", runtime: str = "onnxruntime"
) -> Iterator[Stream]:
    """Open a stream, which lives as long as the context: push pieces of any length, then finish.

    Args:
        bundle: of a codec that was exported with `stream`.
        given: what is pushed: "waveform" (B, channels, samples) fp32, at the rate of the manifest's signal, gives ids
            (B, N, L); "ids" give the waveform.
        device: a profile of devices/ that fits this machine, "cpu", or "auto": see `edgetok.machine.resolve`.
        runtime: "onnxruntime" or "openvino".

    Raises:
        UsageError: the bundle has no graphs for streams.
    """
    from edgetok import runtimes
    from edgetok.api.loading import resolve_device
    from edgetok.verify import STREAMS

    opened = open_bundle(Path(bundle))
    resolve_device(device, runtime)
    described = opened.manifest.tokenizer
    if described is None or described.streaming is None:
        raise UsageError(f"{bundle} has no graphs for streams: export EnCodec at 24 kHz or Mimi with --stream 80ms")
    if given not in STREAMS:
        raise UsageError(f"a stream is given waveform or ids, not {given!r}")
    streaming = described.streaming
    inputs = streaming.encode_inputs if given == "waveform" else streaming.decode_inputs
    with runtimes.load(runtime)(opened.path / STREAMS[given], inputs) as model:
        yield _stream(lambda feeds: model.run(dict(feeds)), given, streaming)


def through(stream: Stream, whole: np.ndarray) -> np.ndarray:
    """All that comes out where a whole signal, waveform or ids, goes in."""
    import numpy as np

    axis = 1 if whole.dtype.kind == "f" else 2  # of time in what comes out
    return np.concatenate([*stream.push(whole), stream.finish()], axis=axis)


def check_streams(captured: Captured, original: dict[str, np.ndarray]) -> None:
    """Make sure that chunks give what the whole example gives.

    Args:
        captured: a codec with graphs for streams.
        original: the original's ids of the example; where a stream's differ, they must be near-ties.

    Raises:
        ParityError: they do not.
    """
    from functools import partial

    import numpy as np

    from edgetok.api.samples import running
    from edgetok.fidelity import check_ids

    assert captured.streams is not None and captured.decoder is not None and captured.tokenizer is not None
    streaming = captured.tokenizer.streaming
    assert streaming is not None
    encoder, decoder = captured.streams
    (waveform,) = captured.example.values()
    ids = original["ids"]
    with running(encoder.model, encoder.inputs) as run:
        got = through(_stream(lambda feeds: run(dict(feeds)), "waveform", streaming), waveform)
    judged = captured.check_near_ties and partial(captured.check_near_ties, captured.example)
    check_ids("ids of a stream", got, ids, judged)
    with running(decoder.model, decoder.inputs) as run:
        signal = through(_stream(lambda feeds: run(dict(feeds)), "ids", streaming), ids)
    (wanted,) = captured.decoder.reference({"ids": ids}).values()
    if signal.shape != wanted.shape or np.abs(signal - wanted).max() > WHOLE_TOLERANCE * np.abs(wanted).max():
        raise ParityError("a stream does not give the waveform of the whole; please report this model")


def _stream(run: Run, given: Given, streaming: Streaming) -> Stream:
    from edgetok.tokenizer.stream import Stream

    unit = streaming.hop if given == "waveform" else 1
    return Stream(run, given, streaming.chunk * unit, streaming.width(given), streaming.first * unit)
