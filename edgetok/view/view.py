"""TransformerView: finds the blocks, reduces tokens behind them, and keeps what belongs to a token in step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.errors import Refusal
from edgetok.manifest import TokenMap
from edgetok.rewrite.projection import split_projection
from edgetok.technique import Plan
from edgetok.view.attention import AttentionMap, key_bias
from edgetok.view.behind import reduce_outputs
from edgetok.view.blocks import Block, find_blocks
from edgetok.view.flow import Flow, follow
from edgetok.view.masks import BARRED, Mask, classify
from edgetok.view.outputs import emit_reduced, restore
from edgetok.view.positions import local_bias, place_tables
from edgetok.view.prefix import prefix_tokens
from edgetok.view.site import Site
from edgetok.view.stage import Stage, Step, attend_ahead, next_stage, reduce_tokens


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
        token_map: which outputs hold reduced tokens, and which say where tokens went; None where all are restored.
    """

    model: ir.Model
    blocks: list[Block]
    tokens: int
    prefix: int
    mask: Mask
    stages: list[Stage] = field(default_factory=list)
    token_map: TokenMap | None = None

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
        masks = {mask: classify(model.graph, mask) for mask in dict.fromkeys(block.mask for block in blocks)}
        for block in blocks:
            block.reach = masks[block.mask].reach
        kinds = {masking.kind for masking in masks.values()}
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

    def reduce(self, plans: Sequence[Plan], emit: str = "full") -> None:
        """Reduce tokens, and mend what needs all of them behind the last block.

        Args:
            plans: the techniques; at most one acts on a block, and at most one behind the encoder.
            emit: "full" restores the tokens where they are needed, each original token taking the value of the row
                it ended in; "reduced" gives out the reduced tokens with `token_rows` (B, N) and `token_size`
                (B, N', 1), and leaves out the outputs that need the full layout. Tokens that become fewer behind the
                encoder are given out so either way.

        Raises:
            Refusal: the graph needs its tokens in a way that a reduction would break.
        """
        acting = {block: plan for plan in plans for block in plan.counts}
        starts = {
            block.stream if acting[block.index].technique.where == "start" else block.after_attention: block.index
            for block in self.blocks
            if block.index in acting
        }
        for block in self.blocks:
            if block.stream in starts:  # values are of the reduced tokens, queries and keys of all
                split_projection(self.model.graph, block.attention)
        behind = [plan for plan in plans if plan.behind]
        if not starts:
            starts = {self.blocks[-1].after_attention: len(self.blocks) - 1}
        flow = self.check(starts)
        self._check_class_token(plans)
        _check_counts(plans)
        self._free_reshapes(flow)
        stage = Stage(self.tokens, size=self.padding())
        for block in self.blocks:
            stage = self._pass(block, stage, acting.get(block.index), plans, flow)
            self.stages.append(stage)
        self._resize(flow, starts)
        tokens = {value: (flow.axis[value], self.stages[flow.stage[value]]) for value in flow.axis}
        for plan in behind:
            self.token_map = reduce_outputs(self, flow, plan, stage.memories.get(plans.index(plan)))
        if emit == "full" or behind:
            restore(self.model.graph, flow, tokens)
        else:
            self.token_map = emit_reduced(self.model.graph, flow, tokens)
        self.model.graph.sort()

    def _pass(self, block: Block, stage: Stage, acting: Plan | None, plans: Sequence[Plan], flow: Flow) -> Stage:
        """Go through one block: what it reduces in front, what is remembered of it, what it reduces behind attention.

        Returns:
            The stage behind the block.
        """
        at_start = acting is not None and acting.technique.where == "start"
        attended: ir.Value | None = None  # what the block's attention gives, where that is computed here
        if acting is not None and at_start:
            place_tables(self.model.graph, flow, block.index, stage)
            site = self._site(block, stage, acting, plans, start=flow)
            stage, attended = self._reduce(site, block.stream, stage, acting, block)
            place_tables(self.model.graph, flow, block.index, stage)
        if attended is None:
            self._add_bias(block, stage)
        watching = {
            n: plan
            for n, plan in enumerate(plans)
            if plan.technique.observe is not None and (plan.behind or block.index <= max(plan.counts, default=-1))
        }
        after = stage
        if watching or (acting is not None and not at_start):
            site = self._site(block, stage, None if at_start else acting, plans)
            for number, plan in watching.items():
                assert plan.technique.observe is not None
                memory = plan.technique.observe.graph(site, stage.memories.get(number), plan.config)
                if memory is not None:
                    stage.memories[number] = memory
                    block.after_attention.meta["memory"] = memory
            if acting is not None and not at_start:
                site = replace(site, memory=stage.memories.get(plans.index(acting)))
                after, _ = self._reduce(site, block.after_attention, stage, acting, block)
                place_tables(self.model.graph, flow, block.index, after)
            assert site.attention is not None
            if attended is None and site.attention.is_computed:
                attended = site.op.MatMul(site.op.Cast(site.attention.weights, to=block.value.dtype), block.value)
        if attended is not None:
            self.take_attention(block, attended, stage.tokens)
        return after

    def check(self, starts: dict[ir.Value, int]) -> Flow:
        """Refuse what reductions at these places would break; else say how the tokens flow.

        A CTC head is known by its Softmax, or by what capture noted in the metadata. Where a foreign file has neither,
        its logits look like those of any classifier of single tokens, and it is let through.
        """
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
        if self.mask is Mask.PAIRS:
            raise Refusal(
                "attention bars pairs of positions, and not by their distance alone (blocks, strides, global tokens)",
                node=first,
                way_out="token reduction needs attention over all tokens, or over those within one distance",
            )
        inside = g.ancestors([self.blocks[-1].after_attention])
        flow = follow(self.model.graph, starts, self.tokens, self.prefix, blocks=inside)
        for end in flow.exits:
            if end.node in inside:
                raise Refusal(
                    f"between the blocks, {end.reason}",
                    node=end.node.name if end.node else None,
                    way_out="reduce behind it with layers=, or not at all",
                )
        ctc = self.model.metadata_props.get(g.HEAD) == "ctc"
        for output in self.model.graph.outputs:
            node = output.producer()
            if node is not None and g.rank(output) == 3 and (ctc or node.op_type in ("Softmax", "LogSoftmax")):
                raise Refusal(
                    f"output {output.name!r} scores classes at every position, as for CTC: "
                    "the order of the positions is the result",
                    node=node.name,
                    way_out="a reduced model would repeat and misplace symbols: export it without --reduce",
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

    def padding(self) -> ir.Value | None:
        """(B, N, 1): 1 for a token, 0 for padding; None without a mask."""
        if self.mask is not Mask.KEY_PADDING:
            return None
        block = next((block for block in self.blocks if block.reach is None), self.blocks[0])
        mask = block.mask
        assert mask is not None and mask.dtype is not None
        op = g.Emitter(self.model.graph)
        if block.reach is None:
            row = op.Slice(mask, np.array([0]), np.array([1]), np.array([-2]))  # (B, 1, 1, N)
        else:  # every token sees itself: the largest of its column says whether it is one
            column = op.Cast(mask, to=ir.DataType.FLOAT) if mask.dtype == ir.DataType.BOOL else mask
            row = op.Cast(op.ReduceMax(column, np.array([-2])), to=mask.dtype)
        if mask.dtype != ir.DataType.BOOL:
            row = op.Greater(row, np.array(BARRED, mask.dtype.numpy()))
        return op.Reshape(op.Cast(row, to=ir.DataType.FLOAT), np.array([0, -1, 1]))

    def _site(
        self, block: Block, stage: Stage, acting: Plan | None, plans: Sequence[Plan], start: Flow | None = None
    ) -> Site:
        """What a technique sees of a block; with `start`, in front of it."""
        op = g.Emitter(self.model.graph)
        heads = [block.query, block.key, block.value]
        if start is not None:  # the block itself computes them from the reduced tokens
            heads = g.copies(self.model.graph, block.stream, heads)
            for copy, value in zip(heads, (block.query, block.key, block.value), strict=True):
                dims = [stage.tokens if at == start.axis[value] else dim for at, dim in enumerate(value.shape or ())]
                g.typed(copy, value.dtype, dims)
        padded = self.mask is Mask.KEY_PADDING
        bias = stage.bias
        if bias is None and padded:
            assert stage.size is not None
            bias = key_bias(op, stage.size, proportional=False, padded=True)
        if block.reach is not None:
            dtype = ir.DataType.FLOAT if stage.bias is None else block.value.dtype
            assert dtype is not None
            bias = local_bias(op, stage, block.reach, bias, dtype)
        query, key, value = heads
        attention = AttentionMap(op, query, key, self.scale(block), bias, block.reach is not None)
        most = self.tokens if stage.length is not None else stage.fixed
        return Site(
            op, block.stream if start is not None else block.after_attention, self.model.graph.inputs[0],
            query, key, value, attention, stage.size, padded, most,
            self.prefix, acting.counts[block.index] if acting else 0, block.index, len(self.blocks),
            stage.memories.get(plans.index(acting)) if acting else None, positions=stage.positions,
            original=self.tokens, turn=sorted(acting.counts).index(block.index) if acting else 0, length=stage.length,
        )  # fmt: skip

    def _reduce(
        self, site: Site, hidden: ir.Value, stage: Stage, plan: Plan, block: Block
    ) -> tuple[Stage, ir.Value | None]:
        """Let a technique choose, apply its choice, and hand the result to all who read the residual stream.

        Returns:
            The stage behind it, and what the block's attention gives where that looks at the tokens as they came.
        """
        reads = g.ancestors([site.query, site.key, site.value])
        uses = [use for use in g.consumers(hidden) if use[0] not in reads]
        selection = plan.technique.select(site, plan.config)
        step = Step.of(site, selection)
        reduced, size = reduce_tokens(site, step, selection)
        width = g.static_shape(hidden)[2]  # type: ignore[index]
        g.typed(reduced, hidden.dtype, ["batch", step.kept, width])
        if size is not None:
            g.typed(size, ir.DataType.FLOAT, ["batch", step.kept, 1])
        for node, place in uses:
            node.replace_input_with(place, reduced)
        bias = None
        if size is not None and (selection.proportional or site.padded):
            bias = site.op.Cast(key_bias(site.op, size, selection.proportional, site.padded), to=hidden.dtype)
        after = next_stage(site, stage, step, size, bias, self.tokens)
        hidden.meta.update(reduced=reduced, rows=after.rows, bias=bias, companions=after.companions)
        if not selection.ahead:
            return after, None
        assert site.attention is not None
        hidden.meta.update(attention=site.attention.weights)
        return after, attend_ahead(site, step, selection, block.value)

    def take_attention(self, block: Block, attended: ir.Value, tokens: int | ir.SymbolicDim) -> None:
        """Let what is computed elsewhere, (B, h, N, d), take the place of a block's attention."""
        old, dims = block.attention, g.static_shape(block.query)
        assert dims is not None
        g.typed(attended, old.outputs[0].dtype, ["batch", dims[1], tokens, dims[3]])
        old.outputs[0].replace_all_uses_with(attended)
        self.model.graph.remove(old, safe=True)

    def scale(self, block: Block) -> float:
        """Of a block's attention scores."""
        dims = g.static_shape(block.query)
        assert dims is not None and dims[3] is not None
        return float(g.attribute(block.attention, "scale") or dims[3] ** -0.5)  # type: ignore[arg-type]

    def _check_class_token(self, plans: Sequence[Plan]) -> None:
        for plan in plans:
            if plan.technique.needs_class_token and not self.prefix:
                raise Refusal(
                    f"{plan.name} asks what the class token attends to, and this model has none",
                    node=self.blocks[0].attention.name,
                    way_out="take a technique that compares tokens, such as tome",
                )

    def _add_bias(self, block: Block, stage: Stage) -> None:
        """Let a block's attention add what a reduced stage's tokens need in place of its mask."""
        bias, dtype, op = stage.bias, block.value.dtype, g.Emitter(self.model.graph)
        if stage.positions is not None and block.reach is not None:
            assert dtype is not None
            bias = local_bias(op, stage, block.reach, bias, dtype)
        if bias is None:
            return
        dims = g.static_shape(block.query)
        assert dims is not None
        new = op.ProportionalAttention(
            block.query, block.key, block.value, bias, stage.count(), domain="edgetok", scale=self.scale(block),
            heads=dims[1],
        )  # fmt: skip
        self.take_attention(block, new, stage.tokens)
        block.attention = new.producer()

    def _free_reshapes(self, flow: Flow) -> None:
        """Let the Reshapes work for any count of tokens."""
        for node, place in flow.reshapes.items():
            dims = g.static_shape(node.outputs[0])
            assert dims is not None
            free = [0 if axis == 0 and dim is None else dim for axis, dim in enumerate(dims)]
            free[place] = -1
            node.replace_input_with(1, g.constant(self.model.graph, np.array(free, np.int64)))
            node.attributes.pop("allowzero", None)

    def _resize(self, flow: Flow, starts: dict[ir.Value, int]) -> None:
        """Write the new counts into the shapes."""
        for value, axis in flow.axis.items():
            block = flow.stage[value] - (value in starts)  # a reduction stands behind its start
            tokens = g.without(self.stages[block].tokens if block >= 0 else self.tokens, flow.cut.get(value, 0))
            value.shape = ir.Shape([tokens if at == axis else dim for at, dim in enumerate(value.shape or ())])


def _check_counts(plans: Sequence[Plan]) -> None:
    """Refuse what would reduce a number of tokens that only the run says, and takes no such."""
    for first in plans:
        for plan in plans:
            if plan is not first and first.dynamic and (plan.behind or max(plan.counts) > min(first.counts)):
                raise Refusal(
                    f"{plan.name} stands behind {first.name}, whose counts differ from input to input, "
                    "and has to know how many tokens there are",
                    way_out=f"leave dynamic=true away from {first.name}, or let {plan.name} act in earlier blocks",
                )
