"""What cannot run on a device, refused before it is made: `edgetok export --for`.

What hardware and runtimes there have are the profile's facts; the rules that hold a graph against them are those of
`edgetok lint` and of the lowering. A processor computes any weights: what it has no products for is expanded. So does
any device with weights from a table, by the operator LutMatMul.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgetok.errors import Refusal

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgetok.device import Device, Precision
    from edgetok.lowbit.activations import Spec as Rounding
    from edgetok.lowbit.quantiser import Spec

TRIAL = 16, 64  # outputs and inputs of a matrix that is quantised to see what a quantiser makes


def refuse_formats(device: Device, dtype: Precision, weights: Sequence[Spec], rounded: Rounding | None) -> None:
    """Make sure that a device can hold and multiply what is asked for, before a model is read.

    Args:
        device: the target.
        dtype: "fp32", "fp16" or "bf16".
        weights: quantisers. One that chooses formats by itself is asked later, when it has chosen.
        rounded: what activations are rounded to.

    Raises:
        Refusal: it cannot; the message says what it can.
    """
    from edgetok.lowbit.quantiser import Activations
    from edgetok.lowering import activations, dequantize, precision_obstacle

    if device.kind == "cpu":
        return
    if missing := device.lacks(dtype, "", ("fp16", "bf16", "fp32")):
        reason, known = missing
        raise Refusal(reason, way_out=f"export with --dtype {' or '.join(known)}")
    if rounded is not None and (obstacle := activations.precision_obstacle(rounded.dtype, device)):
        raise Refusal(obstacle[0], way_out=obstacle[1])
    random = np.random.default_rng(0)
    matrix = random.standard_normal(TRIAL, dtype=np.float32)
    for spec in weights:
        if spec.quantiser.quantise is None:
            continue
        needed = spec.quantiser.samples == "needed"
        seen = Activations(random.standard_normal((32, TRIAL[1]), dtype=np.float32)) if needed else None
        form = dequantize.kind(spec.weight(matrix, seen))
        if form is not None and (obstacle := precision_obstacle(form, device)):
            raise Refusal(f"--quantize {spec}: {obstacle[0]}", way_out=obstacle[1])


def refuse_graph(device: Device, model: ir.Model) -> list[str]:
    """Make sure that one of a device's runtimes takes a graph, before it is compared and written.

    Returns:
        What stands in the way of the other runtimes, one line each.

    Raises:
        Refusal: none of them takes it.
    """
    from edgetok.lint import lint

    stops: dict[str, str] = {}
    for finding in lint(model, device, lowered=True):
        for runtime in finding.runtimes if finding.severity == "error" else ():
            stops.setdefault(runtime, f"{runtime} on {device.name}: {finding.reason}; {finding.rewrite}")
    if len(stops) == len(device.runtimes):
        first, *more = stops.values()
        raise Refusal(" | ".join([first, *more]))
    return list(stops.values())
