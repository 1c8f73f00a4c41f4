"""The figures of several choices side by side: which are worth having, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import TYPE_CHECKING

from edgetok.comparison_report import ComparisonReport
from edgetok.page.drawing import FAINT, INK, SERIES, drawing, svg
from edgetok.pareto import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKER, LEAST_MARKER = 110.0, 20.0  # square points: of the largest file, and at least
LONGEST = 28  # letters of a name in a figure
ALIKE = 0.02  # files whose sizes differ by a smaller share get one marker


def pareto(points: Sequence[Point], *, least: float | None = None, most: float | None = None) -> str | None:
    """Latency against fidelity, the front as a line, what is beaten in grey; numbers are those of the points.

    Args:
        points: numbered from 1 in this order; those that were never compared are left out.
        least: the cosine that is demanded.
        most: the milliseconds that are allowed.

    Returns:
        None where fewer than two have a cosine.
    """
    known = [(number, point, point.cosine) for number, point in enumerate(points, 1) if point.cosine is not None]
    if len(known) < 2:
        return None
    nearness = _Nearness([cosine for *_, cosine in known])
    with drawing("pareto", 3.6) as (figure, (axes,)):
        for number, point, cosine in known:
            if point.low is not None and point.high is not None and point.high > point.low:
                axes.plot([point.low, point.high], [nearness(cosine)] * 2, color=FAINT, linewidth=1, zorder=1)
            _mark(axes, number, point, (point.milliseconds, nearness(cosine)), _area(point, points))
        _front(axes, [(point.milliseconds, nearness(cosine)) for _, point, cosine in known if point.best])
        if least is not None:
            axes.axhline(nearness(least), color=INK, linewidth=0.8, linestyle=":")
        if most is not None:
            axes.axvline(most, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlabel("ms of a run")
        axes.margins(x=0.08, y=0.14)
        nearness.along(axes)
        _legend(axes, points)
        return svg(figure)


def energy(points: Sequence[Point]) -> str | None:
    """Energy of a run against fidelity; None where the machine did not tell it of every one."""
    known = [(point, point.joules, point.cosine) for point in points]
    if len(points) < 2 or any(joules is None or cosine is None for _, joules, cosine in known):
        return None
    nearness = _Nearness([cosine or 0.0 for *_, cosine in known])
    with drawing("energy", 2.8) as (figure, (axes,)):
        for number, (point, joules, cosine) in enumerate(known, 1):
            _mark(axes, number, point, (joules or 0.0, nearness(cosine or 0.0)), _area(point, points))
        axes.set_xlabel("joules of a run, gross")
        axes.margins(x=0.08, y=0.15)
        nearness.along(axes)
        return svg(figure)


def spread(report: ComparisonReport) -> str:
    """How the runs of each model are distributed when it runs alone: fastest, median, p90 and p99."""
    with drawing("spread", _height(len(report.rows))) as (figure, (axes,)):
        for place, row in enumerate(report.rows):
            found = row.latency
            axes.plot([found.fastest, found.p99.value], [place] * 2, color=SERIES[0], linewidth=1.2)
            axes.plot([found.fastest, found.p90.value], [place] * 2, color=SERIES[0], linewidth=6, alpha=0.5)
            axes.plot([found.median.value], [place], "|", color=INK, markersize=11, markeredgewidth=1.6)
        _rows(axes, report)
        axes.set(xlabel="ms of a run, alone; thick: fastest to p90, thin: to p99, line: median")
        return svg(figure)


def rounds(report: ComparisonReport) -> str | None:
    """The ratio of every round to the last model, with the median's interval; None where none were made."""
    if not report.rounds:
        return None
    base = next(place for place, row in enumerate(report.rows) if row.label == report.against)
    with drawing("rounds", _height(len(report.rows))) as (figure, (axes,)):
        for place, row in enumerate(report.rows):
            if place == base:
                continue
            ratios = [each[base] / each[place] for each in report.rounds]
            if row.speedup.low is not None and row.speedup.high is not None:
                axes.plot(
                    [row.speedup.low, row.speedup.high], [place] * 2, color=SERIES[0], linewidth=7, alpha=0.35,
                    solid_capstyle="butt",
                )  # fmt: skip
            axes.plot(ratios, [place] * len(ratios), "o", color=SERIES[0], markersize=3)
        axes.axvline(1, color=INK, linewidth=1, linestyle=":")
        _rows(axes, report)
        axes.set(xlabel=f"times as fast as {report.against}; points: rounds, bar: 95 % interval")
        return svg(figure)


