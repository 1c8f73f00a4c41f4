"""hisa: blocks of keys are chosen first, then the best parts of these, by how much attention they get.

HISA: Efficient Hierarchical Indexing for Fine-Grained Sparse Attention, https://arxiv.org/abs/2603.28458, section 3;
its first stage was checked against the rule of the authors' SGLang branch (tests).

First stage: a block of queries takes the `candidates` of all blocks of keys whose means are nearest to its own. Second
stage: inside these, parts of `part` keys are compared with parts of `part` queries, softmax over the candidates gives
each its share of the attention, and the parts with the largest shares are listed: `density` of all keys. So lists hold
runs of `part` keys, and those runs of a block that nobody looks at are left out. Always kept: the first part, and all
parts of the block itself. The first blocks of queries that hold the prefix attend to all. For encoders and causal
models. Cost: N^2 / part^2 products. Runs of less than 32 keys take the C++ operator as long as 32.

What differs: the published stages serve a trained indexer (DeepSeek's), with one list of single tokens for each query;
here attention's own queries and keys say what is near, head by head, and a block of queries has one list of runs. The
published first stage always takes the first and the last visible block, as here; its clamped indices can list a block
twice where there are few, here none can. All parts are compared and those outside the candidates barred: that is faster
than to gather them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.attention import Attention, AttentionState, Lists, check_block, check_range
from edgetok.errors import UsageError
from edgetok.exporters.attention import _blocks, _pieces
from edgetok.graph import constant

if TYPE_CHECKING:
    import torch

    from edgetok.view.sparse import AttentionSite

FORCED = np.float32(1e6)
BARRED = np.float32(-1e6)


@dataclass(frozen=True)
class Config:
    """Options of hisa.

    Attributes:
        density: the share of the keys that a block of queries attends to.
        candidates: the share of the blocks that the first stage leaves.
        part: keys that are chosen together, queries that are averaged for it: 8, 16, 32 or 64, and less than a block.
        block: tokens of a block: 16, 32, 64 or 128.
    """

    density: float = 0.25
    candidates: float = 0.5
    part: int = 32
    block: int = 64

    def __post_init__(self) -> None:
        check_block(self.block)
        check_range(self, "density", 0.001, 1)
        check_range(self, "candidates", self.density, 1)
        if self.part not in (8, 16, 32, 64) or self.part >= self.block:
            raise UsageError(f"option part={self.part}: accepted are 8, 16, 32 and 64, less than block={self.block}")

    def blocks(self, of: int) -> int:
        """How many blocks the first stage leaves."""
        return min(of, max(2, ceil(self.candidates * of)))

    def parts(self, of: int) -> int:
        """How many parts the second stage leaves, of those of so many blocks."""
        each = self.block // self.part
        return min(self.blocks(of) * each, max(each + 1, ceil(self.density * of * each)))


def lists(site: AttentionSite, config: Config) -> Lists:
    """Average at both scales, choose blocks, then parts."""
    op, blocks, each = site.op, site.blocks(config.block), config.block // config.part
    parts, whole = site.blocks(config.part), 0 if site.causal else -(-site.prefix // config.block)
    row, column = np.arange(blocks)[:, None], np.arange(blocks)
    always = FORCED * ((row == column) | (column == 0)) + 2 * BARRED * (site.causal & (column > row))
    query, key, mass = _means(site, config.block)
    scores = op.Add(op.Add(op.MatMul(query, key), mass), always.astype(np.float32))
    _, first = op.TopK(scores, np.array([config.blocks(blocks)]), axis=3, outputs=2)
    barred = op.Expand(BARRED, op.Concat(op.Shape(first, start=0, end=3), np.array([blocks]), axis=0))
    opened = op.ScatterElements(barred, first, op.Expand(np.float32(0), op.Shape(first)), axis=3)  # (B, h, Q, K)

    of_part = np.arange(parts) // each
    shares = _shares(site, config, opened)
    own, first_part = row == of_part, np.arange(parts) == 0
    always = FORCED * (own | first_part) + 2 * BARRED * (site.causal & (of_part > row))
    most = min(config.parts(blocks), parts)
    shares = op.Add(op.Add(shares, op.Gather(opened, of_part, axis=3)), always.astype(np.float32))
    _, index = op.TopK(shares, np.array([most]), axis=3, outputs=2)
    visible = np.minimum((np.arange(blocks) + 1) * each, most) if site.causal else np.full(blocks, most)
    visible = np.minimum(visible, parts)[whole:]
    index = op.Slice(index, np.array([whole]), np.array([blocks]), np.array([2]))
    count = constant(op.graph, visible[None, None].astype(np.int32))
    count = op.Expand(count, op.Concat(op.Shape(index, start=0, end=2), np.array([1]), axis=0))
    pairs = each * (blocks * (blocks + 1) // 2 if site.causal else blocks**2)
    density = min(1.0, (int(visible.sum()) + whole * blocks * each) / pairs)
    return Lists(op.Cast(index, to=ir.DataType.INT32), count, whole, density=density, block_k=config.part)


def _shares(site: AttentionSite, config: Config, opened: ir.Value) -> ir.Value:
    """(B, h, Q, K) 0 or BARRED -> (B, h, Q, parts) the attention that queries' parts give to parts of such blocks."""
    op, blocks, each = site.op, site.blocks(config.block), config.block // config.part
    parts = site.blocks(config.part)
    of_part = np.arange(parts) // each
    queries, keys, mass = _means(site, config.part)
    step = _pieces.length(site, parts, 4 * parts, each)  # of several arrays; 110 MB at 16384 tokens, without it 127

    def share(first: int, last: int) -> ir.Value:
        top, end = first // each, -(-last // each)
        rows = _pieces.rows(op, opened, top, end, blocks)
        inside = op.Gather(op.Gather(rows, of_part[first:last] - top, axis=2), of_part, axis=3)
        fine = op.Add(op.Add(op.MatMul(_pieces.rows(op, queries, first, last, parts), keys), mass), inside)
        if site.causal:
            fine = op.Add(fine, np.triu(np.full((parts, parts), 2 * BARRED, np.float32), k=1)[first:last])
        weights = op.Softmax(fine, axis=3)  # (B, h, queries' parts, keys' parts)
        fill = np.array([0, 0, 0, 0, 0, 0, (end - top) * each - (last - first), 0])
        weights = op.Reshape(op.Pad(weights, fill), np.array([0, site.heads, end - top, each, parts]))
        out: ir.Value = op.ReduceSum(weights, np.array([3]), keepdims=0)
        return out

    return _pieces.joined(op, [share(first, min(first + step, parts)) for first in range(0, parts, step)])


