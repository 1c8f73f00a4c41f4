"""Profile a model: latency, memory and layers, alone or against the original."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from edgetok import sensors
from edgetok.checks import alike_check, governor_check, layer_checks, load_check, parts_checks, timing_checks
from edgetok.comparison import Comparison, compare
from edgetok.conditions import Conditions, Energy, conditions, energy, memory_line
from edgetok.layers import LayerTable, ProfiledRun, layer_table, operator_table
from edgetok.limits import NONE, Limits, judge
from edgetok.manifest import Fidelity
from edgetok.parts import Part
from edgetok.recorder import Moment, Recorder
from edgetok.report import Latency, Measured, Memory, ProfileReport
from edgetok.statistics import runs_needed
from edgetok.timing import Progress, Timing
from edgetok.trace import chrome_trace
from edgetok.worker import Side, Worker

LAYER_TURNS, MOST_RUNS = 4, 50


@dataclass(frozen=True)
class Effort:
    """How long a profile may take.

    Attributes:
        percentile: the highest that is to be claimed: 0.9 needs 36 runs, 0.99 needs 368.
        least: the fewest runs, whatever the percentile needs.
        min_seconds: the least time of a latency measurement.
        max_seconds: the most time of a latency measurement, and of the comparison.
        warm_up_seconds: the most time until the runs are steady.
        rounds: how many turns each side of a comparison takes.
        layer_seconds: how long each side runs with the profiler on, and about how long taken apart.
        idle_seconds: how long the machine's power is read before anything is loaded, where it can be read.
    """

    percentile: float = 0.9
    least: int = 0
    min_seconds: float = 2.0
    max_seconds: float = 30.0
    warm_up_seconds: float = 10.0
    rounds: int = 15
    layer_seconds: float = 2.0
    idle_seconds: float = 1.0


@dataclass(frozen=True)
class Profile:
    """A report, and the trace of one run of each model."""

    report: ProfileReport
    trace: dict[str, Any]


def profile_model(
    model: Side,
    against: Side | None = None,
    *,
    ids: Mapping[str, str],
    device: str,
    environment: Mapping[str, Any],
    effort: Effort = Effort(),
    limits: Limits = NONE,
    fidelity: Sequence[Fidelity] = (),
    command: str | None = None,
    scenario: str | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Measure a model, and what it is compared with, one process each and one at a time.

    Args:
        model: what is profiled.
        against: what it is compared with, on the same feeds.
        ids: the id (or digest) of the model behind each label.
        device: the name of the machine.
        environment: its fingerprint.
        effort: how long it may take.
        limits: what is demanded of the model.
        fidelity: how near its outputs come to the original's.
        command: what was typed, to be told in the report.
        scenario: how the queries come, where one was chosen.
        progress: told what is being done and how far it is.
    """
    load = load_check()
    sides = [side for side in (model, against) if side]
    with ExitStack() as stack:
        recorder = stack.enter_context(Recorder(stack.enter_context(sensors.opened())))
        idle = rest(recorder, effort)
        # One after the other: a worker that still loads its model would disturb the one that is measured.
        workers, alone = [], []
        for side in sides:
            worker = stack.enter_context(Worker(side))
            workers.append(worker)
            alone.append(measure(worker, recorder, idle, effort, progress))
        timings = [each.timing for each in alone]
        comparison = _compare(workers, effort, progress) if against else None
        parts = [_parts(worker, timing, effort) for worker, timing in zip(workers, timings, strict=True)]
        runs = _profile(workers, timings, effort, progress)
    tables = _tables(sides, runs)
    measured = [
        Measured(
            label=side.label,
            model_id=ids[side.label],
            runtime=worker.description,
            latency=Latency.of(each.timing, side.batch, on_card=worker.on_card),
            memory=each.memory,
            energy=each.energy,
            conditions=each.conditions,
            parts=apart,
            layers=table,
            operators=operator_table(run) if run else (),
        )
        for side, worker, each, apart, table, run in zip(sides, workers, alone, parts, tables, runs, strict=True)
    ]
    report = ProfileReport(
        command=command,
        scenario=scenario,
        device=device,
        environment=dict(environment),
        model=measured[0],
        against=measured[1] if against else None,
        comparison=comparison,
        fidelity=tuple(fidelity),
        limits=judge(limits, measured[0].latency.p99, fidelity),
        checks=(
            load,
            governor_check(),
            *([alike_check(measured[0].latency, measured[1].latency, comparison)] if comparison else []),
            *(
                check
                for each in measured
                for check in (
                    *timing_checks(each.label, each.latency, each.conditions.throttles, effort),
                    *parts_checks(each.label, each.latency, each.parts),
                    *(layer_checks(each.label, each.latency, each.layers) if each.layers else ()),
                )
            ),
        ),
    )
    return Profile(report, chrome_trace({side.label: run for side, run in zip(sides, runs, strict=True) if run}))


