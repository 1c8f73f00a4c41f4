"""xattention: each block of queries attends to the fewest blocks of keys that hold a share of its attention.

XAttention: Block Sparse Attention with Antidiagonal Scoring, https://arxiv.org/abs/2503.16428, section 2; published
code: xattn_estimate of mit-han-lab/x-attention.

Attention is estimated at one place in `stride`: the keys of `stride` neighbours stand side by side as one long key, the
queries likewise in reverse order, so that a product of the two sums an antidiagonal of the scores. Softmax over these
gives each pair of blocks a share of the attention. Blocks are taken by falling share until they hold `threshold` of
their row; the first block and the row's own come first and are always taken. So lists are of the length that the input
needs, up to `most` of all blocks. Cost: N^2 d / stride products.

What differs: the published code forces those two blocks in causal models only, lets padded keys and queries take part,
and with keep_sink opens the whole first row. The first blocks of queries that hold the prefix attend to all.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.attention import Attention, AttentionState, Lists, check_block, check_range
from edgetok.errors import UsageError
from edgetok.exporters.attention import _pieces
from edgetok.graph import constant

if TYPE_CHECKING:
    import torch

    from edgetok.view.sparse import AttentionSite

BARRED = np.float32(-1e6)  # the score of keys that are padding, or lie ahead
FORCED = np.float32(1e6)


@dataclass(frozen=True)
class Config:
    """Options of xattention.

    Attributes:
        threshold: the share of a row's estimated attention that its blocks hold.
        stride: how many neighbours are summed: 4, 8 or 16.
        most: the longest list, as a share of the blocks; what runs by the standard operators gathers as much.
        block: tokens of a block: 16, 32, 64 or 128.
    """

    threshold: float = 0.9
    stride: int = 8
    most: float = 1.0
    block: int = 64

    def __post_init__(self) -> None:
        check_block(self.block)
        check_range(self, "threshold", 0.01, 1)
        check_range(self, "most", 0.001, 1)
        if self.stride not in (4, 8, 16):
            raise UsageError(f"option stride={self.stride}: accepted are 4, 8 and 16")

    def longest(self, blocks: int) -> int:
        """The longest list among so many blocks."""
        return min(blocks, max(2, ceil(self.most * blocks)))


def lists(site: AttentionSite, config: Config) -> Lists:
    """Estimate, sort, and take until the share is reached."""
    op, blocks = site.op, site.blocks(config.block)
    whole = 0 if site.causal else -(-site.prefix // config.block)
    share = shares(site, config)
    share = op.Slice(share, np.array([whole]), np.array([blocks]), np.array([2]))  # (B, h, Q, K)
    row, column = np.arange(whole, blocks)[:, None], np.arange(blocks)
    forced = FORCED * ((row == column) | (column == 0)) + BARRED * (site.causal & (column > row))
    most = config.longest(blocks)
    key, index = op.TopK(op.Add(share, forced.astype(np.float32)), np.array([most]), axis=3, outputs=2)
    taken = op.GatherElements(share, index, axis=3)
    before = op.CumSum(taken, np.array(3), exclusive=1)
    bound = op.Mul(op.ReduceSum(share, np.array([3])), np.float32(config.threshold))
    keep = op.Or(op.Less(before, bound), op.Greater(key, FORCED / 2))
    keep = op.And(keep, op.Greater(key, BARRED / 2))
    count = op.ReduceSum(op.Cast(keep, to=ir.DataType.INT32), np.array([3]), keepdims=0)
    pairs = blocks * (blocks + 1) // 2 if site.causal else blocks**2
    longest = np.minimum(np.arange(whole, blocks) + 1, most) if site.causal else np.full(blocks - whole, most)
    density = (int(longest.sum()) + whole * blocks) / pairs
    return Lists(op.Cast(index, to=ir.DataType.INT32), count, whole, density=density)


def shares(site: AttentionSite, config: Config) -> ir.Value:
    """(B, h, Q, K) fp32: how much of the attention of a block of queries each block of keys gets."""
    op, blocks, stride = site.op, site.blocks(config.block), config.stride
    fill, inside = blocks * config.block - site.tokens, config.block // stride
    real: ir.Value | np.ndarray = (np.arange(blocks * config.block) < site.tokens).astype(np.float32)[None, :, None]
    if site.size is not None:
        padded = op.Pad(site.size, np.array([0, 0, 0, 0, fill, 0])) if fill else site.size
        real = op.Cast(op.Greater(padded, np.float32(0)), to=ir.DataType.FLOAT)  # (B, N, 1)
    rows = op.ReduceMax(op.Reshape(real, np.array([0, -1, stride])), np.array([2]))  # (B, N / stride, 1)

    def summed(value: ir.Value, heads: int, turned: bool) -> ir.Value:
        value = op.Cast(value, to=ir.DataType.FLOAT)
        value = op.Pad(value, np.array([0, 0, 0, 0, 0, 0, fill, 0])) if fill else value
        value = op.Mul(value, op.Unsqueeze(real, np.array([1])))
        value = op.Reshape(value, np.array([0, heads, -1, stride, site.width]))
        if turned:
            value = op.Gather(value, np.arange(stride)[::-1].copy(), axis=3)
        return op.Reshape(value, np.array([0, heads, -1, stride * site.width]))

    query = op.Mul(summed(site.query, site.heads, True), np.float32(site.scale / stride))
    keys = site.for_heads(summed(site.key, site.groups, False), stride * site.width)
    bars = op.Unsqueeze(op.Mul(op.Sub(np.float32(1), rows), BARRED), np.array([1]))  # (B, 1, N / stride, 1)
    asks, count = op.Unsqueeze(rows, np.array([1])), blocks * inside
    step = _pieces.length(site, count, count, inside)
    ahead = constant(op.graph, np.triu(np.full((step, step), BARRED, np.float32), k=1)) if site.causal else None

    def share(first: int, last: int) -> ir.Value:
        asking, stop = _pieces.rows(op, query, first, last, count), last if site.causal else count

        def score(low: int, high: int) -> ir.Value:
            key, bar = (
                op.Transpose(_pieces.rows(op, each, low, high, count), perm=[0, 1, 3, 2]) for each in (keys, bars)
            )
            logits: ir.Value = op.Add(op.MatMul(asking, key), bar)
            return logits

        logits = score(0, count) if ahead is None else _pieces.causal(op, score, first, (last - first,) * 2, ahead)
        weights = op.Mul(op.Softmax(logits, axis=-1), _pieces.rows(op, asks, first, last, count))
        apart = np.array([0, site.heads, (last - first) // inside, inside, stop // inside, inside])
        tiles = op.ReduceSum(op.Reshape(weights, apart), np.array([3, 5]), keepdims=0)
        behind = blocks - stop // inside
        out: ir.Value = op.Pad(tiles, np.array([0, 0, 0, 0, 0, 0, 0, behind])) if behind else tiles
        return out

    return _pieces.joined(op, [share(first, min(first + step, count)) for first in range(0, count, step)])


def reference(state: AttentionState, config: Config) -> torch.Tensor:
    """Who sees whom, by a loop over the blocks of queries."""
    import torch

    tokens, block = state.keys.shape[2], config.block
    share = reference_shares(state, config)
    blocks = share.shape[2]
    whole = 0 if state.causal else -(-state.prefix // block)
    seen = torch.zeros(*share.shape[:2], tokens, tokens, dtype=torch.bool)
    of_key = torch.arange(tokens) // block
    for row in range(blocks):
        part = slice(row * block, min((row + 1) * block, tokens))
        if row < whole:
            seen[:, :, part] = True
            continue
        for sample, head in torch.cartesian_prod(*map(torch.arange, share.shape[:2])).tolist():
            own = share[sample, head, row]
            visible = [i for i in range(row + 1 if state.causal else blocks) if i not in (0, row)]
            order = list(dict.fromkeys((0, row)))
            order.sort(key=lambda i: -float(own[i]))
            order += sorted(visible, key=lambda i: -float(own[i]))
            taken, held = [], 0.0
            for i in order[: config.longest(blocks)]:
                if i in (0, row) or held < config.threshold * float(own.sum()):
                    taken.append(i)
                held += float(own[i])
            seen[sample, head, part] = torch.isin(of_key, torch.tensor(taken))
    return seen


def reference_shares(state: AttentionState, config: Config) -> torch.Tensor:
    """(B, h, Q, K) the sums of the strided softmax over pairs of blocks."""
    import torch

    stride, tokens = config.stride, state.keys.shape[2]
    fill = -tokens % config.block
    pad = torch.nn.functional.pad
    real = pad(state.size[..., 0] > 0, (0, fill))  # (B, N)
    query, key = (pad(x, (0, 0, 0, fill)) * real[:, None, :, None] for x in (state.queries, state.keys))
    long_query = torch.cat([query[:, :, stride - 1 - r :: stride] for r in range(stride)], dim=-1)
    long_key = torch.cat([key[:, :, r::stride] for r in range(stride)], dim=-1)
    there = torch.stack([real[:, r::stride] for r in range(stride)]).any(dim=0)  # (B, N / stride)
    logits = (long_query @ long_key.mT * state.scale / stride).masked_fill(~there[:, None, None], float(BARRED))
    if state.causal:
        logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), float(BARRED))
    weights = logits.softmax(dim=-1) * there[:, None, :, None]
    inside, (batch, heads, groups, _) = config.block // stride, weights.shape
    return weights.reshape(batch, heads, groups // inside, inside, -1, inside).sum(dim=(3, 5))


ATTENTION = Attention(
    summary="each block of queries sees the fewest blocks of keys that hold a share of its attention",
    paper="XAttention, https://arxiv.org/abs/2503.16428, section 2",
    examples=("xattention:threshold=0.6,block=16", "xattention:threshold=0.9,stride=4,most=0.5,block=16"),
    config=Config,
    lists=lists,
    reference=reference,
)
