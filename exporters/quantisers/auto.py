"""Few bits where they do no harm: a format for each layer, by what it does to the outputs.

`--quantize auto:min_cosine=0.99` measures, for each layer and each format of the ladder, how far the model's outputs
turn when this layer alone has it. Those losses nearly add up (HAWQ, https://arxiv.org/abs/1905.03696, rests on the
same), so layers give up bits in the order of bits saved for each unit of loss, until the losses add up to what is
allowed. What was chosen is then measured as a whole, and where it misses the cosine, or leaves room, less or more is
allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.errors import Refusal, UsageError
from edgetok.lowbit import quantiser
from edgetok.lowbit.linear import Linear
from edgetok.lowbit.quantiser import Activations, Measure, Quantiser

ATTEMPTS = 6  # whole models measured in search of the loss that is allowed
TINY = 1e-7  # of a cosine: what rounding makes of fp32 outputs


@dataclass(frozen=True)
class Config:
    """Options of auto.

    Attributes:
        min_cosine: what the pooled outputs keep with the original's, on the samples.
        formats: the ladder, the fewest bits first, as in "hlq_2/hlq_3/nvfp4/int8": name, or name_bits.
    """

    min_cosine: float = 0.99
    formats: str = "hlq_2/hlq_3/nvfp4/int8"

    def __post_init__(self) -> None:
        if not 0 < self.min_cosine < 1:
            raise UsageError(f"option min_cosine={self.min_cosine:g}: accepted is a number between 0 and 1")
        self.ladder()

    def ladder(self) -> list[quantiser.Spec]:
        """The formats, the fewest bits first."""
        found = []
        for name in self.formats.split("/"):
            stem, _, bits = name.partition("_")
            found.append(quantiser.parse(f"{stem}:bits={bits}" if bits else stem))
        return found


@dataclass(frozen=True)
class Choice:
    """A layer, and what is known of it in each format of the ladder; the last is the layer as it is.

    Attributes:
        bits: of the layer.
        losses: of cosine, when this layer alone has the format.
    """

    bits: Sequence[float]
    losses: Sequence[float]


def choose(
    model: ir.Model, linears: Sequence[Linear], config: Config, seen: Mapping[str, Activations], measure: Measure
) -> dict[str, quantiser.Spec]:
    """{name of a layer: its format}; layers that are not named stay as they are.

    Args:
        model: the graph, which stays as it is.
        linears: the layers to choose for.
        config: what is asked for.
        seen: what feeds the layers.
        measure: gives the least cosine of a graph's outputs with the original's, for each set of weights that takes
            the place of its own.

    Raises:
        Refusal: the model misses the cosine as it is.
    """
    ladder = config.ladder()
    weights = [[spec.weight(each.matrix, seen.get(each.name)) for spec in ladder] for each in linears]
    open_graph = _with_weights_open(model, linears)

    def feeds(formats: Mapping[int, int]) -> dict[str, np.ndarray]:
        """{layer: format} as weights (K, N)."""
        return {
            f"{linears[layer].name}.weight": np.ascontiguousarray(weights[layer][number].dequantise().T)
            for layer, number in formats.items()
        }

    trials = [(layer, number) for layer in range(len(linears)) for number in range(len(ladder))]
    results = measure(open_graph, ({}, *(feeds({layer: number}) for layer, number in trials)))
    whole = next(results)
    if whole < config.min_cosine:
        raise Refusal(
            f"the outputs have cosine {whole:.4f} with the original's before anything is quantised, "
            f"and min_cosine={config.min_cosine:g} is asked for",
            way_out="ask for less, or reduce fewer tokens",
        )
    losses = [[0.0] * (len(ladder) + 1) for _ in linears]
    for (layer, number), cosine in zip(trials, results, strict=True):
        losses[layer][number] = max(whole - cosine, 0.0)
    choices = [
        Choice([prod(each.matrix.shape) * bits for bits in [*(w.bits_per_weight for w in made), 32.0]], lost)
        for each, made, lost in zip(linears, weights, losses, strict=True)
    ]
    taken = _within(choices, whole, config.min_cosine, lambda formats: next(measure(open_graph, [feeds(formats)])))
    return {linears[layer].name: ladder[number] for layer, number in taken.items()}


def _within(
    choices: Sequence[Choice], whole: float, wanted: float, cosine: Callable[[Mapping[int, int]], float]
) -> dict[int, int]:
    """{layer: format} with the fewest bits whose cosine, measured as a whole, is the one wanted."""
    low, high, allowed = 0.0, float("inf"), whole - wanted
    best: dict[int, int] = {}
    for _ in range(ATTEMPTS):
        formats = cheapest(choices, allowed)
        if cosine(formats) >= wanted:
            low, best = allowed, formats
            if sum(formats.values()) == 0 and len(formats) == len(choices):  # the fewest bits there are
                break
        else:
            high = allowed
        allowed = 2 * allowed if high == float("inf") else (low + high) / 2
    return best


def cheapest(choices: Sequence[Choice], allowed: float) -> dict[int, int]:
    """{layer: format}, greedily: the step that saves most bits for a unit of loss, while the losses keep within it.

    Layers that stay as they are, are not named.
    """
    formats, spent = {layer: len(choice.bits) - 1 for layer, choice in enumerate(choices)}, 0.0
    while True:
        steps = []
        for layer, now in formats.items():
            bits, losses = choices[layer].bits, choices[layer].losses
            for then in range(now):
                lost, saved = losses[then] - losses[now], bits[now] - bits[then]
                if saved > 0 and spent + lost <= allowed:
                    steps.append((saved / max(lost, TINY), saved, layer, then))
        if not steps:
            return {layer: number for layer, number in formats.items() if number < len(choices[layer].bits) - 1}
        _, _, layer, then = max(steps)
        spent += choices[layer].losses[then] - choices[layer].losses[formats[layer]]
        formats[layer] = then


def _with_weights_open(model: ir.Model, linears: Sequence[Linear]) -> ir.Model:
    """A copy in which `NAME.weight` (K, N), fp32, may be fed for each layer, so that one session serves all trials."""
    places = {node: place for place, node in enumerate(model.graph)}
    copy = model.clone()
    nodes = list(copy.graph)
    for linear in linears:
        node = nodes[places[linear.node]]
        weight = g.constant(copy.graph, np.ascontiguousarray(linear.matrix.T), f"{linear.name}.weight")
        copy.graph.inputs.append(weight)  # an initializer that is an input as well is a default
        cast = g.Emitter(copy.graph, before=node).CastLike(weight, node.inputs[0])
        node.replace_input_with(1, g.typed(cast, node.inputs[0].dtype, list(weight.shape or ())))  # type: ignore[union-attr]
        for name in ("transB", "alpha"):  # they are in the matrix
            node.attributes.pop(name, None)
    return copy


QUANTISER = Quantiser(
    summary="a format for each layer, as few bits as the outputs allow",
    paper="greedy, by measured loss; HAWQ, https://arxiv.org/abs/1905.03696, chooses by curvature",
    examples=("auto:min_cosine=0.99",),
    config=Config,
    choose=choose,
    samples="needed",
)
