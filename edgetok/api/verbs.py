"""Export and load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, get_args

from edgetok.bundle import Bundle, check_output, open_bundle, write_bundle
from edgetok.errors import BundleError, UsageError
from edgetok.manifest import Dtype, Emit

if TYPE_CHECKING:
    import numpy as np

    from edgetok.device import Device
    from edgetok.lowering import Arithmetic
    from edgetok.runtimes import Runtime

    Arrays = dict[str, np.ndarray]

TOLERANCE = 1e-4  # of a bundle's outputs on another machine, as a share of their largest value; 1e-2 in half precision
DOCTOR = "edgetok doctor says what is installed"
NEARER_DB = 20.0  # that near-ties of attention's choices may leave over the distance to the original; 52 and 54 seen
LEAST_A8_DB = 20.0  # SQNR of int8 activations against fp32 ones; 55 for the map of zoo:dinov2-style-s14 in nvfp4


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
        activations: "int8", "fp8" or "fp4": what feeds products is rounded in the graph, as in "int8:skip=head".
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
        samples: a folder with pictures, recordings or texts that the bundle is checked with, and that it carries.
        target: a profile of devices/: what cannot run there is refused before it is made.
        force: replace a bundle that is there.
        progress: told what is being done.

    Raises:
        EdgetokError: see edgetok/errors.py.
    """
    import platform
    from functools import partial

    from edgetok import attention as sparse_attention
    from edgetok import devices, feasibility, technique
    from edgetok.api.keeping import keep_faster
    from edgetok.api.samples import OnSamples, run_graph, running
    from edgetok.api.streaming import check_streams
    from edgetok.api.tokenizing import described_with_decoder
    from edgetok.exporters.sources import CaptureOptions, capture
    from edgetok.fidelity import check_exact, check_fidelity, compare_outputs
    from edgetok.fingerprint import cpu_features, tool_versions
    from edgetok.lowbit import activations as lowbit_activations
    from edgetok.lowbit import quantiser
    from edgetok.lowbit.quantise import FewBits
    from edgetok.manifest import BuiltOn, Manifest, Recipe
    from edgetok.plugins import add_functions
    from edgetok.transform import aligned, aligned_apart, sample_inputs, transform

    say = progress or (lambda _: None)
    for name, value, accepted in (("dtype", dtype, get_args(Dtype)), ("emit", emit, get_args(Emit))):
        if value not in accepted:
            raise UsageError(f"{name} {value!r}: accepted are {', '.join(accepted)}")
    specs = [technique.parse(text) for text in reduce]
    sparse = () if attention is None else sparse_attention.parse_all(attention)
    formats = [quantiser.parse(text) for text in quantize]
    rounded = None if activations is None else lowbit_activations.parse(activations)
    device = None if target is None else devices.load(target)
    if device is not None:
        feasibility.refuse_formats(device, dtype, formats, rounded)
    if stream is not None and (specs or formats or rounded or sparse or dtype != "fp32"):
        raise UsageError("--stream is for a codec as it is, in fp32: leave what reduces, quantises and types it out")
    check_output(Path(out), force)
    say(f"capturing {source}")
    captured = capture(source, CaptureOptions(batch=batch, length=length, size=size, stream=stream))
    if stream is not None and captured.streams is None:
        raise UsageError(f"{source} does not stream: EnCodec at 24 kHz and Mimi do; leave --stream out")
    carried = next(iter(captured.files.values())).parent if captured.files else Path(out)
    feeds = sample_inputs(Path(samples) if samples else None, captured.inputs, carried, captured.example)
    say("running the original")
    original = captured.reference(feeds)
    say("checking the captured graph")
    check_exact(run_graph(captured.model, captured.inputs, feeds), original)
    say("transforming")

    on_samples = OnSamples(captured.inputs, feeds, original)
    faster = partial(keep_faster, on_samples=on_samples, batch=batch or 1, say=say)
    done = transform(
        captured.model,
        specs,
        dtype=dtype,
        emit=emit,
        run=on_samples,
        few_bits=FewBits(formats, rounded, *((on_samples, on_samples.measure, faster) if samples else ())),
        attention=sparse,
    )
    add_functions(captured.model)
    for stop in feasibility.refuse_graph(device, captured.model) if device is not None else ():
        say(stop)
    say("comparing with the original")
    with running(captured.model, captured.inputs) as run:
        expected = run(feeds)
        pair = aligned_apart(run, feeds, original, batch or 1) if done.dynamic else aligned(expected, original)
    fidelity = compare_outputs(*pair, feeds.get("attention_mask"))
    check_fidelity(fidelity, min_cosine)
    for note in done.notes:
        say(note)
    from edgetok.graph import specs as tensor_specs

    described = None
    decoded: dict[str, Arrays] = {}
    if captured.tokenizer is not None:
        say("checking the decoder")
        described, near, decoded = described_with_decoder(captured, original, expected, dtype)
        fidelity += near
        check_fidelity(near, min_cosine)
        if captured.streams is not None:
            say("checking the streams")
            check_streams(captured, original)
    manifest = Manifest(
        source=captured.origin,
        recipe=Recipe(
            reduce=tuple(map(str, specs)), quantize=tuple(map(str, formats)), activations=done.rounded_to,
            attention="+".join(map(str, done.attention)) or None, dtype=dtype, emit=emit, batch=batch, length=length,
            size=size, stream=stream, min_cosine=min_cosine,
        ),
        tokens=done.tokens,
        schedule=done.schedule,
        token_map=done.token_map,
        weights=done.weights,
        sparse=done.sparse,
        tokenizer=described,
        inputs=captured.inputs,
        outputs=tensor_specs(captured.model.graph.outputs),
        fidelity=fidelity,
        tools=tool_versions(),
        built_on=BuiltOn(machine=platform.machine(), cpu_features=cpu_features()),
    )  # fmt: skip
    say(f"writing {out}")
    arrays = {"inputs": feeds, "original": original, "expected": expected} | decoded
    decoder = captured.decoder.model if captured.decoder is not None else None
    streams = [each.model for each in captured.streams or ()]
    return write_bundle(Path(out), captured.model, manifest, arrays, force, captured.files, decoder, streams)


