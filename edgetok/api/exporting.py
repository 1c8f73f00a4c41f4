"""Export: from a source to a bundle that is checked against the original."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from edgetok.bundle import Bundle, check_output, write_bundle
from edgetok.errors import UsageError
from edgetok.manifest import Dtype, Emit

if TYPE_CHECKING:
    import numpy as np

    from edgetok import attention as sparse_attention
    from edgetok import technique
    from edgetok.api.samples import OnSamples
    from edgetok.device import Device
    from edgetok.lowbit import activations as rounding
    from edgetok.lowbit import quantiser
    from edgetok.manifest import Fidelity
    from edgetok.model import Captured
    from edgetok.tokenizer.description import Description
    from edgetok.transform import Transformed

    Arrays = dict[str, np.ndarray]
    Say = Callable[[str], None]


def export(
    source: str,
    *,
    out: str | Path,
    reduce: Sequence[str] = (),
    quantize: Sequence[str] = (),
    activations: str | None = None,
    attention: str | None = None,
    dtype: Dtype = "fp32",
    emit: Emit = "full",
    batch: int | None = None,
    length: int | None = None,
    size: int | tuple[int, int] | None = None,
    stream: float | None = None,
    min_cosine: float = 0.9,
    min_same_ids: float = 0.0,
    samples: str | Path | None = None,
    target: str | None = None,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Bundle:
    """Turn a model into a bundle that is checked against the original.

    Args:
        source: `zoo:NAME`, an .onnx file, a Hugging Face folder, or `package.module:callable`.
        out: the bundle's folder.
        reduce: techniques, as in "tome:r=16,layers=2-11".
        quantize: quantisers, as in "nvfp4" or "lut:bits=3,skip=head"; a layer goes to the first that takes it.
        activations: what feeds products is rounded in the graph to "int8", "fp8", "fp4" or "llm-fp4", as in
            "int8:skip=head".
        attention: which keys attention looks at, as in "window:size=256,global=1", or "auto:mass=0.95", which finds on
            the samples how many; None for all.
        dtype: "fp32", "fp16" or "bf16".
        emit: "full" restores the tokens at the outputs; "reduced" gives out the reduced ones with their map.
        batch: fixed batch size; None leaves it dynamic.
        length: tokens of a text or samples of a waveform.
        size: height and width of an image in pixels.
        stream: milliseconds of a chunk, rounded up to whole tokens: a causal codec also gets graphs that take a
            recording chunk by chunk, with their state in and out.
        min_cosine: least cosine of each pooled output with the original's.
        min_same_ids: of a discrete tokenizer, the least share of the samples' ids that are the original's.
        samples: a folder of pictures, recordings, texts or .npz files that the bundle is checked with, and carries.
        target: a profile of devices/: what cannot run there is refused before it is made.
        force: replace a bundle that is there.
        progress: told what is being done.

    Raises:
        EdgetokError: see edgetok/errors.py.
    """
    from functools import partial

    from edgetok import feasibility
    from edgetok.api.samples import OnSamples, run_graph
    from edgetok.exporters.sources import CaptureOptions, capture
    from edgetok.fidelity import check_exact, check_same_ids
    from edgetok.fingerprint import cpu_features, tool_versions
    from edgetok.graph import specs as tensor_specs
    from edgetok.manifest import BuiltOn, Manifest, Recipe
    from edgetok.transform import sample_inputs

    say = progress or (lambda _: None)
    asked = _asked(reduce, quantize, activations, attention, dtype, emit, target)
    if stream is not None and not asked.nothing:
        raise UsageError("--stream is for a codec as it is, in fp32: leave what reduces, quantises and types it out")
    check_output(Path(out), force)
    say(f"capturing {source}")
    captured = capture(source, CaptureOptions(batch=batch, length=length, size=size, stream=stream))
    if min_same_ids and captured.tokenizer is None:
        raise UsageError(f"{source} is no discrete tokenizer that edgetok knows: leave --min-same-ids out")
    if stream is not None and captured.streams is None:
        raise UsageError(f"{source} does not stream: EnCodec at 24 kHz and Mimi do; leave --stream out")
    carried = next(iter(captured.files.values())).parent if captured.files else Path(out)
    feeds = sample_inputs(Path(samples) if samples else None, captured.inputs, carried, captured.example)
    say("running the original")
    on_samples = OnSamples(captured.inputs, feeds, captured.reference(feeds))
    say("checking the captured graph")
    judged = captured.check_near_ties and partial(captured.check_near_ties, feeds)
    for note in check_exact(run_graph(captured.model, captured.inputs, feeds), on_samples.original, judged):
        say(note)

    say("transforming")
    done = _transform(captured, asked, on_samples, batch or 1, given=samples is not None, say=say)
    for stop in feasibility.refuse_graph(asked.target, captured.model) if asked.target is not None else ():
        say(stop)
    say("comparing with the original")
    expected, fidelity = _compare(captured, done, on_samples, batch or 1, min_cosine)
    for note in done.notes:
        say(note)
    described, near, decoded = _check_tokenizer(captured, on_samples, expected, dtype, min_cosine, say)
    if described is not None:
        check_same_ids(described.same_ids, min_same_ids)

    manifest = Manifest(
        source=captured.origin,
        recipe=Recipe(
            reduce=tuple(map(str, asked.reduce)), quantize=tuple(map(str, asked.quantize)),
            activations=done.rounded_to, attention="+".join(map(str, done.attention)) or None, dtype=dtype, emit=emit,
            batch=batch, length=length, size=size, stream=stream, min_cosine=min_cosine,
        ),
        tokens=done.tokens,
        schedule=done.schedule,
        token_map=done.token_map,
        weights=done.weights,
        sparse=done.sparse,
        tokenizer=described,
        inputs=captured.inputs,
        outputs=tensor_specs(captured.model.graph.outputs),
        fidelity=fidelity + near,
        tools=tool_versions(),
        built_on=BuiltOn(machine=platform.machine(), cpu_features=cpu_features()),
    )  # fmt: skip
    say(f"writing {out}")
    arrays = {"inputs": feeds, "original": on_samples.original, "expected": expected} | decoded
    decoder = captured.decoder.model if captured.decoder is not None else None
    streams = [each.model for each in captured.streams or ()]
    return write_bundle(Path(out), captured.model, manifest, arrays, force, captured.files, decoder, streams)


@dataclass(frozen=True)
class _Asked:
    """What the options ask for, read and possible."""

    reduce: Sequence[technique.Spec]
    quantize: Sequence[quantiser.Spec]
    activations: rounding.Spec | None
    attention: Sequence[sparse_attention.AttentionSpec]
    dtype: Dtype
    emit: Emit
    target: Device | None

    @property
    def nothing(self) -> bool:
        """Whether the model stays as it is."""
        changes = self.reduce or self.quantize or self.activations or self.attention
        return not changes and self.dtype == "fp32"


def _asked(
    reduce: Sequence[str],
    quantize: Sequence[str],
    activations: str | None,
    attention: str | None,
    dtype: Dtype,
    emit: Emit,
    target: str | None,
) -> _Asked:
    """Read the options, and refuse what the target cannot do, before a model is read."""
    from edgetok import attention as sparse_attention
    from edgetok import devices, feasibility, technique
    from edgetok.lowbit import activations as rounding
    from edgetok.lowbit import quantiser

    for name, value, accepted in (("dtype", dtype, get_args(Dtype)), ("emit", emit, get_args(Emit))):
        if value not in accepted:
            raise UsageError(f"{name} {value!r}: accepted are {', '.join(accepted)}")
    asked = _Asked(
        reduce=[technique.parse(text) for text in reduce],
        quantize=[quantiser.parse(text) for text in quantize],
        activations=None if activations is None else rounding.parse(activations),
        attention=() if attention is None else sparse_attention.parse_all(attention),
        dtype=dtype,
        emit=emit,
        target=None if target is None else devices.load(target),
    )
    if asked.target is not None:
        feasibility.refuse_formats(asked.target, dtype, asked.quantize, asked.activations)
    return asked


def _transform(
    captured: Captured, asked: _Asked, on_samples: OnSamples, batch: int, *, given: bool, say: Say
) -> Transformed:
    """Do to the captured graph, in place, what is asked for; quantisers see samples only where the user gave some."""
    from functools import partial

    from edgetok.api.keeping import keep_faster
    from edgetok.lowbit.quantise import FewBits
    from edgetok.plugins import add_functions
    from edgetok.transform import transform

    faster = partial(keep_faster, on_samples=on_samples, batch=batch, say=say)
    seen = (on_samples, on_samples.measure, faster) if given else ()
    done = transform(
        captured.model,
        asked.reduce,
        dtype=asked.dtype,
        emit=asked.emit,
        run=on_samples,
        few_bits=FewBits(asked.quantize, asked.activations, *seen),
        attention=asked.attention,
    )
    add_functions(captured.model)
    return done


def _compare(
    captured: Captured, done: Transformed, on_samples: OnSamples, batch: int, min_cosine: float
) -> tuple[Arrays, tuple[Fidelity, ...]]:
    """The outputs on the samples, and how near they come to the original's.

    Raises:
        ParityError: not as near as is asked for.
    """
    from edgetok.api.samples import running
    from edgetok.fidelity import check_fidelity, compare_outputs
    from edgetok.transform import aligned, aligned_apart

    feeds, original = on_samples.feeds, on_samples.original
    with running(captured.model, captured.inputs) as run:
        expected = run(feeds)
        pair = aligned_apart(run, feeds, original, batch) if done.dynamic else aligned(expected, original)
    fidelity = compare_outputs(*pair, feeds.get("attention_mask"))
    check_fidelity(fidelity, min_cosine)
    return expected, fidelity


def _check_tokenizer(
    captured: Captured, on_samples: OnSamples, expected: Arrays, dtype: Dtype, min_cosine: float, say: Say
) -> tuple[Description | None, tuple[Fidelity, ...], dict[str, Arrays]]:
    """Of a discrete tokenizer: its description, how near it comes, and what it decodes; of others nothing."""
    from edgetok.api.streaming import check_streams
    from edgetok.api.tokenizing import described_with_decoder
    from edgetok.fidelity import check_fidelity

    if captured.tokenizer is None:
        return None, (), {}
    say("checking the decoder")
    described, near, decoded = described_with_decoder(captured, on_samples.original, expected, dtype)
    check_fidelity(near, min_cosine)
    if captured.streams is not None:
        say("checking the streams")
        check_streams(captured, on_samples.original)
    return described, near, decoded
