"""From a typed, reduced and named graph to one whose linear layers hold weights of few bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgetok.calibration import Run
from edgetok.errors import Refusal, UsageError
from edgetok.lowbit import quantiser
from edgetok.lowbit.linear import Linear, activations, find_linears
from edgetok.lowbit.node import replace
from edgetok.lowbit.weight import Weight
from edgetok.manifest import LowBit


def quantise(model: ir.Model, specs: Sequence[quantiser.Spec], run: Run | None) -> tuple[LowBit, ...]:
    """Quantise the weights of linear layers, in place.

    Args:
        model: the graph.
        specs: which quantiser for which layers; where two take the same layer, the first has it.
        run: runs a graph on samples, for quantisers that look at activations; None where there are no samples.

    Returns:
        What was done to which layer.

    Raises:
        Refusal: there is nothing to quantise, or a weight is not finite.
        UsageError: a quantiser needs samples, and there are none.
    """
    linears = find_linears(model.graph)
    chosen = [(linear, next((spec for spec in specs if spec.where.takes(linear.name)), None)) for linear in linears]
    taken = [(linear, spec) for linear, spec in chosen if spec is not None]
    if not taken:
        raise Refusal(
            f"there is nothing to quantise: {len(linears)} linear layers were found"
            + (", and all of them are skipped" if linears else ""),
            way_out="edgetok inspect shows what is there; skip= leaves out fewer",
        )
    for linear, _ in taken:
        check_finite(linear)
    asking = [linear for linear, spec in taken if quantiser.load(spec.name).needs_samples]
    if asking and run is None:
        names = ", ".join(dict.fromkeys(spec.name for _, spec in taken if quantiser.load(spec.name).needs_samples))
        raise UsageError(
            f"{names} looks at what feeds the layers: give --samples DIR, files such as the model will see"
        )
    seen = activations(model, asking, run) if run is not None and asking else {}
    done = []
    for linear, spec in taken:
        weight = quantiser.load(spec.name).quantise(linear.matrix, seen.get(linear.name), spec.config)
        replace(model.graph, linear, weight)
        done.append(_entry(linear, spec, weight))
    return tuple(done)


def check_finite(linear: Linear) -> None:
    """Make sure that a weight holds numbers only.

    Raises:
        Refusal: it does not.
    """
    bad = np.argwhere(~np.isfinite(linear.matrix))
    if len(bad):
        output, inner = bad[0]
        raise Refusal(
            f"the weight holds {len(bad)} numbers that are not finite, the first, {linear.matrix[output, inner]}, "
            f"for output {output} and input {inner}",
            node=linear.name,
            way_out="mend the model, or leave the layer out with skip=",
        )


def _entry(linear: Linear, spec: quantiser.Spec, weight: Weight) -> LowBit:
    wanted = linear.matrix.astype(np.float64)
    noise = np.square(weight.dequantise() - wanted).sum()
    signal = np.square(wanted).sum()
    return LowBit(
        layer=linear.name.replace(linear.node.op_type, "LutMatMul"),
        format=str(spec),
        shape=weight.shape,
        bits=weight.bits,
        block=weight.block,
        scales=weight.scales.dtype.name,
        bits_per_weight=weight.bits_per_weight,
        sqnr_db=10 * np.log10(signal / noise) if noise > 0 and signal > 0 else None,
    )
