"""Sparse attention in the blocks of a view: keys are chosen, and one of edgetok's two operators attends to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok import attention as sparse
from edgetok import graph as g
from edgetok.errors import Refusal, UsageError
from edgetok.manifest import SparseBlock
from edgetok.schedule import chosen_blocks
from edgetok.view import tiles
from edgetok.view.attention import key_bias
from edgetok.view.blocks import Block
from edgetok.view.masks import BARRED, Mask
from edgetok.view.measured import on_samples
from edgetok.view.stage import Stage
from edgetok.view.view import TransformerView

if TYPE_CHECKING:
    from edgetok.calibration import Run


@dataclass(frozen=True)
class AttentionSite:
    """What a sparse attention sees of a block.

    Attributes:
        op: writes nodes: `site.op.MatMul(a, b)`.
        query: (B, h, N, d)
        key, value: (B, g, N, d), shared by h / g heads each.
        ids: (B, N) int64, the tokens of a text; None where the graph is given none.
        bias: (B, 1, 1, N) added per key for sizes and padding; None for nothing.
        measured: (samples, ...) what the sparse attention measures of the block; None for nothing.
        size: (B, N, 1) fp32: how many tokens each stands for, 0 for padding; None while all are 1.
        scale: of the scores.
        heads, groups: h and g.
        tokens: N.
        width: d.
        prefix: leading tokens that are no patches (CLS, registers).
        causal: whether a token sees only those before it and itself.
        reduced: whether a technique has reduced the tokens; with sizes, some may stand for several.
        order: (N,) the tokens' places in the order in which the site holds them; None where that is their own.
    """

    op: g.Emitter
    query: ir.Value
    key: ir.Value
    value: ir.Value
    size: ir.Value | None
    scale: float
    heads: int
    groups: int
    tokens: int
    width: int
    prefix: int
    causal: bool
    ids: ir.Value | None = None
    bias: ir.Value | None = None
    measured: np.ndarray | None = None
    reduced: bool = False
    order: np.ndarray | None = None

    def tiled(self, height: int) -> AttentionSite:
        """With its tokens tile by tile.

        Raises:
            Refusal: the patches are no square.
        """
        order, op = tiles.order(self.tokens, self.prefix, height), self.op

        def sort(value: ir.Value, axis: int) -> ir.Value:
            shape = None if value.shape is None else list(value.shape)
            sorted_: ir.Value = op.Gather(value, order, axis=axis)
            return sorted_ if shape is None else g.typed(sorted_, value.dtype, shape)

        size = None if self.size is None else sort(self.size, 1)
        bias = None if self.bias is None else sort(self.bias, 3)
        query, key, value = (sort(each, 2) for each in (self.query, self.key, self.value))
        return replace(self, query=query, key=key, value=value, size=size, bias=bias, order=order)

    def blocks(self, block: int) -> int:
        """Of so many tokens."""
        return -(-self.tokens // block)

    def for_heads(self, value: ir.Value, width: int) -> ir.Value:
        """(B, g, K, width) -> (B, h, K, width): what each head of queries compares itself with."""
        if self.groups == self.heads:
            return value
        op, each = self.op, self.heads // self.groups
        spread = op.Expand(op.Unsqueeze(value, np.array([2])), np.array([1, 1, each, 1, 1]))  # (B, g, h / g, K, width)
        length = op.Shape(value, start=2, end=3)
        out: ir.Value = op.Reshape(spread, op.Concat(np.array([0, self.heads]), length, np.array([width]), axis=0))
        return out

    def bias_row(self) -> ir.Value | np.ndarray:
        """(B or 1, N or 1) fp32: what is added to the scores of each key."""
        if self.bias is None:
            return np.zeros((1, 1), np.float32)
        row: ir.Value = self.op.Reshape(self.op.Cast(self.bias, to=ir.DataType.FLOAT), np.array([0, -1]))
        return row


def attend_sparsely(
    view: TransformerView,
    specs: Sequence[sparse.AttentionSpec],
    masses: Mapping[int, float] | None = None,
    run: Run | None = None,
) -> tuple[SparseBlock, ...]:
    """Let blocks attend sparsely, behind whatever reduces their tokens.

    Args:
        view: of the graph.
        specs: each for blocks of its own.
        masses: the share of attention that is kept in a block, where it was measured.
        run: runs a graph on samples, for those that measure something.

    Returns:
        What each of them attends to.

    Raises:
        Refusal: attention cannot be made sparse there, or something is to be measured and there are no samples.
        UsageError: a block that does not exist, or that two specs name.
    """
    done: dict[int, SparseBlock] = {}
    measured = _measured(view, specs, run)
    for spec in specs:
        if twice := [index for index in chosen_blocks(spec.shared.layers, len(view.blocks)) if index in done]:
            raise UsageError(f"two sparse attentions name block {twice[0]}: give them different layers=")
        for site, block, stage in sites(view, spec):
            site = replace(site, measured=measured.get(f"{spec.name}_{block.index}"))
            kept = (masses or {}).get(block.index)
            done[block.index] = _attend(view, block, stage, site, spec).model_copy(update={"mass": kept})
    view.model.graph.sort()
    return tuple(done[index] for index in sorted(done))


def _measured(view: TransformerView, specs: Sequence[sparse.AttentionSpec], run: Run | None) -> dict[str, np.ndarray]:
    """{"double-sparsity_3": (samples, ...)}: what is measured in the blocks while all of them attend densely."""
    values = {}
    for spec in specs:
        if (measures := sparse.load(spec.name).measures) is not None:
            for site, block, _ in sites(view, spec):
                values[f"{spec.name}_{block.index}"] = g.typed(measures(site), ir.DataType.FLOAT, [None] * 3)
    if values and run is None:
        why = f"{next(iter(values)).rpartition('_')[0]} is calibrated on samples, and there are none"
        raise Refusal(why, way_out="quest chooses by content as well, and measures nothing")
    return on_samples(view.model, values, run) if run is not None else {}


def sites(view: TransformerView, spec: sparse.AttentionSpec) -> Iterator[tuple[AttentionSite, Block, Stage]]:
    """The blocks that a spec names, as a sparse attention sees them.

    Raises:
        Refusal: attention cannot be made sparse there.
        UsageError: a block that does not exist.
    """
    chosen = sparse.load(spec.name)
    causal = view.mask is Mask.CAUSAL
    if view.mask in (Mask.BIAS, Mask.PAIRS):
        raise Refusal(
            f"attention has a mask that {view.mask.value}: sparse lists would leave it out",
            node=view.blocks[0].attention.name,
            way_out="sparse attention needs a mask for padding, a causal one, or none",
        )
    if spec.shared.tiles and causal:
        raise Refusal("tiles are of a picture's patches, and this is a causal model", way_out="leave tiles= out")
    if chosen.serves != "both" and causal != (chosen.serves == "causal models"):
        kind = "causal" if causal else "no causal model"
        why = f"{spec.name} serves {chosen.serves}, and this is {kind}"
        raise Refusal(why, way_out="edgetok techniques lists the others")
    padding = _causal_padding(view) if causal else view.padding()
    for index in chosen_blocks(spec.shared.layers, len(view.blocks)):
        stage = view.stages[index - 1] if index and view.stages else Stage(view.tokens, size=padding)
        block = view.blocks[index]
        _check(block, stage, spec, chosen)
        site = _site(view, block, stage)
        yield site.tiled(spec.shared.tiles) if spec.shared.tiles else site, block, stage


def _site(view: TransformerView, block: Block, stage: Stage) -> AttentionSite:
    """What a sparse attention sees of a block."""
    op = g.Emitter(view.model.graph)
    query, keys = (g.static_shape(value) for value in (block.query, block.key))
    assert query is not None and keys is not None
    heads, width, groups = query[1], query[3], keys[1]
    assert heads and width and groups
    row = stage.bias
    if row is None and stage.size is not None:
        row = key_bias(op, stage.size, proportional=False, padded=True)
    ids = next((value for value in view.model.graph.inputs if value.name == "input_ids"), None)
    return AttentionSite(
        op, block.query, block.key, block.value, stage.size, view.scale(block), heads, groups, stage.fixed, width,
        view.prefix, view.mask is Mask.CAUSAL, ids, row, reduced=stage.rows is not None,
    )  # fmt: skip


def _attend(
    view: TransformerView, block: Block, stage: Stage, site: AttentionSite, spec: sparse.AttentionSpec
) -> SparseBlock:
    """One block."""
    chosen, op = sparse.load(spec.name), site.op
    side = spec.config.block
    lists = chosen.lists(site, spec.config)
    if lists.whole >= site.blocks(side):
        raise Refusal(
            f"{spec.name} lets the first {lists.whole * side} tokens attend to all, and there are {stage.fixed}: "
            "nothing is left to be sparse",
            node=block.attention.name,
            way_out="take smaller blocks, block=16, or leave such short sequences dense",
        )
    first = lists.whole * side
    new, attended = attend_to(site, lists, side)
    g.typed(attended, block.value.dtype, ["batch", site.heads, stage.fixed - first, site.width])
    if first:
        attended = op.Concat(_whole(block, site, first), attended, axis=2)
    if site.order is not None:
        attended = op.Gather(attended, site.order.argsort(), axis=2)
        g.typed(attended, block.value.dtype, ["batch", site.heads, stage.fixed, site.width])
    view.take_attention(block, attended, stage.tokens)
    block.attention = new
    return SparseBlock(
        block=block.index, technique=spec.name, tokens=stage.fixed, size=side, density=lists.density,
        heads=site.heads, width=site.width,
    )  # fmt: skip


def attend_to(site: AttentionSite, lists: sparse.Lists, side: int) -> tuple[ir.Node, ir.Value]:
    """The node that attends, the first if there are several, and what it gives, (B, h, N - whole side, d) in order."""
    parts = [_operator(site, each, side) for each in (lists, *lists.more)]
    node, attended = parts[0].producer(), site.op.Concat(*parts, axis=2) if lists.more else parts[0]
    assert node is not None
    return node, attended if lists.restore is None else lists.restore(attended)


def _operator(site: AttentionSite, lists: sparse.Lists, side: int) -> ir.Value:
    """What the queries of some lists get, without those that have none."""
    op, query, first = site.op, lists.query or site.query, lists.whole * side
    rest = op.Slice(query, np.array([first]), np.array([g.LAST]), np.array([2])) if first else query
    given = (
        rest, lists.key or site.key, lists.value or site.value, lists.index, lists.count,
        site.bias_row() if lists.bias is None else lists.bias,
    )  # fmt: skip
    attended: ir.Value
    if lists.block_k == 1:
        attended = op.TokenSparseAttention(
            *given, domain="edgetok", block_q=side, scale=site.scale, causal=int(site.causal)
        )  # fmt: skip
    else:
        attended = op.BlockSparseAttention(
            *given, domain="edgetok", block_q=side, block_k=lists.block_k or side, scale=site.scale,
            causal=int(site.causal), window=lists.window, pinned=lists.pinned,
        )  # fmt: skip
    return attended


def _whole(block: Block, site: AttentionSite, first: int) -> ir.Value:
    """(B, h, first, d): the first queries attend to all keys."""
    op, row, inputs = site.op, site.bias, [site.key, site.value]
    query = op.Slice(site.query, np.array([0]), np.array([first]), np.array([2]))
    g.typed(query, block.query.dtype, ["batch", site.heads, first, site.width])
    if row is not None:
        shape = op.Concat(op.Shape(row, start=0, end=2), np.array([first]), np.array([site.tokens]), axis=0)
        inputs.append(op.Expand(op.Cast(row, to=block.query.dtype), shape))
    out: ir.Value = op.Attention(query, *inputs, scale=site.scale)
    return g.typed(out, block.query.dtype, ["batch", site.heads, first, site.width])


def _check(block: Block, stage: Stage, spec: sparse.AttentionSpec, chosen: sparse.Attention) -> None:
    """Refuse a block whose attention cannot be made sparse."""
    node = block.attention
    way_out = f"leave block {block.index} out with layers="
    if node.graph is None:
        why = f"block {block.index} computes all attention weights for the technique that reduces there"
        raise Refusal(why, way_out=way_out)
    if block.reach is not None:
        why = f"attention is local in block {block.index}: within {block.reach} tokens"
        raise Refusal(why, node=node.name, way_out=way_out)
    if g.attribute(node, "softcap") or g.attribute(node, "is_causal"):
        raise Refusal("attention has a softcap, or is causal by an attribute", node=node.name, way_out=way_out)
    if stage.length is not None:
        raise Refusal(
            f"{spec.name} has to know how many tokens there are, and in block {block.index} inputs differ in that",
            node=node.name,
            way_out="leave dynamic=true away from the technique that reduces",
        )
    if spec.shared.tiles and chosen.by_place:
        why = f"{spec.name} goes by the places of tokens in their row, and tiles= gives them others"
        raise Refusal(why, way_out="block-topk goes by content; or leave tiles= out")
    if spec.shared.tiles and stage.rows is not None:
        raise Refusal(
            f"tiles are of all patches of a picture, and those in block {block.index} were reduced",
            node=node.name,
            way_out="leave tiles= out behind the reduction: block-topk:tiles=8,layers=0-3+block-topk:layers=4-11",
        )
    if chosen.by_place and stage.rows is not None:
        raise Refusal(
            f"{spec.name} goes by the places of tokens, and those in block {block.index} were reduced: "
            "neighbours are no longer side by side",
            node=node.name,
            way_out="block-topk goes by content; or leave the blocks behind the reduction out with layers=",
        )


def _causal_padding(view: TransformerView) -> ir.Value | None:
    """(B, N, 1): 1 for what the last position of a causal model sees, 0 for padding; None without padding."""
    mask = view.blocks[0].mask
    assert mask is not None
    if g.is_data_free(mask):
        return None
    op = g.Emitter(view.model.graph)
    row = op.Slice(mask, np.array([-1]), np.array([g.LAST]), np.array([-2]))  # (B, 1, 1, N)
    if mask.dtype != ir.DataType.BOOL:
        row = op.Greater(row, np.array(BARRED, mask.dtype.numpy()))  # type: ignore[union-attr]
    padding: ir.Value = op.Reshape(op.Cast(row, to=ir.DataType.FLOAT), np.array([0, -1, 1]))
    return padding
