"""Activations of eight bits, written into the graph: a QuantizeLinear and a DequantizeLinear in front of each product.

A runtime that has such products fuses the pair into them (TensorRT, ONNX Runtime); any other rounds, and computes as
before. Scales are static, one for a tensor, symmetric, found on samples: of all ranges from half of the largest value
up, the one with the least squared error. That is the low-bit path of Jetson Orin, which has neither FP8 nor FP4.

`migrate=true` first does what Outlier Suppression+ does (`os_plus.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok import options
from edgetok.calibration import Run
from edgetok.errors import UnknownName, UsageError
from edgetok.lowbit.linear import activations, find_linears
from edgetok.lowbit.quantiser import Where

LARGEST = {"int8": 127.0, "fp8": 448.0}  # that the type holds
RANGES = np.linspace(0.5, 1.0, 26)  # of the largest value
FEWEST = 64  # rows that a range is found on; fewer say little about outliers


@dataclass(frozen=True)
class Config:
    """Options of --activations.

    Attributes:
        attention: whether the products inside attention take rounded queries, keys and values as well.
        migrate: whether outliers are moved into the weights first.
    """

    attention: bool = True
    migrate: bool = False


@dataclass(frozen=True)
class Spec:
    """What the user asked for: `int8:skip=head,migrate=true`."""

    dtype: str
    where: Where
    config: Config

    def __str__(self) -> str:
        given = options.spelt(self.config) + options.spelt(self.where)
        return self.dtype + (":" + ",".join(given) if given else "")


def parse(text: str) -> Spec:
    """Read `int8` or `fp8` with options.

    Raises:
        UnknownName: another type, or no such option.
        UsageError: a value that the option does not take.
    """
    name, given = options.split(text, "skip=head,migrate=true")
    if name not in LARGEST:
        raise UnknownName("type of activations", name, LARGEST)
    options.check_known(name, given, (Where, Config))
    return Spec(name, options.build(Where, given), options.build(Config, given))


def round_activations(model: ir.Model, spec: Spec, run: Run | None) -> int:
    """Write the pairs into a graph whose nodes are named, in place; before its weights are quantised.

    Returns:
        How many values are rounded.

    Raises:
        UsageError: there are no samples, or too few.
    """
    if run is None:
        raise UsageError(
            f"--activations {spec.dtype} finds ranges on samples: give --samples DIR, with files for the model"
        )
    if spec.config.migrate:
        from edgetok.lowbit.os_plus import migrate

        migrate(model, spec, run)
    values = inputs_of_products(model, spec)
    seen = activations(model, values, run)
    for value in values:
        rows = seen[value].rows
        if len(rows) < FEWEST:
            raise UsageError(f"--activations {spec.dtype}: the samples give {len(rows)} rows, {FEWEST} are the fewest")
        _round(model, value, clipped(rows, spec.dtype), spec)
    return len(values)


def inputs_of_products(model: ir.Model, spec: Spec) -> list[ir.Value]:
    """What feeds the linear layers, and the attention, of the parts that are not skipped."""
    found = [linear.input for linear in find_linears(model.graph) if spec.where.takes(linear.name)]
    if spec.config.attention:
        for node in model.graph:
            if node.op_type in ("Attention", "ProportionalAttention") and spec.where.takes(node.name or ""):
                found += [value for value in node.inputs[:3] if value is not None]
    return list(dict.fromkeys(found))


def clipped(rows: np.ndarray, dtype: str) -> float:
    """The scale whose rounding has the least squared error."""
    largest = float(np.abs(rows).max(initial=0))
    if largest == 0:
        return 1.0
    scales = RANGES * largest / LARGEST[dtype]
    errors = [float(np.square(rounded(rows, scale, dtype) - rows, dtype=np.float64).sum()) for scale in scales]
    return float(scales[len(scales) - 1 - int(np.argmin(errors[::-1]))])  # the widest of the best


def rounded(rows: np.ndarray, scale: float, dtype: str) -> np.ndarray:
    """Through eight bits and back."""
    steps = np.clip(rows / np.float32(scale), -LARGEST[dtype] - (dtype == "int8"), LARGEST[dtype])
    if dtype == "int8":
        return np.rint(steps) * np.float32(scale)
    return steps.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.float32(scale)


def _round(model: ir.Model, value: ir.Value, scale: float, spec: Spec) -> None:
    """Let the products of a value read it rounded."""
    users = [
        (node, place)
        for node, place in g.consumers(value)
        if node.op_type in ("MatMul", "Gemm", "Attention", "ProportionalAttention")
        and spec.where.takes(node.name or "")
    ]
    order = {node: place for place, node in enumerate(model.graph)}
    first, place = min(users, key=lambda user: order[user[0]])
    op = g.Emitter(model.graph, before=first)
    assert value.dtype is not None
    step = np.array(scale, value.dtype.numpy())
    zero = np.zeros((), np.int8 if spec.dtype == "int8" else ml_dtypes.float8_e4m3fn)
    small = g.named(op.QuantizeLinear(value, step, zero), f"{first.name}.Quantize.{place}")
    wide = g.named(op.DequantizeLinear(small, step, zero), f"{first.name}.Dequantize.{place}")
    g.typed(wide, value.dtype, list(value.shape or ()))
    for node, index in users:
        node.replace_input_with(index, wide)
