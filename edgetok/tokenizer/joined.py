"""A quantiser head between the captured networks of a tokenizer: vectors become ids, and ids vectors.

An encoder gives out vectors (B, N, D); a decoder takes vectors (B, N, D), or of pictures the map (B, D, rows, columns).
With `groups` G the channels of a token are G runs of D / G, each with an id of its own, all by the same head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetok import graph as g
from edgetok.tokenizer.head import Head, Layout, Parameters, check_parameters

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

VECTORS, IDS, GRID = "vectors", "ids", "grid"  # names of inputs and outputs


@dataclass(frozen=True)
class Quantiser:
    """A head with its weights.

    Attributes:
        head: how ids are made.
        config: its options.
        parameters: its weights, fp32.
        groups: how many runs of channels a token has, with an id each.
    """

    head: Head
    config: Any
    parameters: Parameters
    groups: int = 1

    def __post_init__(self) -> None:
        check_parameters(self.head, self.parameters, self.config)

    @property
    def layout(self) -> Layout:
        """Of a token with all its groups."""
        one = self.head.layout(self.config)
        return Layout(one.width * self.groups, one.sizes * self.groups, one.skips)

    def ids(self, vectors: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N) or (B, N, L), in plain PyTorch."""
        apart = vectors.reshape(len(vectors), -1, self.head.layout(self.config).width)
        ids = self.head.reference_encode(apart, self._tensors(), self.config)
        return ids.reshape(len(vectors), -1, self.groups) if self.groups > 1 else ids

    def vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, N) or (B, N, L) -> (B, N, D), in plain PyTorch."""
        apart = ids.flatten(1) if self.groups > 1 else ids
        vectors = self.head.reference_decode(apart, self._tensors(), self.config)
        return vectors.reshape(len(ids), -1, self.layout.width)

    def _tensors(self) -> dict[str, torch.Tensor]:
        import torch

        return {name: torch.from_numpy(array) for name, array in self.parameters.items()}


def write_ids(model: ir.Model, quantiser: Quantiser) -> None:
    """The output `vectors` of an encoder becomes `ids`."""
    graph = model.graph
    op, place = g.Emitter(graph), [value.name for value in graph.outputs].index(VECTORS)
    vectors = graph.outputs[place]
    vectors.name = "encoded"
    if quantiser.groups > 1:
        width = quantiser.head.layout(quantiser.config).width
        vectors = op.Reshape(vectors, np.array([0, -1, width]))
    ids = quantiser.head.encode(op, vectors, quantiser.parameters, quantiser.config)
    if quantiser.groups > 1:
        ids = op.Reshape(ids, np.array([0, -1, quantiser.groups]))
    graph.outputs[place] = _named(ids, IDS, quantiser.layout)


def read_ids(model: ir.Model, quantiser: Quantiser) -> None:
    """The input of a decoder becomes `ids`, and of pictures `grid` too: (B, 2) int64, rows and columns of the map."""
    import onnx_ir as ir

    graph, layout = model.graph, quantiser.layout
    (old,) = graph.inputs
    uses = list(old.uses())
    op = g.Emitter(graph, next(iter(graph)))
    ids = _named(ir.Value(), IDS, layout)
    graph.inputs[:] = [ids]
    value = op.Reshape(ids, np.array([0, -1])) if quantiser.groups > 1 else ids
    value = quantiser.head.decode(op, value, quantiser.parameters, quantiser.config)
    if quantiser.groups > 1:
        value = op.Reshape(value, np.array([0, -1, layout.width]))
    if g.rank(old) == 4:
        grid = g.typed(ir.Value(name=GRID), ir.DataType.INT64, ["batch", 2])
        graph.inputs.append(grid)
        shape = op.Concat(np.array([0, 0]), op.Gather(grid, np.int64(0), axis=0), axis=0)
        value = op.Reshape(op.Transpose(value, perm=[0, 2, 1]), shape)
    for node, index in uses:
        node.replace_input_with(index, value)


def _named(ids: ir.Value, name: str, layout: Layout) -> ir.Value:
    import onnx_ir as ir

    ids.name = name
    return g.typed(ids, ir.DataType.INT64, ["batch", "tokens", *([len(layout.sizes)] if len(layout.sizes) > 1 else [])])
