"""Following the token axis through the graph: where it lies in each value, and where the count of tokens matters.

From the residual stream behind the first reduced block on, every value either carries the token axis, at a known
place, or does not. A node that carries it along, token by token, works for any count. Where a node needs all N
tokens (a layout on the grid, a mean over tokens, an output), the flow ends: an *exit*. Where a block sets a value per
position against its tokens (the cosines and sines of rotary positions), that value is a *table*: its rows will be
taken where the tokens came from.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from math import prod

import onnx_ir as ir

from edgetok import graph as g

UNARY = {
    "Abs", "Cast", "Celu", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign",
    "Sqrt", "Swish", "Tanh", "IsNaN", "CastLike",
}  # fmt: skip
BINARY = {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "Equal", "Greater", "Less", "And", "Or", "PRelu"}
REDUCERS = {
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceProd",
    "ReduceSumSquare",
}
BATCH = 1_000_003  # stands for the batch in products of dimensions


class Stop(Exception):
    """A node that needs all N tokens; the message says why."""


@dataclass
class Exit:
    """Where the flow ends: `value` is read by `node` (None: it is a graph output), which needs all tokens."""

    value: ir.Value
    node: ir.Node | None
    reason: str


@dataclass(frozen=True)
class Table:
    """A value per position that a node sets against tokens.

    Attributes:
        value: one row for each of the N tokens, or for each behind the cut; the same for all samples, or (B, ...).
        node, place: who reads it, and as which input.
        rank: of the tokens that it is set against; the value broadcasts to it, or has as many axes itself.
        axis: the place of the rows in that rank.
        cut: how many prefix tokens have no row.
        stage: the stage whose tokens it is set against.
    """

    value: ir.Value
    node: ir.Node
    place: int
    rank: int
    axis: int
    cut: int
    stage: int


@dataclass
class Flow:
    """The token axis of every value that has one, the exits, and the Reshapes whose constant must be freed.

    Attributes:
        axis: the place of the token axis in each value.
        stage: the last start that each value descends from.
        cut: how many prefix tokens were cut off the front of a value; 0 where a value is missing.
        exits: where all N tokens are needed.
        reshapes: {Reshape node: place of the token axis in its output}.
        tables: the values per position in the blocks.
    """

    axis: dict[ir.Value, int] = field(default_factory=dict)
    stage: dict[ir.Value, int] = field(default_factory=dict)
    cut: dict[ir.Value, int] = field(default_factory=dict)
    exits: list[Exit] = field(default_factory=list)
    reshapes: dict[ir.Node, int] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)


def follow(
    graph: ir.Graph, starts: dict[ir.Value, int], tokens: int, prefix: int, blocks: Collection[ir.Node] = ()
) -> Flow:
    """Follow the token axis from (B, N, C) values to wherever it leads.

    Args:
        graph: the graph.
        starts: the values to begin with, in the graph's order, and the number of the stage that begins with each.
        tokens: N.
        prefix: leading tokens that stay where they are.
        blocks: the nodes whose values per position are tables. (Behind the blocks all tokens are brought back in front
            of them: what is masked or weighted there by position is an original token.)
    """
    first, number = next(iter(starts.items()))
    flow = Flow(axis={first: 1}, stage={first: number})
    walk = _Walk(flow, tokens, prefix, blocks)
    for node in graph:
        read = [value for value in dict.fromkeys(node.inputs) if value is not None and value in flow.axis]
        if not read:
            continue
        try:
            stages = {flow.stage[value] for value in read}
            if len(stages) > 1:
                raise Stop(f"{node.op_type} sets tokens of different blocks against each other")
            cuts = {flow.cut.get(value, 0) for value in read}
            if len(cuts) > 1:
                raise Stop(f"{node.op_type} sets all tokens against those behind the prefix")
            axes = walk.step(node)
        except Stop as stop:
            flow.exits += [Exit(value, node, str(stop)) for value in read]
            continue
        (stage,), (cut,) = stages, cuts
        for value, axis in zip(node.outputs, axes, strict=False):
            if axis is not None:
                flow.axis[value], flow.stage[value] = axis, starts.get(value, stage)
                if cut := cut + walk.cut(node):
                    flow.cut[value] = cut
    flow.exits += [Exit(value, None, "a graph output") for value in graph.outputs if value in flow.axis]
    return flow


class _Walk:
    """How each kind of node carries the token axis along."""

    def __init__(self, flow: Flow, tokens: int, prefix: int, blocks: Collection[ir.Node]):
        self.flow, self.tokens, self.prefix, self.blocks = flow, tokens, prefix, blocks
        (first,) = flow.axis
        self.batch = (g.static_shape(first) or [None])[0]

    def step(self, node: ir.Node) -> list[int | None]:
        """The token axis of each output.

        Raises:
            Stop: the node needs all N tokens.
        """
        kind = node.op_type
        if kind in UNARY:
            return [self._axis(node, 0)] * len(node.outputs)
        if kind in BINARY or kind == "Concat":
            return [self._aligned(node)]
        if kind in REDUCERS:
            return [self._reduce(node)]
        handler = getattr(self, f"_{kind.lower()}", None)
        if handler is None:
            raise Stop(f"{kind} mixes tokens, or is not known to leave them apart")
        return handler(node)

    def _axis(self, node: ir.Node, index: int) -> int:
        axis = self.flow.axis.get(node.inputs[index]) if index < len(node.inputs) else None  # type: ignore[arg-type]
        if axis is None:
            raise Stop(f"{node.op_type} reads the tokens as a parameter")
        return axis

    def _rank(self, node: ir.Node, index: int = 0) -> int:
        value = node.inputs[index]
        rank = g.rank(value) if value is not None else None
        if rank is None:
            raise Stop(f"{node.op_type} has an input of unknown rank")
        return rank

    def _aligned(self, node: ir.Node) -> int:
        """Broadcasting and Concat: all inputs with tokens agree, counted from the end; the others have none there."""
        ends = {self._axis(node, i) - self._rank(node, i) for i, v in enumerate(node.inputs) if v in self.flow.axis}
        if len(ends) > 1:
            raise Stop(f"{node.op_type} sets tokens against tokens")
        (end,) = ends
        rank = max(self._rank(node, i) for i, v in enumerate(node.inputs) if v is not None)
        if node.op_type == "Concat" and int(g.attribute(node, "axis")) in (end, end + rank):  # type: ignore[call-overload]
            if not self._puts_prefix_back(node, end):
                raise Stop("Concat adds tokens")
            return end + rank
        for place, value in enumerate(node.inputs):
            if value is None or value in self.flow.axis:
                continue
            shape = g.static_shape(value)
            if shape is None or (len(shape) >= -end and shape[end] != 1):
                own = self._rank(node, node.inputs.index(self._tokens(node)))
                self._table(node, place, own, end + own)
        return end + rank

    def _puts_prefix_back(self, node: ir.Node, end: int) -> bool:
        """Whether a Concat puts as many rows in front of the tokens as were cut off."""
        *front, last = node.inputs
        shapes = [g.static_shape(value) for value in front if value is not None and value not in self.flow.axis]
        rows = [None if shape is None else shape[end] for shape in shapes]
        if len(rows) < len(front) or last not in self.flow.axis or None in rows:
            return False
        return sum(rows) == self.flow.cut.get(last, 0)  # type: ignore[arg-type]

    def _table(self, node: ir.Node, place: int, rank: int, axis: int) -> None:
        """Note down that an input has a row per position, at `axis` of the tokens' rank.

        Raises:
            Stop: the rows cannot be taken.
        """
        value, tokens = node.inputs[place], self._tokens(node)
        assert value is not None
        shape, dims = g.static_shape(value), g.static_shape(tokens)
        fits = (
            node in self.blocks
            and shape is not None
            and dims is not None
            and dims[0] == self.batch
            and axis > 0
            and rank - axis <= len(shape) <= rank
            and shape[axis - rank] == self._count(node)
            and None not in shape[1 if len(shape) == rank else 0 :]
        )
        if not fits:
            raise Stop(f"{node.op_type} applies a value per position ({value.name!r}), which would have to shrink too")
        self.flow.tables.append(
            Table(value, node, place, rank, axis, self.flow.cut.get(tokens, 0), self.flow.stage[tokens])
        )

    def _rotaryembedding(self, node: ir.Node) -> list[int | None]:
        axis = self._axis(node, 0)
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            self._table(node, 3, rank=2, axis=1)  # the rows of the caches that its tokens are rotated by
        else:
            for cache in (1, 2):
                self._table(node, cache, rank=3, axis=1)
        return [axis]

    def _reduce(self, node: ir.Node) -> int | None:
        axis, rank = self._axis(node, 0), self._rank(node)
        axes = g.ints_of(node.inputs[1]) if len(node.inputs) > 1 else None
        if axes is None:
            raise Stop(f"{node.op_type} over axes that are no constant")
        axes = [a % rank for a in axes]
        if axis in axes:
            raise Stop(f"{node.op_type} pools over the tokens")
        return axis if g.attribute(node, "keepdims", 1) else axis - sum(a < axis for a in axes)

    def _layernormalization(self, node: ir.Node) -> list[int | None]:
        axis, rank = self._axis(node, 0), self._rank(node)
        if axis >= int(g.attribute(node, "axis", -1)) % rank:  # type: ignore[call-overload]
            raise Stop(f"{node.op_type} normalises over the tokens")
        return [axis]

    _rmsnormalization = _layernormalization

    def _softmax(self, node: ir.Node) -> list[int | None]:
        axis, rank = self._axis(node, 0), self._rank(node)
        if axis == int(g.attribute(node, "axis", -1)) % rank:  # type: ignore[call-overload]
            raise Stop(f"{node.op_type} runs over the tokens")
        return [axis]

    _logsoftmax = _softmax

    def _matmul(self, node: ir.Node) -> list[int | None]:
        if node.inputs[1] in self.flow.axis:
            raise Stop("MatMul multiplies with a matrix that holds the tokens")
        axis, rank = self._axis(node, 0), self._rank(node)
        if axis == rank - 1:
            raise Stop("MatMul mixes the tokens")
        return [axis + max(self._rank(node, 1) - rank, 0)]

    def _gemm(self, node: ir.Node) -> list[int | None]:
        raise Stop("Gemm takes all tokens of the batch as rows")

    def _transpose(self, node: ir.Node) -> list[int | None]:
        perm = list(g.attribute(node, "perm") or range(self._rank(node))[::-1])  # type: ignore[call-overload]
        return [perm.index(self._axis(node, 0))]

    def _reshape(self, node: ir.Node) -> list[int | None]:
        before, after = _dims(node.inputs[0]), _dims(node.outputs[0])
        if before is None or after is None:
            raise Stop("Reshape to a shape that is only known at run time")
        axis = self._axis(node, 0)
        for place, dim in enumerate(after):
            if dim == self._count(node) and prod(after[:place]) == prod(before[:axis]):
                self.flow.reshapes[node] = place
                return [place]
        raise Stop("Reshape lays the tokens out anew (a grid, a window, or all in one row)")

    def _slice(self, node: ir.Node) -> list[int | None]:
        axis, rank = self._axis(node, 0), self._rank(node)
        starts, ends = g.ints_of(node.inputs[1]), g.ints_of(node.inputs[2])
        axes = g.ints_of(node.inputs[3]) if len(node.inputs) > 3 else list(range(rank))
        if starts is None or ends is None or axes is None:
            raise Stop("Slice at places that are only known at run time")
        cut = self.flow.cut.get(node.inputs[0], 0)  # type: ignore[arg-type]
        for start, end, at in zip(starts, ends, (a % rank for a in axes), strict=False):
            if at == axis and end < self.tokens - cut:
                if start >= 0 and 0 <= end <= self.prefix - cut:
                    return [None]
                raise Stop("Slice takes tokens by their position")
            if at == axis and not 0 <= start <= self.prefix - cut:
                raise Stop("Slice takes tokens by their position")
        return [axis]

    def cut(self, node: ir.Node) -> int:
        """How many prefix tokens a Slice cuts off the front, and a Concat puts back."""
        if node.op_type == "Concat" and self.flow.cut.get(node.inputs[-1]):  # type: ignore[arg-type]
            end = self.flow.axis[node.inputs[-1]] - self._rank(node)  # type: ignore[index]
            return -self.flow.cut[node.inputs[-1]] if self._puts_prefix_back(node, end) else 0  # type: ignore[index]
        if node.op_type != "Slice":
            return 0
        axis, rank = self._axis(node, 0), self._rank(node)
        axes = g.ints_of(node.inputs[3]) if len(node.inputs) > 3 else list(range(rank))
        places = dict(zip((a % rank for a in axes or ()), g.ints_of(node.inputs[1]) or (), strict=False))
        return places.get(axis, 0)

    def _count(self, node: ir.Node) -> int:
        """The tokens that a node reads, before any reduction."""
        return self.tokens - self.flow.cut.get(self._tokens(node), 0)

    def _tokens(self, node: ir.Node) -> ir.Value:
        """The first input that holds the tokens."""
        return next(value for value in node.inputs if value is not None and value in self.flow.axis)

    def _gather(self, node: ir.Node) -> list[int | None]:
        axis, rank = self._axis(node, 0), self._rank(node)
        at = int(g.attribute(node, "axis", 0)) % rank  # type: ignore[call-overload]
        if at == axis:
            indices = g.ints_of(node.inputs[1])
            prefix = self.prefix - self.flow.cut.get(node.inputs[0], 0)  # type: ignore[arg-type]
            if indices is not None and all(0 <= i < prefix for i in indices):
                return [None]  # a prefix token stays where it is
            raise Stop("Gather takes tokens by their position")
        removed = g.rank(node.inputs[1]) if node.inputs[1] is not None else None
        if removed is None:
            raise Stop("Gather with indices of unknown rank")
        return [axis + (removed - 1 if at < axis else 0)]

    def _split(self, node: ir.Node) -> list[int | None]:
        axis, rank = self._axis(node, 0), self._rank(node)
        if int(g.attribute(node, "axis", 0)) % rank == axis:  # type: ignore[call-overload]
            raise Stop("Split takes tokens by their position")
        return [axis] * len(node.outputs)

    def _unsqueeze(self, node: ir.Node) -> list[int | None]:
        axis, axes = self._axis(node, 0), g.ints_of(node.inputs[1])
        rank = g.rank(node.outputs[0])
        if axes is None or rank is None:
            raise Stop("Unsqueeze at axes that are only known at run time")
        free = [place for place in range(rank) if place not in [a % rank for a in axes]]
        return [free[axis]]

    def _squeeze(self, node: ir.Node) -> list[int | None]:
        axis, rank = self._axis(node, 0), self._rank(node)
        axes = g.ints_of(node.inputs[1]) if len(node.inputs) > 1 else None
        if axes is None or axis in [a % rank for a in axes]:
            raise Stop("Squeeze of the tokens")
        return [axis - sum(a % rank < axis for a in axes)]

    def _attention(self, node: ir.Node) -> list[int | None]:
        axes = [self._axis(node, i) for i in range(3)]
        if len(set(axes)) != 1:
            raise Stop("Attention between different sequences")
        return [axes[0]]

    def _shape(self, node: ir.Node) -> list[int | None]:
        return [None]


def _dims(value: ir.Value | None) -> list[int] | None:
    """The dimensions with BATCH for a dynamic axis 0; None when another one is unknown."""
    shape = g.static_shape(value) if value is not None else None
    if shape is None:
        return None
    dims = [BATCH if dim is None and place == 0 else dim for place, dim in enumerate(shape)]
    return None if any(dim is None for dim in dims) else dims  # type: ignore[return-value]
