"""Profile a model: latency, memory and layers, alone or against the original."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from edgetok import pace, sensors
from edgetok.comparison import Comparison, compare
from edgetok.conditions import Conditions, Energy, conditions, energy, memory_line
from edgetok.layers import LayerTable, ProfiledRun, layer_table, operator_table
from edgetok.limits import NONE, Limits, judge
from edgetok.manifest import Fidelity
from edgetok.recorder import Moment, Recorder
from edgetok.report import Check, Latency, Measured, Memory, ProfileReport, Verdict
from edgetok.statistics import runs_needed
from edgetok.timing import Progress, Timing
from edgetok.trace import chrome_trace
from edgetok.worker import Side, Worker

DRIFT, PROFILER_COST, UNEXPLAINED, LOAD, UNLIKE = 0.05, 0.1, 0.05, 0.25, 0.1  # beyond these the report warns
LAYER_TURNS = 4


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
        layer_seconds: how long each side runs with the profiler on.
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
        runs = _profile(workers, timings, effort, progress)
    tables = _tables(sides, runs)
    measured = [
        Measured(
            label=side.label,
            model_id=ids[side.label],
            runtime=worker.description,
            latency=Latency.of(each.timing, side.batch),
            memory=each.memory,
            energy=each.energy,
            conditions=each.conditions,
            layers=table,
            operators=operator_table(run),
        )
        for side, worker, each, table, run in zip(sides, workers, alone, tables, runs, strict=True)
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
                    *_layer_checks(each),
                )
            ),
        ),
    )
    return Profile(report, chrome_trace({side.label: run for side, run in zip(sides, runs, strict=True)}))


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


def _profile(
    workers: Sequence[Worker], timings: Sequence[Timing], effort: Effort, progress: Progress | None
) -> list[list[ProfiledRun]]:
    """Runs with the profiler on, in turns when there are two sides, so that their layers can be compared."""
    turns = LAYER_TURNS if len(workers) > 1 else 1
    runs: list[list[ProfiledRun]] = [[] for _ in workers]
    for turn in range(turns):
        for side, (worker, timing) in enumerate(zip(workers, timings, strict=True)):
            count = effort.layer_seconds * 1e3 / turns / median(timing.milliseconds)
            runs[side] += worker.profile(warm_up=3, runs=int(min(50, max(4, count))))
        if progress:
            progress("profiling layers", (turn + 1) / turns)
    return runs


def _tables(sides: Sequence[Side], runs: Sequence[Sequence[ProfiledRun]]) -> list[LayerTable]:
    *_, last = tables = [layer_table(run, tokens=side.tokens) for side, run in zip(sides, runs, strict=True)]
    if len(sides) == 2:
        tables[0] = layer_table(runs[0], tokens=sides[0].tokens, unreduced=last)
    return [replace(table, mean_tokens=side.mean_tokens) for side, table in zip(sides, tables, strict=True)]


def load_check() -> Check:
    """Whether others use the machine; to be asked before anything is run."""
    import psutil

    cores, load = os.cpu_count() or 1, psutil.getloadavg()[0]
    verdict: Verdict = "pass" if load <= LOAD * cores else "warn"
    return Check(name="idle machine", verdict=verdict, detail=f"load average {load:.2f} on {cores} cores at the start")


def governor_check(cpus: Path = Path("/sys/devices/system/cpu")) -> Check:
    """Whether the system holds the CPU's clock where it is."""
    governors = {file.read_text().strip() for file in cpus.glob("cpu*/cpufreq/scaling_governor")}
    if not governors:
        return Check(name="clock", verdict="unknown", detail="the system does not say how it sets the CPU's clock")
    verdict: Verdict = "pass" if governors == {"performance"} else "warn"
    return Check(name="clock", verdict=verdict, detail=f"CPU governor: {', '.join(sorted(governors))}")


def alike_check(ours: Latency, theirs: Latency, comparison: Comparison) -> Check:
    """Whether the machine was alike when each side was measured alone: the medians' ratio is then that of the turns."""
    alone = theirs.median.value / ours.median.value
    apart = abs(alone / comparison.speedup.value - 1)
    told = f"{alone:.2f}x by their latencies alone, {comparison.speedup.value:.2f}x in turns"
    name = f"like states, {comparison.label} and {comparison.against}"
    if apart > UNLIKE:
        return Check(name=name, verdict="warn", detail=f"{told}: trust the turns")
    return Check(name=name, verdict="pass", detail=told)


def timing_checks(label: str, latency: Latency, throttles: Mapping[str, int], effort: Effort) -> list[Check]:
    """Whether a side's runs may be trusted: nothing slowed the machine, they were steady, enough, and of one pace.

    Args:
        label: of the side.
        latency: every run of it.
        throttles: how often the hardware slowed itself down meanwhile, by reason; empty where it does not say.
        effort: what was asked of the measurement.
    """
    needed, percentile = max(effort.least, runs_needed(effort.percentile)), f"p{effort.percentile * 100:g}"
    slowed = ", ".join(f"{reason} ({count})" for reason, count in throttles.items() if count)
    warm, uneven = latency.warm_up, pace.in_words(latency.milliseconds)
    return [
        *([_check("throttling", label, not slowed, slowed or "none counted")] if throttles else []),
        _check("warm-up", label, warm.steady, f"{'steady' if warm.steady else 'not steady'} after {warm.runs} runs"),
        _check(
            "drift", label, abs(latency.drift) <= DRIFT,
            f"second half of the runs {latency.drift:+.1%} against the first",
        ),
        _check("pace", label, uneven is None, uneven or "no slow spell, no two speeds"),
        _check("runs", label, latency.runs >= needed, f"{latency.runs} made, {percentile} needs {needed}"),
    ]  # fmt: skip


def _layer_checks(measured: Measured) -> list[Check]:
    layers = measured.layers
    slower, unexplained = layers.whole / measured.latency.median.value - 1, layers.between_nodes / layers.whole
    return [
        _check("profiler", measured.label, abs(slower) <= PROFILER_COST, f"a run takes {slower:+.1%} with it on"),
        _check(
            "layers", measured.label, abs(unexplained) <= UNEXPLAINED, f"{unexplained:.1%} of a run lies between nodes"
        ),
    ]


def _check(name: str, label: str, passed: bool, detail: str) -> Check:
    return Check(name=f"{name}, {label}", verdict="pass" if passed else "warn", detail=detail)
