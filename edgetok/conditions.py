"""What a measurement cost in energy, and whether the machine stayed as it was: from a recorder's moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetok.recorder import Moment
from edgetok.sensors import Reading, Sensor

POINTS = 200  # of a line in a report


@dataclass(frozen=True)
class Span:
    """How a value went over a measurement."""

    start: float
    lowest: float
    highest: float
    end: float


@dataclass(frozen=True)
class Energy:
    """Energy of one run, in joules, and power, in watts.

    Attributes:
        source: which rails or counters of what, or why there are none.
        gross: of the machine, over the time that a run takes; None where it is not known.
        net: without what it takes idle.
        watts: the mean while the model ran.
        idle_watts: the mean before it was loaded.
        readings: how many there were while the model ran.
    """

    source: str
    gross: float | None = None
    net: float | None = None
    watts: float | None = None
    idle_watts: float | None = None
    readings: int = 0


@dataclass(frozen=True)
class Conditions:
    """Temperatures, clocks and power saving while the model ran.

    Attributes:
        celsius: by zone.
        megahertz: by clock.
        throttles: how often the hardware slowed itself down, by reason; empty where it does not say.
    """

    celsius: dict[str, Span]
    megahertz: dict[str, Span]
    throttles: dict[str, int]


def energy(
    sensors: Sequence[Sensor], moments: Sequence[Moment], window: tuple[float, float], runs: int,
    idle: Sequence[Moment],
) -> Energy:  # fmt: skip
    """The energy of a run, from the first sensor that knows power.

    Args:
        sensors: those of the moments.
        moments: those of the measurement, one beyond either end.
        window: when the runs began and ended, in seconds.
        runs: how many there were.
        idle: the moments before the model was loaded.
    """
    for place, sensor in enumerate(sensors):
        readings = [moment.readings[place] for moment in moments]
        kind = "joules" if any(reading.joules for reading in readings) else "watts"
        names = {name for reading in readings for name in getattr(reading, kind)}
        total = sensor.total(names) if names else ()
        if names and not total:
            return Energy(f"unavailable: {sensor.name}'s rails {', '.join(sorted(names))} are not known as a whole")
        if total and (joules := _joules(moments, place, kind, total, window)) is not None:
            seconds = window[1] - window[0]
            span = (idle[0].seconds, idle[-1].seconds) if idle else (0.0, 0.0)
            resting = _joules(idle, place, kind, total, span) if span[1] > span[0] else None
            idle_watts = None if resting is None else resting / (span[1] - span[0])
            return Energy(
                source=f"{sensor.name} of the {sensor.scope}: {' + '.join(total)}",
                gross=joules / runs,
                net=None if idle_watts is None else (joules - idle_watts * seconds) / runs,
                watts=joules / seconds,
                idle_watts=idle_watts,
                readings=sum(window[0] <= moment.seconds <= window[1] for moment in moments),
            )
    return Energy("unavailable: this machine lets nobody read its power" if not sensors else _silent(sensors))


def conditions(moments: Sequence[Moment]) -> Conditions:
    """How temperatures and clocks went, and what happened in between."""
    readings = [_merged(moment) for moment in moments]
    if not readings:
        return Conditions({}, {}, {})
    first, last = readings[0].throttles, readings[-1].throttles
    return Conditions(
        celsius=_spans([reading.celsius for reading in readings]),
        megahertz=_spans([reading.megahertz for reading in readings]),
        throttles={name: last[name] - first.get(name, 0) for name in last},
    )


def memory_line(moments: Sequence[Moment]) -> tuple[tuple[float, int], ...]:
    """(seconds since the first moment, bytes), thinned out to what a figure shows."""
    known = [(moment.seconds, moment.memory) for moment in moments if moment.memory is not None]
    step = -(-len(known) // POINTS) or 1
    return tuple((round(seconds - known[0][0], 3), memory) for seconds, memory in known[::step])


def _joules(
    moments: Sequence[Moment], place: int, kind: str, names: Sequence[str], window: tuple[float, float]
) -> float | None:
    """What the named rails or counters took within the window; None where too little was read."""
    import numpy as np

    known = [
        (moment.seconds, sum(values[name] for name in names))
        for moment in moments
        if (values := getattr(moment.readings[place], kind)).keys() >= set(names)
    ]
    if len(known) < 2:
        return None
    seconds, values = np.array(known).T
    if kind == "watts":  # trapezia
        values = np.concatenate([[0.0], np.cumsum(np.diff(seconds) * (values[1:] + values[:-1]) / 2)])
    start, end = np.interp(window, seconds, values)
    return float(end - start)


def _merged(moment: Moment) -> Reading:
    celsius: dict[str, float] = {}
    megahertz: dict[str, float] = {}
    throttles: dict[str, int] = {}
    for reading in moment.readings:
        celsius |= reading.celsius
        megahertz |= reading.megahertz
        throttles |= reading.throttles
    return Reading(celsius=celsius, megahertz=megahertz, throttles=throttles)


def _spans(values: Sequence[dict[str, float]]) -> dict[str, Span]:
    names = dict.fromkeys(name for each in values for name in each)
    lines = {name: [each[name] for each in values if name in each] for name in names}
    return {name: Span(line[0], min(line), max(line), line[-1]) for name, line in lines.items()}


def _silent(sensors: Sequence[Sensor]) -> str:
    return f"unavailable: {', '.join(sensor.name for sensor in sensors)} told no power"
