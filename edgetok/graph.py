"""Small helpers on onnx-ir graphs: emitting nodes, reading constants, walking, evaluating a part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from edgetok.model import TensorSpec

OPSET = 23
IR_VERSION = 10
LAST = np.iinfo(np.int64).max  # "to the end" in a Slice
HEAD = "edgetok.head"  # the model's metadata: "ctc" where the outputs are decoded in their order

Emit = Callable[..., Any]  # an ir.Value, or a tuple of them for outputs > 1


class Emitter:
    """Writes nodes in front of a node of a graph: `op.MatMul(a, b)` gives the output value.

    Python and numpy constants among the inputs become initializers.

    Args:
        graph: the graph to write into.
        before: the node in front of which the new nodes stand; None appends.
    """

    def __init__(self, graph: ir.Graph, before: ir.Node | None = None):
        self.graph, self.before = graph, before

    def __getattr__(self, op_type: str) -> Emit:
        def emit(*inputs: object, outputs: int = 1, domain: str = "", **attributes: object) -> object:
            node = ir.node(
                op_type,
                [None if value is None else self._value(value) for value in inputs],
                attributes=attributes or None,  # type: ignore[arg-type]
                domain=domain,
                num_outputs=outputs,
            )
            if self.before is None:
                self.graph.append(node)
            else:
                self.graph.insert_before(self.before, node)
            return node.outputs[0] if outputs == 1 else tuple(node.outputs)

        return emit

    def _value(self, value: object) -> ir.Value:
        return value if isinstance(value, ir.Value) else constant(self.graph, np.asarray(value))


def constant(graph: ir.Graph, array: np.ndarray, name: str | None = None) -> ir.Value:
    """An initializer of the graph that holds the array, under that name or a free one."""
    number = len(graph.initializers)
    while name is None or name in graph.initializers:
        name, number = f"constant_{number}", number + 1
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """The array behind an initializer or a Constant node, else None."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def ints_of(value: ir.Value | None) -> list[int] | None:
    """The integers behind a constant, else None."""
    array = constant_of(value)
    return None if array is None or array.dtype.kind not in "iu" else [int(i) for i in array.reshape(-1)]


def attribute(node: ir.Node, name: str, default: object = None) -> object:
    """The value of a node's attribute, or the default."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def static_shape(value: ir.Value) -> list[int | None] | None:
    """The shape with None for what is not a plain number; None when even the rank is unknown."""
    if value.shape is None:
        return None
    return [dim if isinstance(dim, int) else None for dim in value.shape]


def rank(value: ir.Value) -> int | None:
    """The number of axes, None when unknown."""
    return None if value.shape is None else len(value.shape)


def ancestors(values: Iterable[ir.Value | None]) -> set[ir.Node]:
    """Every node that the values depend on."""
    seen: set[ir.Node] = set()
    stack = [value.producer() for value in values if value is not None]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack += [value.producer() for value in node.inputs if value is not None]
    return seen


def copies(
    graph: ir.Graph, source: ir.Value, values: Sequence[ir.Value], start: ir.Value | None = None
) -> list[ir.Value]:
    """The values, computed once more from `source`, or from `start` in its place, by copies of the nodes in between."""
    copied: dict[ir.Value | None, ir.Value] = {source: source if start is None else start}
    needed = ancestors(values)
    for node in [node for node in graph if node in needed]:
        if not any(value in copied for value in node.inputs):
            continue
        inputs = [copied.get(value, value) for value in node.inputs]
        attributes = list(node.attributes.values())
        copy = ir.Node(node.domain, node.op_type, inputs, attributes, num_outputs=len(node.outputs))
        graph.append(copy)
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.type = old.type
            copied[old] = new
    return [copied[value] for value in values]


def consumers(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """(node, input index) of every use, in a fixed order."""
    return list(value.uses())


def typed(value: ir.Value, dtype: ir.DataType | None, shape: Sequence[int | str | ir.SymbolicDim | None]) -> ir.Value:
    """The value, with its dtype and shape written down."""
    value.shape = ir.Shape(shape)
    if dtype is not None:
        value.dtype = dtype
    return value


def named(value: ir.Value, name: str) -> ir.Value:
    """The value, with its node's name written down."""
    producer = value.producer()
    assert producer is not None
    producer.name = name
    return value


def without(dim: int | str | ir.SymbolicDim | None, count: int) -> int | ir.SymbolicDim:
    """A dimension less a count; of one that only the run knows, a name that says so."""
    if isinstance(dim, int):
        return dim - count
    return ir.SymbolicDim(f"{dim}-{count}" if count else str(dim))


def take_place(old: ir.Value, new: ir.Value) -> None:
    """Let all readers of the old value read the new one, which takes its description too; also as a graph output."""
    new.shape, new.type = old.shape, old.type
    if old.is_graph_output():
        new.name, old.name = old.name, None
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def sources(value: ir.Value) -> Iterator[ir.Value]:
    """The graph inputs that a value's content depends on; reading no more than a shape is no dependence."""
    stack, seen = [value], set()
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        node = current.producer()
        if node is None:
            if current.is_graph_input() and constant_of(current) is None:
                yield current
        elif node.op_type not in ("Shape", "Size"):
            stack += [read for read in node.inputs if read is not None]


def is_data_free(value: ir.Value) -> bool:
    """Whether a value is the same for all inputs of one shape: weights, constants and shapes only."""
    return next(sources(value), None) is None


def evaluate(graph: ir.Graph, values: Sequence[ir.Value], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run the part of the graph that the values need, by ONNX's own reference implementation; feeds by input."""
    from onnx.reference import ReferenceEvaluator

    part = ir.convenience.extract(graph, [value for value in graph.inputs if value.name in feeds], list(values))
    model = ir.Model(part, ir_version=IR_VERSION)
    evaluator = ReferenceEvaluator(ir.to_proto(model))
    needed = [value.name or "" for value in part.inputs]
    return [np.asarray(array) for array in evaluator.run(None, {name: feeds[name] for name in needed})]


def specs(values: Iterable[ir.Value]) -> tuple[TensorSpec, ...]:
    """Graph inputs or outputs as the manifest names them; axis 0 is "batch" where it is no number."""
    from edgetok.model import TensorSpec

    return tuple(
        TensorSpec(
            name=value.name or "",
            dtype=str(value.dtype.numpy()) if value.dtype else "float32",
            shape=tuple(
                dim if isinstance(dim, int) else ("batch" if axis == 0 else str(dim))
                for axis, dim in enumerate(value.shape or ())
            ),
            preprocess=None,
        )
        for value in values
    )