def _means(site: AttentionSite, block: int) -> tuple[ir.Value, ir.Value, ir.Value | np.ndarray]:
    """(B, h, n, d) and (B, h, d, n) means of queries, scaled, and of keys; the log of how many keys a block holds."""
    op = site.op
    query, _ = _blocks.averages(site, site.query, site.heads, block)
    key, mass = _blocks.averages(site, site.key, site.groups, block)
    key = op.Transpose(site.for_heads(key, site.width), perm=[0, 1, 3, 2])
    return op.Mul(query, np.float32(site.scale)), key, mass


def reference(state: AttentionState, config: Config) -> torch.Tensor:
    """Who sees whom, by a loop over the blocks of queries."""
    import torch

    tokens, each = state.keys.shape[2], config.block // config.part
    blocks, parts = -(-tokens // config.block), -(-tokens // config.part)
    whole = 0 if state.causal else -(-state.prefix // config.block)
    coarse, fine = (_reference_nearness(state, side) for side in (config.block, config.part))
    of_part, of_token = torch.arange(parts) // each, torch.arange(tokens) // config.part
    seen = torch.zeros(*coarse.shape[:2], tokens, tokens, dtype=torch.bool)
    for sample, head, row in torch.cartesian_prod(*map(torch.arange, coarse.shape[:3])).tolist():
        rows = slice(row * config.block, (row + 1) * config.block)
        if row < whole:
            seen[sample, head, rows] = True
            continue
        last = row + 1 if state.causal else blocks
        first = candidates(coarse[sample, head, row, :last], row, config.blocks(blocks))
        open_ = torch.isin(of_part, first)
        share = torch.zeros(parts, dtype=fine.dtype)
        for part in range(row * each, min((row + 1) * each, parts)):
            visible = open_ & (torch.arange(parts) <= part) if state.causal else open_
            share += fine[sample, head, part].masked_fill(~visible, 2 * float(BARRED)).softmax(dim=0)
        share[(of_part == row) | (torch.arange(parts) == 0)] += float(FORCED)
        share[~open_] += float(BARRED)
        share = share[: last * each]
        taken = share.topk(min(config.parts(blocks), len(share))).indices
        seen[sample, head, rows] = torch.isin(of_token, taken)
    return seen


def candidates(scores: torch.Tensor, own: int, count: int) -> torch.Tensor:
    """Of the scores of the visible blocks: the first, its own and the best others, `count` in all."""
    forced = scores.clone()
    forced[[0, own]] += float(FORCED)
    return forced.topk(min(count, len(forced))).indices


def _reference_nearness(state: AttentionState, block: int) -> torch.Tensor:
    """(B, h, n, n)"""
    import torch

    parts = [slice(start, start + block) for start in range(0, state.keys.shape[2], block)]
    sizes = torch.stack([state.size[:, part].sum(dim=1) for part in parts], dim=1)  # (B, n, 1)
    query, key = (
        torch.stack([(x[:, :, part] * state.size[:, None, part]).sum(dim=2) for part in parts], dim=2)
        / sizes.clamp_min(1e-6)[:, None]
        for x in (state.queries, state.keys)
    )
    log = sizes.clamp_min(1e-6).log().masked_fill(sizes == 0, _blocks.EMPTY)
    return query @ key.mT * state.scale + log.mT[:, None]


ATTENTION = Attention(
    summary="each block of queries sees the parts with the most attention inside the blocks whose means are nearest",
    paper="HISA, https://arxiv.org/abs/2603.28458, section 3",
    examples=("hisa:density=0.4,candidates=0.7,part=8,block=16", "hisa:density=0.6,candidates=0.9,part=8,block=16"),
    config=Config,
    lists=lists,
    reference=reference,
)
