"""Activations of few bits, written into the graph in front of each product.

`int8` and `fp8` are a QuantizeLinear and a DequantizeLinear. A runtime that has such products fuses the pair into them
(TensorRT, ONNX Runtime); any other rounds, and computes as before. Their scales are static, one for a tensor,
symmetric, found on samples: of all ranges from half of the largest value up, the one with the least squared error.
int8 is the low-bit path of Jetson Orin, which has neither FP8 nor FP4.

`fp4` is NVFP4 (`plugins/round_to_nvfp4.py`): each block of 16 finds its scale as the graph runs, and only the scale of
these scales is static: that of the largest value on the samples. It is for linear layers alone: TensorRT multiplies no
queries and keys of 4 bits.

`migrate=true` first does what Outlier Suppression+ does (`os_plus.py`); `keep=faster` times blocks (`faster.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import ml_dtypes
import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok import options
from edgetok.calibration import Run
from edgetok.errors import UnknownName, UsageError
from edgetok.lowbit import e4m3
from edgetok.lowbit.linear import activations, find_linears
from edgetok.lowbit.quantiser import Where

RANGES = np.linspace(0.5, 1.0, 26)  # of the largest value
NVFP4_LARGEST = 6.0 * e4m3.LARGEST  # of E2M1, times that of a block's scale
KEEP = ("all", "faster")
FEWEST = 64  # rows that a range is found on; fewer say little about outliers


def _check_keep(keep: str) -> None:
    if keep not in KEEP:
        raise UsageError(f"option keep={keep!r}: accepted are {' and '.join(KEEP)}")


@dataclass(frozen=True)
class Config:
    """Options of int8 and fp8.

    Attributes:
        attention: whether the products inside attention take rounded queries, keys and values as well.
        migrate: whether outliers are moved into the weights first.
        keep: "all", or "faster": only in those blocks that this machine is faster in, by measurement.
    """

    attention: bool = True
    migrate: bool = False
    keep: str = "all"

    def __post_init__(self) -> None:
        _check_keep(self.keep)


@dataclass(frozen=True)
class LinearConfig:
    """Options of fp4.

    Attributes:
        migrate: whether outliers are moved into the weights first.
        keep: "all", or "faster": only in those blocks that this machine is faster in, by measurement.
    """

    attention: ClassVar[bool] = False
    migrate: bool = False
    keep: str = "all"

    def __post_init__(self) -> None:
        _check_keep(self.keep)


@dataclass(frozen=True)
class Type:
    """What activations are rounded to.

    Attributes:
        summary: one line for `edgetok quantisers`.
        largest: what a scale of 1 reaches.
        rounded: (rows / scale) -> the same through the type and back, by which a range is sought; None where the
            largest value is the range.
        write: (writes nodes, value, scale, name) -> the value rounded.
        config: the options.
    """

    summary: str
    largest: float
    rounded: Callable[[np.ndarray], np.ndarray] | None
    write: Callable[[g.Emitter, ir.Value, float, str], ir.Value]
    config: type[Config] | type[LinearConfig] = Config


def _pair(zero: np.generic) -> Callable[[g.Emitter, ir.Value, float, str], ir.Value]:
    """QuantizeLinear to the zero's type, and DequantizeLinear."""

    def write(op: g.Emitter, value: ir.Value, scale: float, name: str) -> ir.Value:
        assert value.dtype is not None
        step = np.array(scale, value.dtype.numpy())
        small = g.named(op.QuantizeLinear(value, step, zero), f"{name}.QuantizeLinear")
        return g.named(op.DequantizeLinear(small, step, zero), f"{name}.DequantizeLinear")

    return write


def _nvfp4(op: g.Emitter, value: ir.Value, scale: float, name: str) -> ir.Value:
    return g.named(op.RoundToNVFP4(value, np.float32(scale), domain="edgetok"), f"{name}.RoundToNVFP4")


def _int8(steps: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(steps), -128, 127)


def _e4m3(steps: np.ndarray) -> np.ndarray:
    return e4m3.cast(steps).astype(np.float32)


