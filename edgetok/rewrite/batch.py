"""The batch, fixed to a marker while shapes are folded, and freed again.

Chains of Shape, Gather and Concat fold only when every dimension is a number. So the batch becomes a prime that divides
no number of the graph; what holds a multiple of it afterwards depends on the batch.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.errors import CaptureError

PRIMES = (1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049, 1051, 1061)


def fix_batch(graph: ir.Graph) -> int:
    """Give the free leading axes of the inputs a number that means nothing else in the graph; 0 when none is free."""
    free = [value for value in graph.inputs if value.shape and not isinstance(value.shape[0], int)]
    if not free:
        return 0
    taken = {dim for value in graph.initializers.values() for dim in value.const_value.shape.numpy()}  # type: ignore[union-attr]
    taken |= {dim for value in graph.inputs for dim in value.shape or () if isinstance(dim, int)}
    taken |= {number for value in graph.initializers.values() for number in _small_ints(value)}
    marker = next((prime for prime in PRIMES if not any(dim and dim % prime == 0 for dim in taken)), None)
    if marker is None:
        raise CaptureError("the batch cannot be told from the graph's other numbers; fix it with --batch")
    for value in free:
        value.shape = ir.Shape([marker, *list(value.shape)[1:]])  # type: ignore[arg-type]
    return marker


def free_batch(graph: ir.Graph, marker: int) -> None:
    """Let everything that depends on the marker follow the batch of the first input.

    Raises:
        CaptureError: a number of the graph depends on the batch in a way that cannot be freed.
    """
    for node in list(graph):
        if node.op_type == "Reshape" and (target := g.ints_of(node.inputs[1])) is not None:
            _free_reshape(graph, node, target, marker)
    leading = next(value for value in graph.inputs if value.shape and value.shape[0] == marker)
    batch: ir.Value | None = None
    for value in list(graph.initializers.values()):
        numbers = _small_ints(value)
        if not any(_carries(number, marker) for number in numbers) or not value.uses():
            continue
        op = g.Emitter(graph, before=graph[0])
        batch = batch or op.Shape(leading, start=0, end=1)
        op.before = _after(graph, batch)
        value.replace_all_uses_with(_dynamic(op, batch, value, numbers, marker))
    for value in graph.initializers.values():
        if value.uses() and any(_carries(dim, marker) for dim in value.shape or ()):
            raise CaptureError(f"constant {value.name!r} was folded with the batch in it; fix the batch with --batch")
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([_symbol(dim, marker) for dim in value.shape])  # type: ignore[misc]
    graph.sort()


def _free_reshape(graph: ir.Graph, node: ir.Node, target: list[int], marker: int) -> None:
    """0 copies the batch from the input's axis 0; else -1 stands for it and every other axis is a number."""
    places = [place for place, number in enumerate(target) if _carries(number, marker)]
    if not places:
        return
    source, result = g.static_shape(node.inputs[0]), g.static_shape(node.outputs[0])  # type: ignore[arg-type]
    if places == [0] and target[0] == marker and source and source[0] == marker:
        target[0] = 0
    elif len(places) == 1 and (-1 not in target or (result and result[target.index(-1)] is not None)):
        if -1 in target:
            target[target.index(-1)] = result[target.index(-1)]  # type: ignore[index,assignment]
        target[places[0]] = -1
    else:
        return
    node.replace_input_with(1, g.constant(graph, np.array(target)))
    node.attributes.pop("allowzero", None)


def _dynamic(op: g.Emitter, batch: ir.Value, value: ir.Value, numbers: list[int], marker: int) -> ir.Value:
    """The constant's numbers with the batch (1,) in the marker's place."""
    parts: list[ir.Value | np.ndarray] = []
    for number in numbers:
        if not _carries(number, marker):
            parts.append(np.array([number]))
        else:
            parts.append(batch if number == marker else op.Mul(batch, np.array([number // marker])))
    dynamic: ir.Value = op.Concat(*parts, axis=0)
    if value.dtype != ir.DataType.INT64:
        dynamic = op.Cast(dynamic, to=value.dtype)
    return dynamic if g.rank(value) == 1 else op.Squeeze(dynamic, np.array([0]))


def _after(graph: ir.Graph, value: ir.Value) -> ir.Node:
    nodes = list(graph)
    return nodes[nodes.index(value.producer()) + 1]  # type: ignore[arg-type]


def _carries(number: object, marker: int) -> bool:
    return isinstance(number, int) and number != 0 and abs(number) < 2**31 and number % marker == 0


def _small_ints(value: ir.Value) -> list[int]:
    """The numbers of a constant that may be a shape."""
    tensor = value.const_value
    if tensor is None or tensor.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return []
    if len(tensor.shape) > 1 or tensor.size > 16:
        return []
    return [int(number) for number in tensor.numpy().reshape(-1)]


def _symbol(dim: object, marker: int) -> object:
    if not _carries(dim, marker):
        return dim
    return "batch" if dim == marker else f"{dim // marker}*batch"  # type: ignore[operator]