@dataclass(frozen=True)
class Alone:
    """What one side did by itself, while no other ran."""

    timing: Timing
    memory: Memory
    energy: Energy
    conditions: Conditions


def rest(recorder: Recorder, effort: Effort) -> list[Moment]:
    """The machine's power before anything is loaded, where it has sensors for that."""
    start = recorder.now()
    if recorder.sensors:
        time.sleep(effort.idle_seconds)
    return recorder.between(start, recorder.now())


def measure(
    worker: Worker, recorder: Recorder, idle: Sequence[Moment], effort: Effort, progress: Progress | None
) -> Alone:
    """Latency, memory, energy and conditions of a side, which runs alone; `idle` is of `rest`."""
    recorder.watch(worker.pid)
    loaded = recorder.now()
    timing = worker.measure(
        percentile=effort.percentile,
        least=effort.least,
        min_seconds=effort.min_seconds,
        max_seconds=effort.max_seconds,
        warm_up_seconds=effort.warm_up_seconds,
        progress=progress,
    )
    moments, running = recorder.between(loaded, recorder.now()), recorder.between(*timing.window)
    return Alone(
        timing=timing,
        memory=Memory(
            peak=worker.peak_memory(), before_loading=worker.memory_before, timeline=memory_line(moments[1:])
        ),
        energy=energy(recorder.sensors, running, timing.window, len(timing.milliseconds), idle),
        conditions=conditions(running),
    )


def _compare(workers: Sequence[Worker], effort: Effort, progress: Progress | None) -> Comparison:
    return compare(workers, rounds=effort.rounds, max_seconds=effort.max_seconds, progress=progress)[0]


def _parts(worker: Worker, timing: Timing, effort: Effort) -> tuple[Part, ...]:
    count = effort.layer_seconds * 1e3 / median(timing.milliseconds)
    return worker.parts(warm_up=3, runs=int(min(MOST_RUNS, max(runs_needed(0.5), count))))


def _profile(
    workers: Sequence[Worker], timings: Sequence[Timing], effort: Effort, progress: Progress | None
) -> list[list[ProfiledRun]]:
    """Runs with the profiler on, in turns when there are two sides, so that their layers can be compared."""
    turns = LAYER_TURNS if len(workers) > 1 else 1
    runs: list[list[ProfiledRun]] = [[] for _ in workers]
    for turn in range(turns):
        for side, (worker, timing) in enumerate(zip(workers, timings, strict=True)):
            count = effort.layer_seconds * 1e3 / turns / median(timing.milliseconds)
            runs[side] += worker.profile(warm_up=3, runs=int(min(MOST_RUNS, max(4, count))))
        if progress:
            progress("profiling layers", (turn + 1) / turns)
    return runs


def _tables(sides: Sequence[Side], runs: Sequence[Sequence[ProfiledRun]]) -> list[LayerTable | None]:
    if not all(runs):  # both sides are on one runtime, which does not time single nodes
        return [None] * len(sides)
    *_, last = tables = [layer_table(run, tokens=side.tokens) for side, run in zip(sides, runs, strict=True)]
    if len(sides) == 2:
        tables[0] = layer_table(runs[0], tokens=sides[0].tokens, unreduced=last)
    return [replace(table, mean_tokens=side.mean_tokens) for side, table in zip(sides, tables, strict=True)]
