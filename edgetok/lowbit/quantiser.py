"""What a quantiser is: it makes a `Weight` of a matrix; the graph is somebody else's business.

A quantiser is a file in exporters/quantisers/, found by its name, that ends with `QUANTISER = Quantiser(...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgetok import discovery, options
from edgetok.errors import UnknownName
from edgetok.lowbit.weight import Weight

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgetok.lowbit.linear import Linear

PACKAGE = "edgetok.exporters.quantisers"
PARTS = ("head", "embed", "attention", "mlp")  # may be skipped in any model, whether it has them or not

# (graph, trials of weights (K, N) by `NAME.weight` of the layer) -> for each trial the least cosine of the outputs with
# the original's.
Measure = Callable[["ir.Model", Iterable[Mapping[str, np.ndarray]]], Iterator[float]]


@dataclass(frozen=True)
class Activations:
    """What samples feed a linear layer.

    Attributes:
        rows: (S, K) fp32: tokens, from all samples.
    """

    rows: np.ndarray

    @cached_property
    def mean_square(self) -> np.ndarray:
        """(K,) how much an error of each input channel's weights shows, on average."""
        return np.square(self.rows, dtype=np.float64).mean(axis=0)


@dataclass(frozen=True)
class Quantiser:
    """One way of making weights of few bits: by itself, or by choosing others for each layer.

    Attributes:
        summary: one line for `edgetok quantisers`.
        paper: title, link and section, or the specification.
        examples: specs that every test runs; the first explains the quantiser.
        config: a frozen dataclass with the quantiser's own options.
        quantise: (matrix (N, K) fp32, activations or None, config) -> Weight; finite weights only, any N and K.
        choose: (graph, layers, config, what feeds them, measure) -> {name of a layer: spec}, in place of `quantise`;
            layers that are not named stay as they are.
        samples: whether it looks at activations: "ignored", "used" where there are any, or "needed".
    """

    summary: str
    paper: str
    examples: tuple[str, ...]
    config: type
    quantise: Callable[[np.ndarray, Activations | None, Any], Weight] | None = None
    choose: Callable[[ir.Model, Sequence[Linear], Any, Mapping[str, Activations], Measure], dict[str, Spec]] | None = (
        None
    )
    samples: Literal["ignored", "used", "needed"] = "ignored"


@dataclass(frozen=True)
class Where:
    """Which layers are quantised; options of every quantiser.

    Attributes:
        skip: parts of the model that stay as they are: "head", "embed", "attention", "mlp", or block numbers, as in
            "head/0/11".
    """

    skip: str = ""

    @property
    def skipped(self) -> list[str]:
        """The parts."""
        return [part for part in self.skip.split("/") if part]

    def takes(self, node: str) -> bool:
        """Whether a layer is quantised, by the name of its node: `blocks.3/mlp/MatMul`."""
        return not _parts(node) & set(self.skipped)

    def check(self, nodes: Iterable[str]) -> None:
        """Make sure that what is skipped is a part of some model, or of this one.

        Raises:
            UnknownName: it is neither.
        """
        known = {*PARTS, *(part for node in nodes for part in _parts(node))}
        for part in self.skipped:
            if part not in known:
                raise UnknownName("part of the model to skip", part, known)


def _parts(node: str) -> set[str]:
    block, *parts = node.split("/")
    return {block.removeprefix("blocks."), *parts}


@dataclass(frozen=True)
class Spec:
    """What the user asked for: `lut:bits=3,skip=head`.

    Attributes:
        name: of the quantiser.
        where: which layers.
        config: the quantiser's own options.
    """

    name: str
    where: Where
    config: Any

    @property
    def quantiser(self) -> Quantiser:
        """The quantiser of its name."""
        return load(self.name)

    def weight(self, matrix: np.ndarray, activations: Activations | None) -> Weight:
        """Quantise a matrix (N, K) fp32."""
        assert self.quantiser.quantise is not None
        return self.quantiser.quantise(matrix, activations, self.config)

    def __str__(self) -> str:
        """The canonical spelling, which goes into the manifest."""
        given = options.spelt(self.config) + options.spelt(self.where)
        return self.name + (":" + ",".join(given) if given else "")


def names() -> list[str]:
    """The quantisers' names; nothing is imported."""
    return discovery.names(PACKAGE)


def load(name: str) -> Quantiser:
    """The quantiser of a name.

    Raises:
        UnknownName: there is none.
    """
    return discovery.load(PACKAGE, "quantiser", name, Quantiser)


def parse(text: str) -> Spec:
    """Read `NAME:key=value,...`.

    Raises:
        UnknownName: no such quantiser or option.
        UsageError: a value that the option does not take.
    """
    name, given = options.split(text, "bits=3,skip=head")
    quantiser = load(name)
    options.check_known(name, given, (Where, quantiser.config))
    return Spec(name, options.build(Where, given), options.build(quantiser.config, given))
