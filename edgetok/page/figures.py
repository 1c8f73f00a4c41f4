"""The figures of a profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgetok.comparison import Comparison
from edgetok.layers import LayerTable, Operator
from edgetok.page.drawing import INK, SERIES, drawing, svg
from edgetok.report import Measured
from edgetok.roofline import Roofline

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def latency(sides: Sequence[Measured]) -> str:
    """How the runs are distributed, and in which order they came: bimodal and drifting runs show."""
    with drawing("latency", 3.2, panels=2) as (figure, (spread, order)):
        highest = max(side.latency.p99.value for side in sides) * 1.1
        lowest = min(side.latency.fastest for side in sides)
        for color, side in zip(SERIES, sides, strict=False):
            times = side.latency.milliseconds
            bins = [lowest + (highest - lowest) * i / 40 for i in range(41)]
            clipped = [min(time, highest) for time in times]
            weights = [100 / len(times)] * len(times)
            spread.hist(clipped, bins=bins, weights=weights, color=color, alpha=0.6, label=side.label)
            spread.axvline(side.latency.median.value, color=color, linewidth=1.5)
            order.plot(range(1, len(times) + 1), times, ".", color=color, markersize=3)
        spread.set(xlabel="ms", ylabel="% of the runs")
        order.set(xlabel="run, in the order made", ylabel="ms")
        spread.legend()
        return svg(figure)


def speedup(comparison: Comparison) -> str:
    """The ratio of every round, with the median's interval."""
    with drawing("speedup", 1.6) as (figure, (axes,)):
        ratios = [theirs / ours for ours, theirs in comparison.rounds]
        low, high = comparison.speedup.low, comparison.speedup.high
        if low is not None and high is not None:
            axes.axvspan(low, high, color=SERIES[0], alpha=0.25, linewidth=0, label="95 % interval")
        axes.plot(ratios, range(1, len(ratios) + 1), "o", color=SERIES[0], markersize=4, label="a round")
        axes.axvline(1, color=INK, linewidth=1, linestyle=":", label="equally fast")
        axes.set(xlabel=f"times as fast as {comparison.against}", ylabel="round")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return svg(figure)


def tokens(table: LayerTable) -> str | None:
    """How many tokens enter each block; None where that is not known."""
    blocks = [layer for layer in table.layers if layer.tokens_in is not None]
    if not blocks:
        return None
    with drawing("tokens", 2.2) as (figure, (axes,)):
        entering, last = [layer.tokens_in or 0 for layer in blocks], blocks[-1].tokens_out or 0
        axes.bar(range(len(blocks)), entering, color=SERIES[0], alpha=0.6, label="enter the block")
        leaving = [*entering[1:], last]
        axes.bar(range(len(blocks)), leaving, color=SERIES[0], label="leave it")
        _blocks_along(axes, [layer.name for layer in blocks])
        axes.set(ylabel="tokens")
        axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
        return svg(figure)


def blocks(table: LayerTable, unreduced: LayerTable | None) -> str | None:
    """Time of each block by part, and of the same block in the model compared with; None where none was recognised."""
    if not any(layer.name.startswith("blocks.") for layer in table.layers):
        return None
    with drawing("blocks", 3) as (figure, (axes,)):
        names, bottom = [layer.name for layer in table.layers], [0.0] * len(table.layers)
        parts: dict[str, list[float]] = {
            name: [getattr(layer, name) or 0.0 for layer in table.layers] for name in ("attention", "mlp", "reduce")
        }
        known = [sum(each) for each in zip(*parts.values(), strict=True)]
        parts["other"] = [layer.milliseconds - part for layer, part in zip(table.layers, known, strict=True)]
        for color, (name, heights) in zip(SERIES, parts.items(), strict=True):
            if any(height > 1e-6 for height in heights):
                axes.bar(range(len(names)), heights, bottom=bottom, color=color, label=name)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        if unreduced is not None:
            before = {layer.name: layer.milliseconds for layer in unreduced.layers}
            places = [i for i, name in enumerate(names) if name in before]
            axes.plot(places, [before[names[i]] for i in places], "_", color=INK, markersize=14, label="compared with")
        _blocks_along(axes, names)
        axes.set(ylabel="ms")
        axes.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1))
        return svg(figure)


def operators(found: Sequence[Operator]) -> str:
    """Time by kind of operator, the most first."""
    with drawing("operators", 0.6 + 0.25 * len(found)) as (figure, (axes,)):
        names = [f"{each.op} × {each.calls}" for each in found]
        axes.barh(names, [each.milliseconds for each in found], color=SERIES[0])
        axes.invert_yaxis()
        axes.set(xlabel="ms of a run")
        return svg(figure)


def memory(sides: Sequence[Measured]) -> str | None:
    """Resident memory of each side's process while it was measured; None where nothing was read."""
    if not any(side.memory.timeline for side in sides):
        return None
    with drawing("memory", 1.8) as (figure, (axes,)):
        for color, side in zip(SERIES, sides, strict=False):
            seconds, held = zip(*side.memory.timeline, strict=True)
            axes.plot(seconds, [each / 1e6 for each in held], color=color, label=side.label)
        axes.set(xlabel="seconds since loading", ylabel="MB resident")
        axes.set_ylim(0, 1.1 * max(each for side in sides for _, each in side.memory.timeline) / 1e6)
        axes.legend(loc="lower right")
        return svg(figure)


def roofline(found: Roofline, milliseconds: float) -> str | None:
    """The run below the device's peaks, both axes logarithmic; None where no peak is known."""
    if found.roof is None:
        return None
    with drawing("roofline", 2.6) as (figure, (axes,)):
        intensity = found.work.operations / found.work.bytes
        reached, peak = found.work.operations / milliseconds * 1e-6, found.roof.operations / 1e9
        around = [intensity / 30, intensity * 30]
        axes.loglog(around, [peak, peak], color=SERIES[1], label=f"{found.precision} peak")
        if found.roof.bandwidth:
            slope = [each * found.roof.bandwidth / 1e9 for each in around]
            axes.loglog(around, slope, color=SERIES[2], label="memory")
        axes.loglog([intensity], [reached], "o", color=SERIES[0], label="measured")
        axes.set(xlabel="operations for each byte of weights, inputs and outputs", ylabel="GFLOP/s")
        axes.set_ylim(reached / 10, peak * 3)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return svg(figure)


def _blocks_along(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), [name.removeprefix("blocks.") for name in names], fontsize=7)
    axes.set_xlabel("block")
    if len(names) > 24:  # no room for every name
        axes.set_xticks(range(0, len(names), len(names) // 12))