def load(
    path: str | Path,
    *,
    device: str = "cpu",
    expected_id: str | None = None,
    arithmetic: Arithmetic = "a32",
    runtime: str = "onnxruntime",
) -> Model:
    """Open and verify a bundle for a device.

    Args:
        path: the bundle's folder.
        device: a profile of devices/ that fits this machine, "cpu", or "auto": see `edgetok.machine.resolve`.
        expected_id: insist on this bundle: the first eight or more digits of its id.
        arithmetic: "a32", or "a8": what feeds weights of few bits is rounded to int8, which is faster.
        runtime: "onnxruntime", "openvino" or, with a card, "tensorrt", "tensorrt-rtx" or "onnxruntime-gpu".

    Raises:
        BundleError: it is damaged, incomplete, or not the one expected.
        DeviceError: the device is not this machine.
        UsageError: another arithmetic, a8 for a bundle without weights of few bits, or a runtime that runs no bundles.
    """
    bundle = open_bundle(Path(path), expected_id)
    check_arithmetic(bundle, arithmetic, runtime)
    return Model(bundle, resolve_device(device, runtime), arithmetic, runtime)


def check_arithmetic(bundle: Bundle, arithmetic: Arithmetic, runtime: str = "onnxruntime") -> None:
    """Make sure that a bundle can be run with it.

    Raises:
        UsageError: it cannot.
    """
    from edgetok import runtimes
    from edgetok.lowering import Arithmetic

    if arithmetic not in get_args(Arithmetic):
        raise UsageError(f"arithmetic {arithmetic!r}: accepted are {', '.join(get_args(Arithmetic))}")
    if runtimes.load(runtime).package == "torch":
        able = " and ".join(runtimes.of_files())
        raise UsageError(f"the runtime {runtime!r} runs captured PyTorch originals; bundles run on {able}")
    if arithmetic == "a8" and runtime != "onnxruntime":
        raise UsageError(f"arithmetic a8 is computed by edgetok's operators for onnxruntime, not by {runtime}: use a32")
    if arithmetic == "a8" and not bundle.manifest.weights:
        raise UsageError(
            f"{bundle.path}: arithmetic a8 is for weights of few bits, and this bundle has none: "
            "export it with --quantize, or run it with a32"
        )


