"""From a typed, reduced and named graph to one whose linear layers hold weights of few bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgetok.calibration import Run
from edgetok.errors import Refusal, UsageError
from edgetok.lowbit import activations as activation
from edgetok.lowbit import quantiser
from edgetok.lowbit.linear import Linear, activations, find_linears
from edgetok.lowbit.node import replace
from edgetok.lowbit.quantiser import Activations, Measure
from edgetok.lowbit.weight import Weight
from edgetok.manifest import LowBit

Taken = tuple[Linear, quantiser.Spec]  # a layer, and what quantises it


@dataclass(frozen=True)
class FewBits:
    """What is to get few bits, and by which samples.

    Attributes:
        weights: which quantiser for which layers; where two take the same layer, the first has it.
        activations: of which type, in front of which products; None leaves them.
        run: runs a graph on the user's samples; None where there are none.
        measure: holds a graph's outputs on the samples to the original's.
        keep_faster: resolves keep=faster in a graph that is named, and says what it found.
    """

    weights: Sequence[quantiser.Spec] = ()
    activations: activation.Spec | None = None
    run: Run | None = None
    measure: Measure | None = None
    keep_faster: Callable[[ir.Model, FewBits], tuple[FewBits, str]] | None = None

    def resolved(self, model: ir.Model) -> tuple[FewBits, tuple[str, ...]]:
        """With nothing left to this machine: what is rounded is spelt out; and notes for the user.

        Raises:
            UsageError: keep=faster without samples.
        """
        if self.activations is None or self.activations.config.keep == "all":
            return self, ()
        if self.keep_faster is None:
            raise UsageError(f"--activations {self.activations} times blocks on samples: give --samples DIR")
        found, note = self.keep_faster(model, self)
        return found, (note,)

    def apply(self, model: ir.Model) -> tuple[LowBit, ...]:
        """Round activations and quantise weights, in place, in a graph whose nodes are named.

        Returns:
            What was done to which weight.
        """
        if self.activations is not None:
            activation.round_activations(model, self.activations, self.run)
        return quantise(model, self.weights, self.run, self.measure) if self.weights else ()


def quantise(
    model: ir.Model, specs: Sequence[quantiser.Spec], run: Run | None, measure: Measure | None = None
) -> tuple[LowBit, ...]:
    """Quantise the weights of linear layers, in place.

    Args:
        model: the graph.
        specs: which quantiser for which layers; where two take the same layer, the first has it.
        run: runs a graph on samples, for quantisers that look at activations; None where there are no samples.
        measure: holds a graph's outputs to the original's, for `auto`.

    Returns:
        What was done to which layer.

    Raises:
        Refusal: there is nothing to quantise, or a weight is not finite.
        UsageError: a quantiser needs samples, and there are none; a part to skip is none of the model's.
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
    for spec in specs:
        spec.where.check(linear.name for linear in linears)
    for linear, _ in taken:
        check_finite(linear)
    seen = _seen(model, taken, run)
    done = []
    for linear, spec in _resolved(model, taken, seen, measure):
        weight = spec.weight(linear.matrix, seen.get(linear.name))
        replace(model.graph, linear, weight)
        done.append(_entry(linear, spec, weight))
    return tuple(done)


def _seen(model: ir.Model, taken: Sequence[Taken], run: Run | None) -> dict[str, Activations]:
    """What feeds the layers whose quantiser looks at it."""
    if run is None:
        if names := dict.fromkeys(spec.name for _, spec in taken if spec.quantiser.samples == "needed"):
            raise UsageError(f"{', '.join(names)} measures on samples: give --samples DIR, with files for the model")
        return {}
    looking = [linear for linear, spec in taken if spec.quantiser.samples != "ignored"]
    found = activations(model, [linear.input for linear in looking], run) if looking else {}
    return {linear.name: found[linear.input] for linear in looking}


def _resolved(
    model: ir.Model, taken: Sequence[Taken], seen: Mapping[str, Activations], measure: Measure | None
) -> list[Taken]:
    """The layers with their formats, those of `auto` by measurement."""
    result: list[Taken] = []
    for spec in dict.fromkeys(spec for _, spec in taken):
        linears = [linear for linear, given in taken if given == spec]
        if spec.quantiser.choose is None:
            result += [(linear, spec) for linear in linears]
            continue
        assert measure is not None
        formats = spec.quantiser.choose(model, linears, spec.config, seen, measure)
        result += [(linear, formats[linear.name]) for linear in linears if linear.name in formats]
    return result


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
        layer=linear.quantised_name,
        format=str(spec),
        shape=weight.shape,
        bits=weight.bits,
        block=weight.block,
        scales=weight.scales.dtype.name,
        bits_per_weight=weight.bits_per_weight,
        sqnr_db=10 * np.log10(signal / noise) if noise > 0 and signal > 0 else None,
    )
