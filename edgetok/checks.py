"""What a reader must know before trusting the figures: whether the machine was idle, and the runs steady and enough."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from edgetok import pace
from edgetok.comparison import Comparison
from edgetok.layers import LayerTable
from edgetok.parts import Part, together
from edgetok.report import Check, Latency, Verdict
from edgetok.statistics import runs_needed

if TYPE_CHECKING:
    from edgetok.profiling import Effort

DRIFT, PROFILER_COST, UNEXPLAINED, LOAD, UNLIKE = 0.05, 0.1, 0.05, 0.25, 0.1  # beyond these the report warns
STALL = 10  # times the median: beyond it a run was held up
WATCHED = 0.5  # seconds in which others are seen to use the machine


def load_check() -> Check:
    """Whether other processes use the machine now; to be asked before anything is run.

    The load average would still hold what was run in the minute before.
    """
    import psutil

    cores, own = os.cpu_count() or 1, time.process_time()
    busy = psutil.cpu_percent(interval=WATCHED) / 100 * cores
    others = max(0.0, busy - (time.process_time() - own) / WATCHED)
    told = f"others kept {others:.2f} of {cores} cores busy at the start"
    return Check(name="idle machine", verdict="pass" if others <= LOAD * cores else "warn", detail=told)


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
    """Whether a side's runs may be trusted: nothing slowed or held them up, they were steady, enough, and of one pace.

    Args:
        label: of the side.
        latency: every run of it.
        throttles: how often the hardware slowed itself down meanwhile, by reason; empty where it does not say.
        effort: what was asked of the measurement.
    """
    needed, percentile = max(effort.least, runs_needed(effort.percentile)), f"p{effort.percentile * 100:g}"
    slowed = ", ".join(f"{reason} ({count})" for reason, count in throttles.items() if count)
    warm, uneven, stalled = latency.warm_up, pace.in_words(latency.milliseconds), _stalls(latency.milliseconds)
    return [
        *([_check("throttling", label, not slowed, slowed or "none counted")] if throttles else []),
        _check("warm-up", label, warm.steady, f"{'steady' if warm.steady else 'not steady'} after {warm.runs} runs"),
        _check(
            "drift", label, abs(latency.drift) <= DRIFT,
            f"second half of the runs {latency.drift:+.1%} against the first",
        ),
        _check("pace", label, uneven is None, uneven or "no slow spell, no two speeds"),
        _check("stalls", label, stalled is None, stalled or f"no run took {STALL} times the median"),
        _check("runs", label, latency.runs >= needed, f"{latency.runs} made, {percentile} needs {needed}"),
    ]  # fmt: skip


def _stalls(milliseconds: Sequence[float]) -> str | None:
    """Runs that something held up; None where there are none."""
    most = STALL * median(milliseconds)
    if not (stalled := [each for each in milliseconds if each > most]):
        return None
    told = f"{len(stalled)} of {len(milliseconds)} runs took more than {STALL} times the median"
    return f"{told}, up to {max(stalled):.4g} ms"


def layer_checks(label: str, latency: Latency, layers: LayerTable) -> list[Check]:
    """Whether runs with the profiler on are like those without, and nodes account for them."""
    slower, unexplained = layers.whole / latency.median.value - 1, layers.between_nodes / layers.whole
    return [
        _check("profiler", label, abs(slower) <= PROFILER_COST, f"a run takes {slower:+.1%} with it on"),
        _check("layers", label, abs(unexplained) <= UNEXPLAINED, f"{unexplained:.1%} of a run lies between nodes"),
    ]


def parts_checks(label: str, latency: Latency, parts: Sequence[Part]) -> list[Check]:
    """Whether the parts of a run are as long as a run; on a card they overlap, and its latency leaves copies out."""
    if not parts or any(part.where != "host" for part in parts):
        return []
    apart = together(parts)["host"] / latency.median.value - 1
    return [_check("parts", label, abs(apart) <= PROFILER_COST, f"a run takes {apart:+.1%} where its parts are timed")]


def _check(name: str, label: str, passed: bool, detail: str) -> Check:
    return Check(name=f"{name}, {label}", verdict="pass" if passed else "warn", detail=detail)
