"""What a quantiser head is: it makes ids of vectors, and vectors of ids.

A head is a file in exporters/heads/, found by its name, that ends with `HEAD = Head(...)`. The vectors x are (B, N, D)
fp32, a token each. The ids are int64, (B, N) where a token has one and (B, N, L) where it has L of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetok import discovery
from edgetok.errors import InputError, SourceError

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.graph import Emitter

PACKAGE = "edgetok.exporters.heads"
Parameters = Mapping[str, np.ndarray]
Tensors = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True)
class Layout:
    """What a token is made of, and what its ids may be.

    Attributes:
        width: D, the channels of its vector.
        sizes: how many codes each of its ids chooses from: an id is at least 0 and below its size.
        skips: whether an id may also be -1: a level that is left out.
    """

    width: int
    sizes: tuple[int, ...]
    skips: bool = False

    @property
    def bits(self) -> float:
        """Of a token."""
        return sum(map(log2, self.sizes))

    def shape(self, batch: int, tokens: int) -> tuple[int, ...]:
        """Of the ids: (B, N) or (B, N, L)."""
        return (batch, tokens, len(self.sizes)) if len(self.sizes) > 1 else (batch, tokens)


@dataclass(frozen=True)
class Head:
    """One way of making ids.

    Whatever the vectors hold, ids are within the layout, and a vector that is not finite changes no other token's.
    Decoding takes any integer: one below or above what the layout allows counts as the nearest that it allows.

    Attributes:
        summary: one line.
        paper: title, link and section.
        config: a frozen dataclass with the head's options.
        examples: configurations that every test runs; the first is the usual one, but small.
        layout: config -> what its ids are.
        parameters: config -> the shape of each array of weights, by name; all fp32.
        encode: (op, x, parameters, config) -> ids, written into a graph.
        decode: (op, ids, parameters, config) -> x, written into a graph.
        reference_encode: (x, parameters, config) -> ids, in plain PyTorch and in the type of x.
        reference_decode: (ids, parameters, config) -> x, in plain PyTorch and in the type of the parameters; ids within
            the layout.
        invertible: whether encoding what was decoded gives the ids back, where no two codes are equal.
    """

    summary: str
    paper: str
    config: type
    examples: tuple[Any, ...]
    layout: Callable[[Any], Layout]
    parameters: Callable[[Any], dict[str, tuple[int, ...]]]
    encode: Callable[[Emitter, ir.Value, Parameters, Any], ir.Value]
    decode: Callable[[Emitter, ir.Value, Parameters, Any], ir.Value]
    reference_encode: Callable[[torch.Tensor, Tensors, Any], torch.Tensor]
    reference_decode: Callable[[torch.Tensor, Tensors, Any], torch.Tensor]
    invertible: bool


def names() -> list[str]:
    """The heads' names; nothing is imported."""
    return discovery.names(PACKAGE)


def load(name: str) -> Head:
    """The head of a name.

    Raises:
        UnknownName: there is none.
    """
    return discovery.load(PACKAGE, "head", name, Head)


def check_parameters(head: Head, parameters: Parameters, config: Any) -> None:
    """Make sure that the weights are what the head needs.

    Raises:
        SourceError: one is missing, of another shape, or not finite.
    """
    for name, shape in head.parameters(config).items():
        if name not in parameters:
            raise SourceError(f"no weights {name!r}: the head needs {name} of shape {shape}")
        if (found := parameters[name].shape) != shape:
            raise SourceError(f"the weights {name!r} have shape {found}; by the configuration it is {shape}")
        if not np.isfinite(parameters[name]).all():
            raise SourceError(f"the weights {name!r} hold values that are not finite: no distance to them can be told")


def check_ids(ids: np.ndarray, layout: Layout) -> None:
    """Make sure that ids are what the layout allows, before they are decoded.

    Args:
        ids: (B, N) or (B, N, L) of an integer type.
        layout: of the head that decodes them.

    Raises:
        InputError: another type or shape, or an id that no code has; the first one is named.
    """
    wanted = "(batch, tokens)" if len(layout.sizes) == 1 else f"(batch, tokens, {len(layout.sizes)})"
    if ids.dtype.kind not in "iu":
        raise InputError(f"ids of type {ids.dtype}: integers are accepted")
    if ids.ndim < 2 or ids.shape != layout.shape(*ids.shape[:2]):
        raise InputError(f"ids of shape {ids.shape}: accepted is {wanted}")
    lowest, sizes = -1 if layout.skips else 0, np.array(layout.sizes, np.int64)
    above = ids >= (sizes if len(sizes) > 1 else sizes[0])
    wrong = np.argwhere(above | (ids < lowest))
    if len(wrong):
        place = tuple(map(int, wrong[0]))
        size = layout.sizes[place[2]] if len(place) > 2 else layout.sizes[0]
        raise InputError(
            f"{len(wrong)} of {ids.size} ids lie outside the codebook: the first, {ids[place]} at {place}, is not "
            f"within {lowest} to {size - 1}; were they made by another tokenizer?"
        )
