"""TransformerView: finds the blocks, reduces tokens behind them, and keeps what belongs to a token in step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.errors import Refusal
from edgetok.technique import Selection
from edgetok.view.blocks import Block, find_blocks
from edgetok.view.flow import Flow, follow
from edgetok.view.masks import BARRED, Mask, classify
from edgetok.view.outputs import emit_reduced, restore
from edgetok.view.prefix import prefix_tokens
from edgetok.view.site import Site

Select = Callable[[Site], Selection]


@dataclass(frozen=True)
class Stage:
    """The tokens between two reductions.

    Attributes:
        tokens: how many there are.
        size: (B, tokens, 1) how many tokens each stands for; None while all are 1.
        rows: (B, N) int64 for each original token its row here; None while nothing was reduced.
        bias: (B, 1, 1, tokens) added to the attention scores; None for none.
    """

    tokens: int
    size: ir.Value | None = None
    rows: ir.Value | None = None
    bias: ir.Value | None = None


@dataclass
class TransformerView:
    """The transformer in a graph.

    Attributes:
        model: the model whose graph is seen and changed.
        blocks: the blocks in order.
        tokens: N, of the first block.
        prefix: leading tokens that no input can change, or that the model reads by their place.
        mask: what the attention masks do.
        stages: the tokens behind the attention of each block, once they are reduced.
    """

    model: ir.Model
    blocks: list[Block]
    tokens: int
    prefix: int
    mask: Mask
    stages: list[Stage] = field(default_factory=list)

    @classmethod
    def of(cls, model: ir.Model) -> TransformerView:
        """See the transformer in a graph.

        Raises:
            Refusal: no block is found, or its tokens cannot be counted.
        """
        blocks = find_blocks(model.graph)
        if not blocks:
            raise Refusal(
                "no transformer block found: the graph holds no attention that could be recognised",
                way_out="edgetok inspect shows what is there",
            )
        kinds = {classify(model.graph, mask) for mask in dict.fromkeys(block.mask for block in blocks)}
        if len(kinds) > 1:
            raise Refusal(f"the blocks use different masks: {', '.join(sorted(kind.value for kind in kinds))}")
        stream = blocks[0].stream
        shape = g.static_shape(stream)
        if shape is None or len(shape) != 3 or shape[1] is None:
            raise Refusal(
                f"the number of tokens is not fixed: the residual stream has shape {stream.shape}",
                node=blocks[0].attention.name,
                way_out="fix it with --size (images) or --length (text, audio)",
            )
        view = cls(model, blocks, shape[1], prefix_tokens(stream), kinds.pop())
        if view.prefix == 0 and view._first_token_is_read():
            view.prefix = 1
        return view

    def reduce(self, plan: dict[int, tuple[int, Select]], emit: str = "full") -> None:
        """Reduce tokens behind the attention of some blocks, and mend what needs all of them behind the last block.

        Args:
            plan: {block: (how many tokens go there, the technique that says which)}.
            emit: "full" restores the tokens where they are needed, each original token taking the value of the row
                it ended in; "reduced" gives out the reduced tokens with `token_rows` (B, N) and `token_size`
                (B, N', 1), and leaves out the outputs that need the full layout.

        Raises:
            Refusal: the graph needs its tokens in a way that a reduction would break.
        """
        starts = {block.after_attention: block.index for block in self.blocks if block.index in plan}
        flow = self.check(starts)
        stage = Stage(self.tokens, size=self._padding())
        for block in self.blocks:
            if stage.bias is not None:
                self._add_bias(block, stage)
            if block.index in plan:
                stage = self._reduce(block, stage, *plan[block.index])
            self.stages.append(stage)
        self._resize(flow, starts)
        tokens = {value: (flow.axis[value], self.stages[flow.stage[value]]) for value in flow.axis}
        (restore if emit == "full" else emit_reduced)(self.model.graph, flow.exits, tokens)
        self.model.graph.sort()

    def check(self, starts: dict[ir.Value, int]) -> Flow:
        """Refuse what reductions at these places would break; else say how the tokens flow."""
        first = self.blocks[0].attention.name
        if self.mask is Mask.CAUSAL:
            raise Refusal(
                "attention is causal: a merged token has no place in the order",
                node=first,
                way_out="token reduction works on encoders",
            )
        if self.mask is Mask.BIAS:
            raise Refusal(
                "attention adds a bias per pair of positions (relative positions, or windows)",
                node=first,
                way_out="token reduction needs attention without one",
            )
        flow = follow(self.model.graph, starts, self.tokens, self.prefix)
        inside = g.ancestors([self.blocks[-1].after_attention])
        for end in flow.exits:
            if end.node in inside:
                raise Refusal(
                    f"between the blocks, {end.reason}",
                    node=end.node.name if end.node else None,
                    way_out="reduce behind it with layers=, or not at all",
                )
        for output in self.model.graph.outputs:
            node = output.producer()
            if node is not None and node.op_type in ("Softmax", "LogSoftmax") and g.rank(output) == 3:
                raise Refusal(
                    f"output {output.name!r} is a distribution over classes at every position, as for CTC: "
                    "the order of the positions is the result",
                    node=node.name,
                    way_out="a reduced model would repeat and misplace symbols",
                )
        return flow

    def _first_token_is_read(self) -> bool:
        """Whether the head reads token 0 by its place, or the input is a text, which begins with one ([CLS], <s>)."""
        graph = self.model.graph
        if any(value.name == "input_ids" for value in graph.inputs):
            return True
        start = {self.blocks[-1].after_attention: 0}
        without, with_it = ({e.node for e in follow(graph, start, self.tokens, p).exits} for p in (0, 1))
        return bool(without - with_it)

    def _padding(self) -> ir.Value | None:
        """(B, N, 1): 1 for a token, 0 for padding; None without a mask."""
        if self.mask is not Mask.KEY_PADDING:
            return None
        mask = self.blocks[0].mask
        assert mask is not None and mask.dtype is not None
        op = g.Emitter(self.model.graph)
        row = op.Slice(mask, np.array([0]), np.array([1]), np.array([-2]))  # (B, 1, 1, N)
        if mask.dtype != ir.DataType.BOOL:
            row = op.Greater(row, np.array(BARRED, mask.dtype.numpy()))
        return op.Reshape(op.Cast(row, to=ir.DataType.FLOAT), np.array([0, -1, 1]))

    def _reduce(self, block: Block, stage: Stage, count: int, select: Select) -> Stage:
        """Let a technique choose, apply its choice, and hand the result to all who read the residual stream."""
        hidden, uses = block.after_attention, g.consumers(block.after_attention)
        op = g.Emitter(self.model.graph)
        padded = self.mask is Mask.KEY_PADDING
        site = Site(
            op, hidden, self.model.graph.inputs[0], block.query, block.key, block.value, stage.size, padded,
            stage.tokens, self.prefix, count, block.index, len(self.blocks),
        )  # fmt: skip
        selection = select(site)
        kept, size = stage.tokens - count, stage.size
        if selection.merge:
            if size is None:
                shape = op.Concat(op.Shape(hidden, start=0, end=2), np.array([1]), axis=0)
                size = op.Expand(np.ones((1, 1, 1), np.float32), shape)
            reduced, size = op.MergeTokens(
                hidden, size, selection.order, selection.destination, domain="edgetok", kept=kept, outputs=2
            )
        else:
            index = site.part(selection.order, 0, kept)
            reduced = op.KeepTokens(hidden, index, domain="edgetok")
            size = None if size is None else op.KeepTokens(size, index, domain="edgetok")
        width = g.static_shape(hidden)[2]  # type: ignore[index]
        g.typed(reduced, hidden.dtype, ["batch", kept, width])
        if size is not None:
            g.typed(size, ir.DataType.FLOAT, ["batch", kept, 1])
        for node, place in uses:
            node.replace_input_with(place, reduced)
        rows = self._rows(site, stage, selection, kept)
        bias = self._bias(op, size, selection, padded, hidden.dtype)
        hidden.meta.update(reduced=reduced, rows=rows, bias=bias)
        return Stage(kept, size, rows, bias)

    def _rows(self, site: Site, stage: Stage, selection: Selection, kept: int) -> ir.Value:
        """(B, N): for each original token its row behind this reduction."""
        op = site.op
        target = op.Concat(site.per_sample(np.arange(kept)), selection.destination, axis=1)
        step = op.ScatterElements(selection.order, selection.order, target, axis=1)
        rows = step if stage.rows is None else op.GatherElements(step, stage.rows, axis=1)
        return g.typed(rows, ir.DataType.INT64, ["batch", self.tokens])

    def _bias(
        self, op: g.Emitter, size: ir.Value | None, selection: Selection, padded: bool, dtype: ir.DataType | None
    ) -> ir.Value | None:
        """(B, 1, 1, N'): what attention adds per key from here on: log(size), and a bar on padding."""
        if size is None or not (selection.proportional or padded):
            return None
        row: ir.Value = op.Reshape(size, np.array([0, 1, 1, -1]))
        real = op.Max(row, np.float32(1)) if padded else row
        bias: object = op.Log(real) if selection.proportional else np.float32(0)
        if padded:
            bias = op.Where(op.Greater(row, np.float32(0)), bias, np.float32(BARRED))
        return op.Cast(bias, to=dtype)

    def _add_bias(self, block: Block, stage: Stage) -> None:
        """Let a block's attention add the stage's bias per key in place of its mask."""
        old, dims = block.attention, g.static_shape(block.query)
        assert dims is not None and dims[3] is not None
        scale = float(g.attribute(old, "scale") or dims[3] ** -0.5)  # type: ignore[arg-type]
        op = g.Emitter(self.model.graph)
        new = op.ProportionalAttention(block.query, block.key, block.value, stage.bias, domain="edgetok", scale=scale)
        g.typed(new, old.outputs[0].dtype, ["batch", dims[1], stage.tokens, dims[3]])
        old.outputs[0].replace_all_uses_with(new)
        block.attention = new.producer()
        self.model.graph.remove(old, safe=True)

    def _resize(self, flow: Flow, starts: dict[ir.Value, int]) -> None:
        """Write the new counts into the shapes, and let the Reshapes work for any count."""
        for node, place in flow.reshapes.items():
            dims = g.static_shape(node.outputs[0])
            assert dims is not None
            free = [0 if axis == 0 and dim is None else dim for axis, dim in enumerate(dims)]
            free[place] = -1
            node.replace_input_with(1, g.constant(self.model.graph, np.array(free, np.int64)))
            node.attributes.pop("allowzero", None)
        for value, axis in flow.axis.items():
            block = flow.stage[value] - (value in starts)  # a reduction stands behind its start
            tokens = self.stages[block].tokens if block >= 0 else self.tokens
            value.shape = ir.Shape([tokens if at == axis else dim for at, dim in enumerate(value.shape or ())])
