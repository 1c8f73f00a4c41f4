"""How long a run must take at least on a device, by its arithmetic and by the bytes that it must move.

Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore architectures",
Communications of the ACM 52(4), 2009 (https://doi.org/10.1145/1498765.1498785). Operations are those of the multiplying
operators (`flops.macs`), a multiply-add is two; bytes are those of the weights, inputs and outputs, each once. What a
run reads again, or keeps in between, makes it slower than this, never faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgetok.fingerprint import cores_available, highest_mhz, power_mode

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgetok.device import Device
    from edgetok.machine import Machine

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]


@dataclass(frozen=True)
class Work:
    """What one run computes and moves.

    Attributes:
        operations: additions and multiplications.
        bytes: of weights, inputs and outputs.
    """

    operations: int
    bytes: int


@dataclass(frozen=True)
class Roof:
    """What a device can do at most.

    Attributes:
        operations: each second, dense.
        bandwidth: bytes each second; None where it is not known.
        source: what that is made of, and whether the clock is the live one.
    """

    operations: float
    bandwidth: float | None
    source: str


@dataclass(frozen=True)
class Roofline:
    """A run below the roof.

    Attributes:
        precision: of the products.
        work: of one run.
        roof: None where the device's peak is not known.
        milliseconds: the least that the run can take.
        share: of that in what was measured: 1 is the roof.
        bound: what the least is made of.
    """

    precision: Precision
    work: Work
    roof: Roof | None
    milliseconds: float | None = None
    share: float | None = None
    bound: Literal["arithmetic", "memory"] | None = None

    @classmethod
    def of(cls, precision: Precision, work: Work, roof: Roof | None, measured: float) -> Roofline:
        """Set a measured run, in milliseconds, against the roof."""
        if roof is None:
            return cls(precision, work, None)
        arithmetic = 1e3 * work.operations / roof.operations
        memory = 1e3 * work.bytes / roof.bandwidth if roof.bandwidth else 0.0
        least = max(arithmetic, memory)
        return cls(precision, work, roof, least, least / measured, "memory" if memory > arithmetic else "arithmetic")


def work(model: Path, batch: int) -> Work | None:
    """Count a graph's work for a batch of samples; a batch that the graph fixes is counted once.

    Returns:
        None where the graph does not say how large the inputs of its products are: behind sparse attention, say.
    """
    import onnx_ir as ir

    from edgetok.flops import macs

    graph = ir.load(model).graph
    free = batch if any(not isinstance(dim, int) for value in graph.inputs for dim in value.shape or ()) else 1
    moved = sum(_bytes(value) for value in (*graph.inputs, *graph.outputs))
    weights = sum(value.const_value.nbytes for value in graph.initializers.values() if value.const_value is not None)
    weights += sum(
        node.attributes["value"].as_tensor().nbytes
        for node in graph
        if node.op_type == "Constant" and "value" in node.attributes
    )
    try:
        operations = 2 * sum(macs(node) for node in graph)
    except ValueError:
        return None
    return Work(operations=operations * free, bytes=int(moved * free + weights))


def _bytes(value: ir.Value) -> float:
    """Of an input or output, a free dimension counted once."""
    if value.shape is None or value.dtype is None:
        return 0
    return prod(dim if isinstance(dim, int) else 1 for dim in value.shape) * float(value.dtype.itemsize)


def roof(device: Device, machine: Machine, precision: Precision, root: Path = Path("/")) -> Roof | None:
    """The device's dense peak in the power mode that it is in, or a processor's at its present clock.

    Returns:
        None where the device's profile has no figure for that precision, or no clock can be read.
    """
    # bf16 is computed as fast as fp16 wherever both are known
    precision = "fp16" if precision == "bf16" else precision
    if device.kind == "cpu":
        return _processor(device, machine, precision, root)
    number = power_mode(root)
    live = next((mode for mode in device.modes if number is not None and mode.id == number), None)
    if (peak := device.peak(precision, live.name if live else None)) is None:
        return None
    mode = live or device.mode()
    which = "the mode it is in" if live else "the mode it ships in; nvpmodel does not tell the live one"
    return Roof(peak, mode.bandwidth_gbs * 1e9, f"{mode.units} units at {mode.mhz:g} MHz: {mode.name}, {which}")


def _processor(device: Device, machine: Machine, precision: Precision, root: Path) -> Roof | None:
    """By the last of the instruction sets that the machine has: profiles list the widest last."""
    fitting = [compute for compute in device.compute if set(compute.needs) <= machine.flags]
    per_clock, mhz = getattr(fitting[-1], precision) if fitting else None, highest_mhz(root)
    if per_clock is None or mhz is None:
        return None
    cores = cores_available(root)
    return Roof(
        cores * mhz * 1e6 * per_clock, device.mode().bandwidth_gbs * 1e9 if device.modes else None,
        f"{cores} cores x {mhz:.0f} MHz x {per_clock} a clock ({fitting[-1].source}); two that share a core "
        "reach half, a clock above the one that the system tells reaches more",
    )  # fmt: skip
