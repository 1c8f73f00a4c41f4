"""Profile: a bundle as one side of a measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgetok.api.exporting import export
from edgetok.api.loading import check_arithmetic, load, resolve_device
from edgetok.bundle import Bundle, is_bundle, open_bundle
from edgetok.limits import NONE, Limits

if TYPE_CHECKING:
    import numpy as np

    from edgetok.device import Device
    from edgetok.lowering import Arithmetic
    from edgetok.page.pictures import TokenPicture
    from edgetok.parts import Part
    from edgetok.profiling import Effort
    from edgetok.report import Latency, ProfileReport, TokenStatistics
    from edgetok.roofline import Roofline
    from edgetok.scenario import Scenario
    from edgetok.worker import Side

    Arrays = dict[str, np.ndarray]

DECODES = 20  # runs of a tokenizer's decoder
PREPARATIONS = 20  # of the input from its file


def profile(
    bundle: str | Path,
    *,
    against: str | Path | None = None,
    input: str | Path | None = None,
    device: str = "cpu",
    out: str | Path | None = None,
    force: bool = False,
    effort: Effort | None = None,
    arithmetic: Arithmetic = "a32",
    runtime: str = "onnxruntime",
    all_runtimes: bool = False,
    limits: Limits = NONE,
    scenario: str | None = None,
    command: str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> ProfileReport:
    """Measure a bundle: latency, memory, time per block; against another one, or against its source, as a ratio.

    Args:
        bundle: the bundle's folder.
        against: another bundle, or a source, which is exported without reduction first.
        input: a picture, recording, text or .npz file to measure with, instead of the bundle's first sample; a picture
            is shown with what became of its tokens.
        device: a profile of devices/ that fits this machine, "cpu", or "auto": see `edgetok.machine.resolve`.
        out: a new folder for report.html, report.json, layers.csv and trace.json.
        force: write into a folder that exists.
        effort: how long it may take.
        arithmetic: of the bundle, as `load` takes it; the other side's is a32.
        runtime: what runs the bundle, and what it is compared with.
        all_runtimes: also time the bundle on every runtime that is installed, in turns.
        limits: what is demanded of the bundle.
        scenario: of `edgetok.scenario`: how many samples a run takes, and how many runs are made; None for one sample
            and as many as the percentiles need.
        command: what was typed, to be told in the report.
        progress: told what is being done, and how far it is.
    """
    from edgetok import profiling, report, runtimes
    from edgetok import scenario as scenarios
    from edgetok.fingerprint import environment

    if out is not None:
        report.check_folder(Path(out), force)
    found = resolve_device(device, runtime)
    opened = open_bundle(Path(bundle))
    check_arithmetic(opened, arithmetic, runtime)
    feeds = first_sample(opened) if input is None else _from_file(opened, str(input))
    asked = None if scenario is None else scenarios.load(scenario)
    if asked is not None:
        feeds = asked.feeds(opened, feeds)
    with TemporaryDirectory(prefix="edgetok-") as folder:
        other = None if against is None else open_or_export(str(against), opened, Path(folder) / "original", progress)
        sides = [side(opened, feeds, arithmetic, runtime), *([side(other, feeds, runtime=runtime)] if other else [])]
        done = profiling.profile_model(
            *sides,
            ids={each.label: made.id for each, made in zip(sides, filter(None, (opened, other)), strict=True)},
            device=found.name,
            environment=environment().model_dump(mode="json"),
            effort=effort or effort_for(limits, asked),
            limits=limits,
            fidelity=opened.manifest.fidelity,
            command=command,
            scenario=None if asked is None else f"{asked.name}: {asked.summary}",
            progress=progress,
        )
    measured = done.report.model
    prepared = () if input is None else _preparing(opened, str(input), measured.latency.batch)
    told = {"bytes": opened.bytes, "parts": (*prepared, *measured.parts) if measured.parts else ()}
    more: dict[str, object] = {"model": measured.model_copy(update=told)}
    more["runtime_why"] = runtimes.why(runtime)
    if opened.manifest.tokenizer is None:  # a tokenizer's graphs have free axes, whose work is not counted
        more["roofline"] = _roofline(opened, sides[0], arithmetic, found, measured.latency.median.value)
    else:
        more["tokenizer"] = _token_statistics(opened, feeds, measured.latency, runtime)
    if all_runtimes:
        from edgetok.api.every_runtime import on_every_runtime

        more["runtimes"] = on_every_runtime(opened, feeds, progress)
    if opened.manifest.sparse:
        from edgetok.api.break_even import sparse_layers

        more["sparse"] = sparse_layers(opened.manifest)
    done = replace(done, report=done.report.model_copy(update=more))
    if out is not None:
        pictures = () if input is None else _token_pictures(opened, str(input), feeds)
        report.save(done.report, done.trace, Path(out), pictures=pictures, force=force)
    return done.report


def _token_statistics(bundle: Bundle, feeds: Arrays, encoding: Latency, runtime: str) -> TokenStatistics:
    """Rate and decoder's time of what was measured, beside the encoder's, and codebooks over the bundle's samples."""
    from math import log2

    from edgetok.report import TokenStatistics
    from edgetok.statistics import quantile
    from edgetok.tokenizer.usage import codebook_use
    from edgetok.worker import Side, Worker

    described = bundle.manifest.tokenizer
    assert described is not None
    with load(bundle.path, runtime=runtime) as model:
        made = model.run(feeds)
    decode, batch = None, None
    if described.decode_inputs:
        fixed = described.decode_inputs[0].shape[0]
        batch = fixed if isinstance(fixed, int) else len(made["ids"])
        given = {spec.name: made[spec.name][:batch] for spec in described.decode_inputs}
        with Worker(Side("decode", bundle.decoder_path, described.decode_inputs, given, runtime)) as worker:
            worker.sample(DECODES // 4)  # warm up
            decode = quantile(worker.sample(DECODES), 0.5)
    units = described.signal.units(feeds[bundle.manifest.inputs[0].name].shape[2:])
    tokens = made["ids"].shape[1]
    return TokenStatistics(
        unit=described.signal.unit,
        units=units,
        tokens=tokens,
        rate=tokens * sum(map(log2, described.sizes)) / units,
        codebooks=codebook_use(bundle.samples("expected")["ids"], described.sizes),
        batch=encoding.batch,
        encode=encoding.median,
        decode=decode,
        decode_batch=batch,
    )


def effort_for(limits: Limits, scenario: Scenario | None) -> Effort:
    """As many runs as the highest percentile needs that will be told; a scenario may take MLPerf's ten minutes."""
    from edgetok.profiling import Effort

    highest = 0.99 if limits.max_p99 else 0.9
    if scenario is None:
        return Effort(percentile=highest)
    return Effort(percentile=max(highest, scenario.percentile), least=scenario.queries, max_seconds=600)


def _roofline(
    bundle: Bundle, side: Side, arithmetic: Arithmetic, device: Device, measured: float
) -> Roofline | None:
    """The bundle's least time on what computes, where its graph tells its work; int8 counts by the peak of int8."""
    from edgetok import roofline
    from edgetok.device import ON_GPU
    from edgetok.machine import Machine

    if (work := roofline.work(bundle.model_path, side.batch)) is None:
        return None
    if device.kind == "gpu" and side.runtime not in ON_GPU:  # a board's profile has the peaks of its GPU
        device = resolve_device("cpu")
    in_int8 = bundle.manifest.weights and (arithmetic == "a8" or bundle.manifest.recipe.activations == "int8")
    precision: roofline.Precision = "int8" if in_int8 else bundle.manifest.recipe.dtype
    roof = roofline.roof(device, Machine.read(), precision)
    return roofline.Roofline.of(precision, work, roof, measured)


def side(
    bundle: Bundle, feeds: Arrays, arithmetic: Arithmetic = "a32", runtime: str = "onnxruntime"
) -> Side:
    """A bundle as one side of a measurement."""
    from edgetok.device import ON_GPU
    from edgetok.lowering import for_runtime
    from edgetok.worker import Side

    device = resolve_device("auto", runtime) if runtime in ON_GPU else None
    graph = for_runtime(bundle, runtime, arithmetic, device)
    manifest, tokens = bundle.manifest, tokens_per_block(bundle)
    dynamic = any(step.dynamic for step in manifest.schedule)
    return Side(bundle.path.name, graph, manifest.inputs, feeds, runtime, tokens=tokens, mean_tokens=dynamic)


def tokens_per_block(bundle: Bundle) -> tuple[tuple[int, int], ...] | None:
    """How many tokens enter and leave each block; None when the graph's blocks were not recognised."""
    import re

    import onnx

    if not bundle.manifest.tokens:
        return None
    graph = onnx.load(bundle.model_path, load_external_data=False).graph
    found = [re.match(r"blocks\.(\d+)/", node.name) for node in graph.node]
    blocks = 1 + max((int(match[1]) for match in found if match), default=-1)
    steps = {step.block: step for step in bundle.manifest.schedule}
    tokens, result = bundle.manifest.tokens, []
    for block in range(blocks):
        left = steps[block].tokens_out if block in steps else tokens
        result.append((tokens, left))
        tokens = left
    return tuple(result)


def first_sample(bundle: Bundle) -> Arrays:
    """Batch 1, or the bundle's fixed batch."""
    fixed = bundle.manifest.recipe.batch
    return {name: array[: fixed or 1] for name, array in bundle.samples("inputs").items()}


def _from_file(bundle: Bundle, file: str, batch: int | None = None) -> Arrays:
    """The file's samples, as often as the bundle's fixed batch, or the batch given, asks for them."""
    from edgetok.inputs import samples_in

    wanted = batch or bundle.manifest.recipe.batch or 1
    return bundle.load([file] * max(1, wanted // samples_in(file)))


def _preparing(bundle: Bundle, file: str, batch: int) -> tuple[Part]:
    """How long a batch takes from files, which the system holds in memory by then, to arrays."""
    from edgetok.parts import PREPARE, Part, Step
    from edgetok.timing import sample_steps

    step = Step(PREPARE, "host", lambda: _from_file(bundle, file, batch))
    sample_steps([step], PREPARATIONS // 4)  # warm up
    (times,) = sample_steps([step], PREPARATIONS)
    return (Part.of(step, times),)


def _token_pictures(bundle: Bundle, file: str, feeds: Arrays) -> tuple[TokenPicture, ...]:
    """What became of a picture's tokens; nothing where the input is no picture, or nothing is reduced."""
    from edgetok import token_trace
    from edgetok.lowering import for_onnxruntime
    from edgetok.page.pictures import token_pictures
    from edgetok.preprocess.image import ImagePreprocess, open_picture
    from edgetok.runtimes.ort import session

    seen = [spec.preprocess for spec in bundle.manifest.inputs if isinstance(spec.preprocess, ImagePreprocess)]
    if len(seen) != 1 or not bundle.manifest.schedule:
        return ()
    model = for_onnxruntime(bundle, "a32")
    graph, applied = token_trace.watched(model)
    names = [name for each in applied for name in each.outputs]
    run = session(graph, weights=model.parent)
    found = dict(zip(names, run.run(names, feeds), strict=True))
    rows = token_trace.compose(applied, found, bundle.manifest.tokens)
    return token_pictures(seen[0].cut(open_picture(file), file), rows)


def open_or_export(
    against: str, bundle: Bundle, folder: Path, progress: Callable[[str, float], None] | None
) -> Bundle:
    """The other side of a comparison: a bundle, or a source exported as the bundle was, but without reduction."""
    if is_bundle(Path(against)):
        return open_bundle(Path(against))
    recipe = bundle.manifest.recipe
    return export(
        against,
        out=folder,
        dtype=recipe.dtype,
        batch=recipe.batch,
        length=recipe.length,
        size=recipe.size,
        progress=(lambda text: progress(f"{against}: {text}", 0.0)) if progress else None,
    )