class _Nearness:
    """The axis of cosines, by the logarithm of what they lack of 1: 0.9, 0.99 and 0.999 are equally far apart.

    A cosine of 1 is drawn a step above the nearest of the others.
    """

    def __init__(self, cosines: Sequence[float]):
        lacking = [1 - cosine for cosine in cosines if cosine < 1]
        self._least = min(lacking, default=1e-3) / 3

    def __call__(self, cosine: float) -> float:
        return -log10(max(1 - cosine, self._least))

    def along(self, axes: Axes) -> None:
        """Label the vertical axis; its ticks are those of these cosines that lie within it."""
        low, high = axes.get_ylim()
        places = {self(cosine): f"{cosine:.10g}" for cosine in (-1, 0, 0.5, 0.8, *_nines())}
        top = self(1.0)
        shown = {place: name for place, name in places.items() if low <= place <= min(high, top - 0.2)}
        if top <= high:
            shown[top] = "1"
        axes.set_yticks(list(shown), list(shown.values()))
        axes.set_ylim(low, high)
        axes.set_ylabel("cosine to the original")


def _nines() -> list[float]:
    """0.9, 0.95, 0.98, 0.99, 0.995 and so on, to six nines."""
    return [round(1 - step * 10.0**-power, 8) for power in range(1, 7) for step in (1, 0.5, 0.2)]


def _mark(axes: Axes, number: int, point: Point, place: tuple[float, float], area: float) -> None:
    color = SERIES[1] if point.chosen else SERIES[0] if point.best else FAINT
    scale = 2.6 if point.chosen else 1.0  # a star of the same area looks smaller than a disc
    marker = "*" if point.chosen else "o"
    axes.scatter(*place, s=area * scale, color=color, marker=marker, linewidths=0, zorder=3)
    # Nothing is faster and nearer than a point of the front: the room to its upper left is free.
    offset, side = ((-4, 5), "right") if point.best or point.chosen else ((4, -11), "left")
    axes.annotate(
        str(number), place, offset, textcoords="offset points", fontsize=9, ha=side,
        fontweight="bold" if point.chosen else "normal", color=INK if point.best or point.chosen else FAINT,
    )  # fmt: skip


def _area(point: Point, among: Sequence[Point]) -> float:
    """Of a marker: as the bytes of the files, where these are known and differ."""
    sizes = [each.bytes for each in among]
    known = [size for size in sizes if size]
    if len(known) < len(sizes) or max(known) <= (1 + ALIKE) * min(known):
        return MARKER / 2
    return max(LEAST_MARKER, MARKER * (point.bytes or 0) / max(known))


def _front(axes: Axes, figures: Sequence[tuple[float, float]]) -> None:
    if len(figures) > 1:
        times, cosines = zip(*sorted(figures), strict=True)
        axes.plot(times, cosines, color=SERIES[0], linewidth=1, alpha=0.6, drawstyle="steps-post", zorder=2)


def _legend(axes: Axes, points: Sequence[Point]) -> None:
    from matplotlib.lines import Line2D

    chosen = [f"chosen: {number} {_short(each.label)}" for number, each in enumerate(points, 1) if each.chosen]
    kinds = [(name, SERIES[1], "*") for name in chosen]
    if any(each.best and not each.chosen for each in points):
        kinds.append(("on the front", SERIES[0], "o"))
    if any(not each.best and not each.chosen and each.cosine is not None for each in points):
        kinds.append(("beaten", FAINT, "o"))
    shown = [Line2D([], [], color=color, marker=marker, linestyle="", label=name) for name, color, marker in kinds]
    axes.legend(handles=shown, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))


def _rows(axes: Axes, report: ComparisonReport) -> None:
    names = [f"{number} {_short(row.label)}" for number, row in enumerate(report.rows, 1)]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(report.rows) - 0.5, -0.5)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}…"


def _height(rows: int) -> float:
    return 0.7 + 0.28 * rows
