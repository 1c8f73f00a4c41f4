"""What differs between the states of the machines that saved profiles were measured on.

Figures of two runs say something about two models only if all else was alike. What decides over latency is a reason to
refuse: another processor, power mode, governor, clock, runtime or batch, or hardware that slowed itself down in one
run only. What may play a part is told: another kernel, a warmer start, a busier machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgetok.report import Measured, ProfileReport

DECIDING = ("machine", "cpu", "board", "cores", "cpu_quota", "governors", "max_mhz", "power_mode")  # of the environment
TOLD = ("cpu_features", "memory_bytes", "system", "kernel", "python")
CLOCK, WARMER = 0.05, 15.0  # the share by which clocks may be apart, and degrees at the start


@dataclass(frozen=True)
class Difference:
    """One thing that was not the same.

    Attributes:
        name: what.
        values: how it was, by report.
        decides: whether it decides over latency.
    """

    name: str
    values: Mapping[str, str]
    decides: bool

    def __str__(self) -> str:
        return f"{self.name}: " + ", ".join(f"{value} ({label})" for label, value in self.values.items())


def differences(reports: Mapping[str, ProfileReport]) -> tuple[Difference, ...]:
    """What was not the same when each report's model was measured; what decides comes first.

    Args:
        reports: by label.
    """
    runs = {label: each.model for label, each in reports.items()}
    environments = {label: each.environment for label, each in reports.items()}
    packages = _packages(environments)
    others = dict.fromkeys(name for each in packages.values() for name in each if name != "edgetok")

    def environment(name: str) -> dict[str, Any]:
        return {label: each.get(name) for label, each in environments.items()}

    def package(name: str) -> dict[str, Any]:
        return {label: each.get(name) for label, each in packages.items()}

    found = [
        *unlike_machines(environments),
        _unlike("device", {label: each.device for label, each in reports.items()}),
        _unlike("runtime", {label: ", ".join(run.runtime.values()) for label, run in runs.items()}),
        _unlike("batch", {label: run.latency.batch for label, run in runs.items()}),
        _unlike("scenario", {label: each.scenario for label, each in reports.items()}),
        _unlike("what is timed", {label: run.latency.scope for label, run in runs.items()}),
        _throttling(runs),
        _clocks(runs),
        *(_unlike(name.replace("_", " "), environment(name), decides=False) for name in TOLD),
        *(_unlike(name, package(name), decides=False) for name in others),
        _warmth(runs),
    ]
    return tuple(each for each in found if each is not None)


def unlike_machines(environments: Mapping[str, Mapping[str, Any]]) -> list[Difference]:
    """What differs between machines and decides over latency, edgetok's version among it.

    Args:
        environments: `edgetok.fingerprint.Environment` as JSON, by label.
    """
    found = [
        *(
            _unlike(name.replace("_", " "), {label: each.get(name) for label, each in environments.items()})
            for name in DECIDING
        ),
        _unlike("edgetok", {label: each.get("edgetok") for label, each in _packages(environments).items()}),
    ]
    return [each for each in found if each is not None]


def _packages(environments: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {label: each.get("packages") or {} for label, each in environments.items()}


def _unlike(name: str, values: Mapping[str, Any], *, decides: bool = True) -> Difference | None:
    told = {label: _told(value) for label, value in values.items()}
    return Difference(name, told, decides) if len(set(told.values())) > 1 else None


def _told(value: Any) -> str:
    if value is None or value == []:
        return "not told"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _throttling(runs: Mapping[str, Measured]) -> Difference | None:
    """Whether the hardware slowed itself down in some runs only; how often makes no difference."""
    counts = {label: sum(run.conditions.throttles.values()) for label, run in runs.items()}
    told = {label: f"{count} times" if count else "never" for label, count in counts.items()}
    return Difference("throttled", told, True) if len({count > 0 for count in counts.values()}) > 1 else None


def _clocks(runs: Mapping[str, Measured]) -> Difference | None:
    """Clocks that all runs tell of: the highest that each reached, which idle moments do not lower."""
    shared = set.intersection(*(set(run.conditions.megahertz) for run in runs.values())) if runs else set()
    if not shared:
        return None
    highest = {label: max(run.conditions.megahertz[name].highest for name in shared) for label, run in runs.items()}
    if max(highest.values()) <= (1 + CLOCK) * min(highest.values()):
        return None
    return Difference("highest clock", {label: f"{mhz:.0f} MHz" for label, mhz in highest.items()}, True)


def _warmth(runs: Mapping[str, Measured]) -> Difference | None:
    shared = set.intersection(*(set(run.conditions.celsius) for run in runs.values())) if runs else set()
    if not shared:
        return None
    start = {label: max(run.conditions.celsius[name].start for name in shared) for label, run in runs.items()}
    if max(start.values()) - min(start.values()) <= WARMER:
        return None
    return Difference("temperature at the start", {label: f"{value:.0f} °C" for label, value in start.items()}, False)
