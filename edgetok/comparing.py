"""Models side by side: measured here in turns, or read from profiles that were saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

from edgetok import sensors, states
from edgetok.checks import alike_check, governor_check, load_check, timing_checks
from edgetok.comparison import compare
from edgetok.comparison_report import UNLIKE, Compared, ComparisonReport
from edgetok.errors import UsageError
from edgetok.limits import NONE, Limits
from edgetok.manifest import Fidelity
from edgetok.profiling import Alone, Effort, measure, rest
from edgetok.recorder import Recorder
from edgetok.report import Check, Latency, ProfileReport
from edgetok.statistics import Quantile
from edgetok.timing import Progress
from edgetok.worker import Side, Worker

DEFAULT = Effort()
ITSELF = Quantile(0.5, 1.0, 1.0, 1.0, is_max=False)  # how fast a model is against itself


@dataclass(frozen=True)
class Facts:
    """What a bundle says of itself.

    Attributes:
        id: of the bundle.
        source: of which model it was made.
        bytes: of its graphs and weights.
        fidelity: how near each output comes to the original's.
    """

    id: str
    source: str
    bytes: int
    fidelity: tuple[Fidelity, ...]


def compare_models(
    sides: Sequence[Side],
    facts: Sequence[Facts],
    *,
    device: str,
    environment: dict[str, Any],
    rounds: int = 15,
    effort: Effort = DEFAULT,
    limits: Limits = NONE,
    command: str | None = None,
    progress: Progress | None = None,
) -> ComparisonReport:
    """Measure models in one run, one process each and one at a time: each alone first, then all in turns.

    Args:
        sides: what is compared, with labels of their own; the last is what speed-ups are set against.
        facts: of each side.
        device: the name of the machine.
        environment: its fingerprint.
        rounds: how many turns each side takes.
        effort: how long each is measured alone.
        limits: what is demanded of the one to choose.
        command: what was typed, to be told in the report.
        progress: told what is being done and how far it is.
    """
    checks = [load_check(), governor_check(), *_same_original(sides, facts)]
    with ExitStack() as stack:
        recorder = stack.enter_context(Recorder(stack.enter_context(sensors.opened())))
        idle = rest(recorder, effort)
        workers: list[Worker] = []
        alone: list[Alone] = []
        for side in sides:
            workers.append(stack.enter_context(Worker(side)))
            alone.append(measure(workers[-1], recorder, idle, effort, progress))
        compared = compare(workers, rounds=rounds, max_seconds=effort.max_seconds, progress=progress)
    latencies = [
        Latency.of(each.timing, side.batch, on_card=worker.on_card)
        for side, worker, each in zip(sides, workers, alone, strict=True)
    ]
    checks += [
        alike_check(latency, latencies[-1], found) for latency, found in zip(latencies[:-1], compared, strict=True)
    ]
    for side, latency, each in zip(sides, latencies, alone, strict=True):
        checks += timing_checks(side.label, latency, each.conditions.throttles, effort)
    turns = [*([ours for ours, _ in found.rounds] for found in compared), [theirs for _, theirs in compared[0].rounds]]
    speedups = [*(found.speedup for found in compared), ITSELF]
    base = median(turns[-1])
    rows = [
        Compared(
            label=side.label, model_id=fact.id, runtime=worker.description, latency=latency, memory=each.memory,
            energy=each.energy, conditions=each.conditions, bytes=fact.bytes, fidelity=fact.fidelity,
            milliseconds=base / speedup.value, speedup=speedup,
            low=speedup.high and base / speedup.high, high=speedup.low and base / speedup.low,
        )
        for side, fact, worker, latency, each, speedup in zip(
            sides, facts, workers, latencies, alone, speedups, strict=True
        )
    ]  # fmt: skip
    return ComparisonReport.of(
        rows, list(zip(*turns, strict=True)), limits=limits, device=device, environment=environment, checks=checks,
        command=command,
    )  # fmt: skip


def compare_profiles(
    reports: Mapping[str, ProfileReport], *, limits: Limits = NONE, anyway: bool = False, command: str | None = None
) -> ComparisonReport:
    """Set saved profiles against each other, if they were measured in like states.

    Args:
        reports: by label; the last is what speed-ups are set against.
        limits: what is demanded of the one to choose.
        anyway: compare them in unlike states too, and say first what was not alike.
        command: what was typed, to be told in the report.

    Raises:
        UsageError: they were measured in unlike states.
    """
    unlike = states.differences(reports)
    if (deciding := [str(each) for each in unlike if each.decides]) and not anyway:
        raise UsageError(
            f"the profiles were measured in unlike states: {'; '.join(deciding)}. Compare the bundles, which are then "
            "measured in turns, or pass --anyway to be told the differences with the figures"
        )
    checks = [
        Check(name=UNLIKE if each.decides else "not alike", verdict="warn", detail=str(each)) for each in unlike
    ]
    apart = "in runs of their own: how far the machine differs from run to run is in no interval; compare the bundles"
    checks.append(Check(name="measured apart", verdict="warn", detail=apart))
    for label, each in reports.items():
        checks += _doubts(label, each)
    *_, last = reports.values()
    base = last.model.latency.median
    rows = []
    for label, each in reports.items():
        model, own = each.model, each.model.latency.median
        rows.append(
            Compared(
                label=label, model_id=model.model_id, runtime=model.runtime, latency=model.latency, memory=model.memory,
                energy=model.energy, conditions=model.conditions, bytes=model.bytes, fidelity=each.fidelity,
                milliseconds=own.value, low=own.low, high=own.high,
                speedup=ITSELF if each is last else _quotient(base, own),
            )
        )  # fmt: skip
    return ComparisonReport.of(
        rows, (), limits=limits, device=" and ".join(dict.fromkeys(each.device for each in reports.values())),
        environment=_shared([each.environment for each in reports.values()]), checks=checks, command=command,
    )  # fmt: skip


def _same_original(sides: Sequence[Side], facts: Sequence[Facts]) -> list[Check]:
    sources = {side.label: fact.source for side, fact in zip(sides, facts, strict=True)}
    if len(set(sources.values())) == 1:
        return []
    told = "each cosine is to another original: " + ", ".join(f"{label} {source}" for label, source in sources.items())
    return [Check(name="one original", verdict="warn", detail=told)]


def _quotient(base: Quantile, own: Quantile) -> Quantile:
    """The ratio of two medians of separate runs: by the far ends of both intervals, so it holds with 90 % at least."""
    low = base.low / own.high if base.low is not None and own.high is not None else None
    high = base.high / own.low if base.high is not None and own.low is not None else None
    return Quantile(0.5, base.value / own.value, low, high, is_max=False)


def _doubts(label: str, report: ProfileReport) -> list[Check]:
    """What is said against a saved profile, but for what is said of the model that it was set against there."""
    of_other = None if report.against is None else f", {report.against.label}"
    return [
        Check(name=f"{label}: {check.name}", verdict=check.verdict, detail=check.detail)
        for check in report.checks
        if check.verdict == "warn" and not (of_other and check.name.endswith(of_other))
    ]


def _shared(environments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all were measured in."""
    first, *others = environments
    return {key: value for key, value in first.items() if all(each.get(key) == value for each in others)}