TYPES = {
    "int8": Type("8-bit integers, one scale for a tensor", 127.0, _int8, _pair(np.int8(0))),
    "fp8": Type("E4M3, one scale for a tensor", e4m3.LARGEST, _e4m3, _pair(ml_dtypes.float8_e4m3fn(0))),
    "fp4": Type("NVFP4: E2M1, E4M3 scales of blocks of 16 found in the run", NVFP4_LARGEST, None, _nvfp4, LinearConfig),
}


@dataclass(frozen=True)
class Spec:
    """What the user asked for: `int8:skip=head,migrate=true`."""

    dtype: str
    where: Where
    config: Config | LinearConfig

    def __str__(self) -> str:
        given = options.spelt(self.config) + options.spelt(self.where)
        return self.dtype + (":" + ",".join(given) if given else "")


def parse(text: str) -> Spec:
    """Read `int8`, `fp8` or `fp4` with options.

    Raises:
        UnknownName: another type, or no such option.
        UsageError: a value that the option does not take.
    """
    name, given = options.split(text, "skip=head,migrate=true")
    if name not in TYPES:
        raise UnknownName("type of activations", name, TYPES)
    config = TYPES[name].config
    options.check_known(name, given, (Where, config))
    return Spec(name, options.build(Where, given), options.build(config, given))


def round_activations(model: ir.Model, spec: Spec, run: Run | None) -> int:
    """Round what products read, in a graph whose nodes are named, in place; before its weights are quantised.

    Returns:
        How many values are rounded.

    Raises:
        UsageError: there are no samples, or too few; a part to skip is none of the model's.
    """
    if run is None:
        raise UsageError(
            f"--activations {spec.dtype} finds ranges on samples: give --samples DIR, with files for the model"
        )
    if spec.config.migrate:
        from edgetok.lowbit.os_plus import migrate

        migrate(model, spec, run)
    readers = readers_of_products(model, spec)
    seen = activations(model, list(readers), run)
    order = {node: place for place, node in enumerate(model.graph)}
    for value, places in readers.items():
        rows = seen[value].rows
        if len(rows) < FEWEST:
            raise UsageError(f"--activations {spec.dtype}: the samples give {len(rows)} rows, {FEWEST} are the fewest")
        first, place = min(places, key=lambda reader: order[reader[0]])
        op = g.Emitter(model.graph, before=first)
        rounded = TYPES[spec.dtype].write(op, value, clipped(rows, spec.dtype), f"{first.name}.{place}")
        g.typed(rounded, value.dtype, list(value.shape or ()))
        for node, index in places:
            node.replace_input_with(index, rounded)
    return len(readers)


def readers_of_products(model: ir.Model, spec: Spec) -> dict[ir.Value, list[tuple[ir.Node, int]]]:
    """What feeds the linear layers, and the attention, of the parts that are not skipped: {value: (node, input)}."""
    places = [(linear.node, 0) for linear in find_linears(model.graph)]
    if spec.config.attention:
        attention = [node for node in model.graph if node.op_type in ("Attention", "ProportionalAttention")]
        places += [(node, place) for node in attention for place in range(3)]
    spec.where.check(node.name or "" for node, _ in places)
    found: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
    for node, place in places:
        value = node.inputs[place]
        if value is not None and spec.where.takes(node.name or ""):
            found.setdefault(value, []).append((node, place))
    return found


def clipped(rows: np.ndarray, dtype: str) -> float:
    """The scale whose rounding has the least squared error; where none is sought, that of the largest value."""
    kind = TYPES[dtype]
    widest = float(np.abs(rows).max(initial=0)) / kind.largest
    if widest == 0 or kind.rounded is None:
        return widest or 1.0
    scales = RANGES * widest
    errors = [float(np.square(rounded(rows, scale, dtype) - rows, dtype=np.float64).sum()) for scale in scales]
    return float(scales[len(scales) - 1 - int(np.argmin(errors[::-1]))])  # the widest of the best


def rounded(rows: np.ndarray, scale: float, dtype: str) -> np.ndarray:
    """Through the type and back."""
    through = TYPES[dtype].rounded
    assert through is not None
    return through(rows / np.float32(scale)) * np.float32(scale)
