"""The linear layers of a graph: where they are, and what feeds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.calibration import Run
from edgetok.errors import UsageError
from edgetok.lowbit.quantiser import Activations

ROWS = 512  # of activations that a quantiser sees; more sharpen a mean square of 384 channels by under 1 %
MASK = "attention_mask"  # the graph's input, (B, N), 0 for padding
TOGETHER = 16  # activations that one run of the graph gives out: 12 blocks of a ViT-S at 32 pictures would be 2.7 GB


@dataclass(frozen=True)
class Linear:
    """A product with a constant matrix.

    Attributes:
        node: a MatMul, or a Gemm.
        input: (..., K)
        matrix: (N, K) fp32.
    """

    node: ir.Node
    input: ir.Value
    matrix: np.ndarray

    @property
    def name(self) -> str:
        """Of the node, which says block and part: `blocks.3/mlp/MatMul`."""
        return self.node.name or ""

    @property
    def quantised_name(self) -> str:
        """Of the LutMatMul that takes the node's place."""
        return self.name.replace(self.node.op_type, "LutMatMul")


def find_linears(graph: ir.Graph) -> list[Linear]:
    """The linear layers, in the order of the graph."""
    found = []
    for node in graph:
        if node.op_type == "MatMul" or (node.op_type == "Gemm" and not g.attribute(node, "transA", 0)):
            matrix = _stored(node.inputs[1])
            if matrix is not None and matrix.ndim == 2 and node.inputs[0] is not None:
                matrix = matrix if g.attribute(node, "transB", 0) else matrix.T
                scale = float(g.attribute(node, "alpha", 1.0))  # type: ignore[arg-type]
                found.append(Linear(node, node.inputs[0], np.ascontiguousarray(matrix, np.float32) * np.float32(scale)))
    return found


def _stored(value: ir.Value | None) -> np.ndarray | None:
    """A weight, also one that is widened or turned around before it is used."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type in ("Cast", "Transpose"):
        inner = _stored(node.inputs[0])
        if inner is None or node.op_type == "Cast":
            return inner
        return inner.transpose(g.attribute(node, "perm", None))  # type: ignore[call-overload]
    return g.constant_of(value)


def activations(model: ir.Model, values: Sequence[ir.Value], run: Run) -> dict[ir.Value, Activations]:
    """{value: its rows on the samples}, without those of padding.

    Args:
        model: the graph, which stays as it is.
        values: (..., K) of it.
        run: runs a graph on the samples.

    Raises:
        UsageError: the samples are nothing but padding.
    """
    places = {node: place for place, node in enumerate(model.graph)}
    found: dict[ir.Value, Activations] = {}
    wanted = list(dict.fromkeys(values))
    for start in range(0, len(wanted), TOGETHER):
        part = wanted[start : start + TOGETHER]
        copy = model.clone()
        nodes = list(copy.graph)
        copy.graph.outputs.clear()
        for number, value in enumerate(part):
            producer = value.producer()
            same = (
                next(each for each in copy.graph.inputs if each.name == value.name)
                if producer is None
                else nodes[places[producer]].outputs[producer.outputs.index(value)]
            )
            output = g.Emitter(copy.graph).Cast(same, to=ir.DataType.FLOAT)
            output.name = f"activation_{number}"
            copy.graph.outputs.append(g.typed(output, ir.DataType.FLOAT, list(value.shape or ())))
        given = next((each for each in copy.graph.inputs if each.name == MASK), None)
        if given is not None:
            mask = g.Emitter(copy.graph).Identity(given)
            mask.name = "activation_mask"
            copy.graph.outputs.append(g.typed(mask, given.dtype, list(given.shape or ())))
        arrays = run(copy)
        for number, value in enumerate(part):
            rows = rows_of_tokens(arrays[f"activation_{number}"], arrays.get("activation_mask"))
            found[value] = Activations(rows[np.linspace(0, len(rows) - 1, min(len(rows), ROWS)).astype(int)])
    return found


def rows_of_tokens(array: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The rows of an array that say something: what stands in padding never reaches an output.

    Args:
        array: (B, N, K) or (B, h, N, d) by the mask's tokens; any other shape, such as that of reduced tokens, has no
            padding that is known.
        mask: (B, N) 0 for padding; None where there is none.

    Returns:
        (S, K)

    Raises:
        UsageError: the mask is 0 everywhere.
    """
    if mask is not None:
        if not mask.any():
            raise UsageError(f"the samples are nothing but padding: {MASK} is 0 everywhere; give --samples with texts")
        if array.ndim == 3 and array.shape[:2] == mask.shape:
            array = array[mask != 0]
        elif array.ndim == 4 and (array.shape[0], array.shape[2]) == mask.shape:
            array = array.swapaxes(1, 2)[mask != 0]
    return array.reshape(-1, array.shape[-1])
