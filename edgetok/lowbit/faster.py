"""`keep=faster`: activations stay rounded only in the blocks that are faster for it, by measurement.

Rounding costs a pass over the activations, and pays where the runtime multiplies what it gives as it is. A block keeps
it where the median of the ratios of time without to time with, one for each round of turns, is above 1 with its whole
95 % interval. What attention multiplies is decided by itself, for all blocks together: its products are not those of
the linear layers, and many a runtime has only one of the two in few bits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from edgetok.errors import Refusal
from edgetok.layers import LayerTable
from edgetok.lowbit.activations import Config, LinearConfig, Spec
from edgetok.statistics import Quantile, ratio

# What is timed, in turns: for each spec (None rounds nothing) a table of each round.
Timed = Callable[[Sequence[Spec | None]], Sequence[Sequence[LayerTable]]]


@dataclass(frozen=True)
class Kept:
    """What became of a spec with keep=faster.

    Attributes:
        spec: names what stays rounded, without keep; None where nothing does.
        note: for the user.
    """

    spec: Spec | None
    note: str


def decide(spec: Spec, rounded: Collection[str], timed: Timed) -> Kept:
    """Keep rounding where it is faster.

    Args:
        spec: what the user asked for.
        rounded: the blocks that it rounds something in: "embed", "blocks.3", "head".
        timed: measures.

    Raises:
        Refusal: nothing is rounded in a block that was recognised.
    """
    assert isinstance(spec.config, (Config, LinearConfig))
    everywhere = replace(spec, config=replace(spec.config, keep="all"))
    attention = None
    if isinstance(everywhere.config, Config) and everywhere.config.attention:
        linear = replace(everywhere, config=replace(everywhere.config, attention=False))
        products, linears, plain = timed([everywhere, linear, None])
        attention = ratio([(_attention(a, rounded), _attention(b, rounded)) for a, b in _rounds(linears, products)])
        if not _faster(attention):
            everywhere, products = linear, linears
    else:
        products, plain = timed([everywhere, None])
    gains = {
        block: ratio([(_time(a, block), _time(b, block)) for a, b in _rounds(plain, products)])
        for block in _ordered(rounded, plain[0])
    }
    if not gains:
        raise Refusal(
            "keep=faster decides block by block, and nothing is rounded in a block that was recognised",
            way_out="export without keep=faster; edgetok inspect shows what is there",
        )
    kept = [block for block, gain in gains.items() if _faster(gain)]
    lost = [block.removeprefix("blocks.") for block in gains if block not in kept]
    skip = "/".join(filter(None, [everywhere.where.skip, *lost]))
    result = replace(everywhere, where=replace(everywhere.where, skip=skip)) if kept else None
    return Kept(result, _note(spec, result, gains, kept, attention))


def _rounds(first: Sequence[LayerTable], second: Sequence[LayerTable]) -> list[tuple[LayerTable, LayerTable]]:
    return list(zip(first, second, strict=True))


def _faster(gain: Quantile) -> bool:
    return gain.low is not None and gain.low > 1


def _time(table: LayerTable, block: str) -> float:
    return next(layer.milliseconds for layer in table.layers if layer.name == block)


def _attention(table: LayerTable, blocks: Collection[str]) -> float:
    """Of the blocks' attention; 1 where there is none, which is no faster than any other."""
    times = [layer.attention for layer in table.layers if layer.name in blocks]
    return sum(time for time in times if time is not None) or 1.0


def _ordered(blocks: Collection[str], table: LayerTable) -> list[str]:
    """Those that take time, in the order of the graph."""
    return [layer.name for layer in table.layers if layer.name in blocks]


def _note(
    spec: Spec, result: Spec | None, gains: dict[str, Quantile], kept: Sequence[str], attention: Quantile | None
) -> str:
    if result is None:
        best = max(gains.values(), key=lambda gain: gain.value)
        return (
            f"{spec}: no block is faster with rounded activations on this machine (at best {best} times as fast), "
            "so none are rounded; on a CPU onnxruntime multiplies few bits by few bits for --quantize int8 with "
            "--activations int8 only; "
            f"for another device export with --activations {spec.dtype}, without keep=faster"
        )
    told = ", ".join(f"{block.removeprefix('blocks.')} {gains[block]}" for block in kept)
    lost = [f"{block.removeprefix('blocks.')} {gain}" for block, gain in gains.items() if block not in kept]
    note = f"--activations {result}: kept in {len(kept)} of {len(gains)} blocks, how many times as fast: {told}"
    if lost:
        note += f"; not shown to be faster in {', '.join(lost)}"
    if attention is not None:
        note += f"; attention with rounded inputs: {attention}, {'kept' if _faster(attention) else 'left as it was'}"
    return note