class Model:
    """A bundle ready to run. Loads its graph when it first runs; a context manager, which closes it."""

    def __init__(
        self, bundle: Bundle, device: Device, arithmetic: Arithmetic = "a32", runtime: str = "onnxruntime"
    ):
        self.bundle, self.device, self.arithmetic, self.runtime = bundle, device, arithmetic, runtime
        self._runtime: Runtime | None = None

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Run on arrays, by input name.

        Raises:
            InputError: they do not fit.
        """
        if self._runtime is None:
            from edgetok import lowering, runtimes

            graph = lowering.for_runtime(self.bundle, self.runtime, self.arithmetic, self.device)
            runtime = runtimes.load(self.runtime)(graph, self.bundle.manifest.inputs)
            self._runtime = runtime.__enter__()
        return self._runtime.run(dict(feeds))

    def run_files(self, files: Sequence[str]) -> Arrays:
        """Run on pictures, recordings, texts or .npz files, one sample each."""
        from edgetok.inputs import load_inputs

        return self.run(load_inputs(files, self.bundle.manifest.inputs, self.bundle.path))

    def check(self) -> dict[str, float]:
        """Run the bundle's samples and hold the outputs to those it promises.

        Returns:
            For each output its largest error, as a share of its largest value; of the better half of its rows, where
            attention picks keys.

        Raises:
            BundleError: an output is off by more than rounding. Where activations are rounded, a hair decides which
                way: it may be as far off as LEAST_A8_DB allow in a8, and as its original where the graph rounds. Where
                attention picks keys, a hair decides which, and what follows a token hears of it: half of the rows must
                be what is promised, and the whole far nearer to it (NEARER_DB) than to the original.
        """
        import numpy as np

        from edgetok.fidelity import SAME_IDS, same_ids

        expected, got = self.bundle.samples("expected"), self.run(self.bundle.samples("inputs"))
        bound = TOLERANCE if self.bundle.manifest.recipe.dtype == "fp32" else 100 * TOLERANCE
        rounds = self.arithmetic == "a8" or self.bundle.manifest.recipe.activations is not None
        chooses = bool(self.bundle.manifest.sparse)
        errors = {}
        for name, wanted in expected.items():
            if wanted.dtype.kind in "iu" and self.bundle.manifest.tokenizer is not None:
                errors[name] = 1 - same_ids(got[name], wanted)
                if errors[name] > 1 - SAME_IDS:
                    raise BundleError(
                        f"{self.bundle.path}: on this machine {errors[name]:.1%} of {name!r} are other ones than "
                        f"promised, {1 - SAME_IDS:.0%} are accepted, as near-ties; {DOCTOR}"
                    )
                continue
            error = got[name].astype(np.float64) - wanted
            scale = max(float(np.abs(wanted).max(initial=0)), 1e-30)
            errors[name] = float(np.abs(error).max(initial=0)) / scale
            if chooses and error.ndim > 1:
                rows = np.abs(error).max(axis=-1, initial=0) / scale
                errors[name] = float(np.quantile(rows, 0.5, method="higher"))
            off = f"output {name!r} is off by {errors[name]:.1e} of its largest value"
            least = self._least_db(name)
            if not rounds and not errors[name] <= bound:
                raise BundleError(f"{self.bundle.path}: on this machine {off}, at most {bound:g} is accepted; {DOCTOR}")
            noise, signal = float(np.square(error).sum()), float(np.square(wanted, dtype=np.float64).sum())
            if least is not None and not noise <= 10 ** (-least / 10) * signal:
                cure = "run it with a32" if self.arithmetic == "a8" else DOCTOR
                off += f", less than {least:.3g} dB over the noise"
                why = "with rounded activations" if rounds else "with keys picked otherwise"
                raise BundleError(f"{self.bundle.path}: {why} {off}: {cure}")
        return errors

    def _least_db(self, output: str) -> float | None:
        """What an output must have over its noise; None where its largest error counts alone."""
        allowed = [LEAST_A8_DB] if self.arithmetic == "a8" else []
        near = [each for each in self.bundle.manifest.fidelity if each.output == output]
        known = [each.sqnr_db for each in near if each.sqnr_db is not None]
        if self.bundle.manifest.recipe.activations is not None:
            allowed += known
        if self.bundle.manifest.sparse:
            allowed += [sqnr + NEARER_DB for sqnr in known]
        return min(allowed, default=None)

    def close(self) -> None:
        """Give the runtime's memory back."""
        if self._runtime is not None:
            self._runtime.__exit__()
            self._runtime = None


def resolve_device(name: str, runtime: str = "onnxruntime") -> Device:
    """The profile of a device, which must fit this machine; "cpu" and "auto" are whichever does."""
    from edgetok import devices
    from edgetok.machine import resolve

    return resolve(name, devices.load_all(), runtime=runtime)
