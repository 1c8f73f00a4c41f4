"""block-topk: each block of queries attends to the blocks of keys whose means it is most similar to.

MInference 1.0: Accelerating Pre-filling for Long-Context LLMs via Dynamic Sparse Attention,
https://arxiv.org/abs/2407.02490, section 3.2, its block-sparse heads; published code: _build_block_index of
microsoft/MInference.

Queries and keys are averaged over their blocks, and each head's block of queries takes the blocks of keys with the
largest products of the averages: `density` of all blocks. Its own block is always taken, and so is the first one, which
holds the class token or the sinks. The first blocks of queries that hold the prefix attend to all. Cost: the averages,
one product of (N / block)^2 numbers a head, and a TopK.

With `means` a block of queries sees the blocks that are not on its list too, each as one key, their mean, which has the
mean of their values and as many times the weight as they hold tokens: the estimation zone of RetroInfer
(https://arxiv.org/abs/2505.02922), with blocks for clusters. That is N / block keys more to look at, and what is left
out is estimated and not taken as nothing. The means stand in front of the keys, those of each list by themselves, for
the operator has no keys of a single row, and `block` lists at a time attend, so that these are no more than the tokens.
A mean stands for a whole block: those that padding fills in part are always listed (two at most, where padding stands
at the ends), and empty ones have no weight.

What differs: the published code forces neither block, reads one block more than it chose in early rows, and keeps 100
blocks whatever the length. Averages here count merged tokens as often as the tokens they stand for and leave padding
out, and a block's score grows with the log of how many tokens it holds: that is the mass which so many keys at the
average would get. It serves models without a causal mask as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.attention import Attention, AttentionState, Lists, check_block, check_range
from edgetok.exporters.attention import _blocks, _pieces
from edgetok.graph import constant, typed

if TYPE_CHECKING:
    import torch

    from edgetok.graph import Emitter
    from edgetok.view.sparse import AttentionSite

LEAST = 0.001  # a density
FORCED = 1e6  # is added to the score of a block that is always taken
BARRED = -1e6  # of one that is empty or lies ahead


@dataclass(frozen=True)
class Config:
    """Options of block-topk.

    Attributes:
        density: the share of the blocks of keys that a block of queries attends to; two at least, with means three.
        means: whether blocks that are not on a list are seen by their means; not with merged tokens.
        block: tokens of a block: 16, 32, 64 or 128.
    """

    density: float = 0.25
    means: bool = False
    block: int = 64

    def __post_init__(self) -> None:
        check_block(self.block)
        check_range(self, "density", LEAST, 1)

    def of_density(self, density: float, tokens: int) -> Config:
        """The listed blocks and, with means, those that the means of all others fill: a `block`-th of them."""
        listed = (density * self.block - 1) / (self.block - 1) if self.means else density
        return replace(self, density=max(listed, LEAST))

    def count(self, blocks: int) -> int:
        """How many blocks of so many."""
        return min(blocks, max(2 + self.means, ceil(self.density * blocks)))


def lists(site: AttentionSite, config: Config) -> Lists:
    """Average, compare, take the best."""
    op, blocks = site.op, site.blocks(config.block)
    whole = 0 if site.causal else -(-site.prefix // config.block)
    most = config.count(blocks)
    query, _ = _blocks.averages(site, site.query, site.heads, config.block)
    key, mass = _blocks.averages(site, site.key, site.groups, config.block)
    key = site.for_heads(key, site.width)
    scores = op.MatMul(op.Mul(query, np.float32(site.scale)), op.Transpose(key, perm=[0, 1, 3, 2]))  # (B, h, Q, K)
    scores = op.Add(scores, mass)
    scores = op.Slice(scores, np.array([whole]), np.array([blocks]), np.array([2]))
    row, column = np.arange(whole, blocks)[:, None], np.arange(blocks)
    added = FORCED * _always(row, column, site.tokens, site.causal, config)
    added = added + BARRED * 2 * (site.causal & (column > row))
    scores = op.Add(scores, added.astype(np.float32))
    if site.size is not None:  # an empty block is never forced, with means one that is not full always
        partial = op.Less(mass, np.float32(np.log(config.block) - 1e-4))  # (B, 1, 1, K)
        partial = op.Where(partial, np.float32(FORCED * config.means), np.float32(0))
        scores = op.Add(scores, op.Where(op.Less(mass, np.float32(-1)), np.float32(BARRED), partial))
    _, index = op.TopK(scores, np.array([blocks if config.means else most]), axis=3, outputs=2)
    ahead = np.arange(whole, blocks) + 1 if site.causal else np.full(blocks - whole, blocks)
    if config.means and most < blocks:
        value, _ = _blocks.averages(site, site.value, site.groups, config.block)
        return _estimated(site, config, (key, site.for_heads(value, site.width)), mass, index, whole)
    visible = np.minimum(ahead, most)
    index = op.Cast(index, to=ir.DataType.INT32)
    return Lists(index, _counts(op, index, visible), whole, density=_density(site, config, visible, whole))


def _density(site: AttentionSite, config: Config, visible: np.ndarray, whole: int) -> float:
    """The share of the pairs of blocks, of lists of which so many count."""
    blocks = site.blocks(config.block)
    pairs = blocks * (blocks + 1) // 2 if site.causal else blocks**2
    return min(1.0, (int(visible.sum()) + whole * blocks) / pairs)


def _counts(op: Emitter, index: ir.Value, visible: np.ndarray) -> ir.Value:
    """(B, h, Q) int32: how many of the numbers on each list count."""
    counts = constant(op.graph, visible[None, None].astype(np.int32))
    out: ir.Value = op.Expand(counts, op.Concat(op.Shape(index, start=0, end=2), np.array([1]), axis=0))
    return out


def _estimated(
    site: AttentionSite, config: Config, means: tuple[ir.Value, ir.Value], mass: ir.Value | np.ndarray,
    index: ir.Value, whole: int,
) -> Lists:  # fmt: skip
    """Lists with means in front of their keys; for `block` lists at a time, whose means are no more than all tokens.

    In a causal model these see the tokens up to their own last one, for the last query stands on the last key.
    """
    op, block, blocks = site.op, config.block, site.blocks(config.block)
    pieces: list[Lists] = []
    visible = []
    for first in range(whole, blocks, block):
        last, ours, listed, held, query = min(first + block, blocks), site, index, mass, None
        if blocks - whole > block:
            start, end = first * block if pieces else 0, min(last * block, site.tokens)
            query = op.Slice(site.query, np.array([start]), np.array([end]), np.array([2]))
            ours = _up_to(site, end) if site.causal else site
            seen = ours.blocks(block)
            rows = np.array([first - whole, 0]), np.array([last - whole, seen])
            listed = op.Slice(index, *rows, np.array([2, 3]))
            if not isinstance(mass, np.ndarray):
                held = op.Slice(mass, np.array([0]), np.array([seen]), np.array([3]))
        ahead = np.arange(first, last) + 1 if site.causal else np.full(last - first, blocks)
        most = config.count(blocks)
        made = _blocks.estimate(ours, means, held, listed, most, ahead, block)
        visible.append(np.minimum(ahead, most) + made.blocks)
        count, own = _counts(op, made.index, visible[-1]), op.Cast(made.index, to=ir.DataType.INT32)
        skipped = 0 if pieces else whole
        pieces.append(Lists(own, count, skipped, query=query, key=made.key, value=made.value, bias=made.bias))
    density = _density(site, config, np.concatenate(visible), whole)
    return replace(pieces[0], density=density, more=tuple(pieces[1:]))


def _up_to(site: AttentionSite, end: int) -> AttentionSite:
    """With the keys in front of a place."""
    key, value = (
        typed(_pieces.rows(site.op, each, 0, end, site.tokens), each.dtype, ["batch", site.groups, end, site.width])
        for each in (site.key, site.value)
    )
    bias = site.bias
    if bias is not None and end < site.tokens:
        bias = site.op.Slice(bias, np.array([0]), np.array([end]), np.array([3]))
    return replace(site, key=key, value=value, bias=bias, tokens=end)


def _always(row: np.ndarray, column: np.ndarray, tokens: int, causal: bool, config: Config) -> np.ndarray:
    """(Q, K) bool: the blocks that are always listed: itself, the first, and with means a last one that is not full."""
    partial = config.means and not causal and tokens % config.block
    return (row == column) | (column == 0) | (bool(partial) & (column == column[-1]))


def reference(state: AttentionState, config: Config) -> torch.Tensor:
    """Who sees whom, by a loop over the blocks of queries."""
    import torch

    tokens, block = state.keys.shape[2], config.block
    blocks = -(-tokens // block)
    parts = [slice(i * block, min((i + 1) * block, tokens)) for i in range(blocks)]
    whole = 0 if state.causal else -(-state.prefix // block)
    sizes = torch.stack([state.size[:, part].sum(dim=1) for part in parts], dim=1)  # (B, blocks, 1)

    def averages(x: torch.Tensor) -> torch.Tensor:
        sums = [(x[:, :, part] * state.size[:, None, part]).sum(dim=2) for part in parts]
        return torch.stack(sums, dim=2) / sizes.clamp_min(1e-6)[:, None]

    scores = averages(state.queries) * state.scale @ averages(state.keys).mT + sizes.clamp_min(1e-6).log().mT[:, None]
    scores = scores.masked_fill((sizes == 0).mT[:, None], BARRED)
    always = torch.from_numpy(_always(np.arange(blocks)[:, None], np.arange(blocks), tokens, state.causal, config))
    partial = (sizes[..., 0] > 0) & (sizes[..., 0] < block) & config.means  # (B, blocks)
    forced = (always | partial[:, None]) & (sizes > 0).mT  # (B, blocks, blocks)
    seen = torch.zeros(*scores.shape[:2], tokens, tokens + (blocks if config.means else 0), dtype=torch.bool)
    for row in range(blocks):
        if row < whole:
            seen[:, :, parts[row], :tokens] = True
            continue
        own = scores[:, :, row].clone()
        own += FORCED * forced[:, None, row]
        last = row + 1 if state.causal else blocks
        seen[:, :, parts[row], tokens : tokens + last] = config.means
        for chosen in own[..., :last].topk(min(config.count(blocks), last)).indices.unbind(dim=-1):
            of_key = torch.arange(tokens) // block == chosen[..., None]  # (B, h, N)
            seen[:, :, parts[row], :tokens] |= of_key[:, :, None]
            if config.means:  # what is listed is seen itself
                seen[:, :, parts[row], tokens:] &= (torch.arange(blocks) != chosen[..., None])[:, :, None]
    return seen


def pooled(state: AttentionState, values: torch.Tensor, config: Config) -> tuple[torch.Tensor, ...]:
    """The means of the blocks, keys and values, and how many tokens each holds; none without `means`."""
    import torch

    parts = [slice(i, i + config.block) for i in range(0, values.shape[2], config.block)]
    sizes = torch.stack([state.size[:, part, 0].sum(dim=1) for part in parts], dim=1)
    keys, means = (
        torch.stack([(x * state.size[:, None])[:, :, part].sum(dim=2) for part in parts], dim=2)
        / sizes.clamp_min(1e-6)[:, None, :, None]
        for x in (state.keys, values)
    )
    count = len(parts) if config.means else 0
    return keys[:, :, :count], means[:, :, :count], sizes[:, :count]


ATTENTION = Attention(
    summary="each block of queries sees the blocks of keys whose means are nearest",
    paper="MInference 1.0, https://arxiv.org/abs/2407.02490, section 3.2, block-sparse heads",
    examples=tuple(f"block-topk:{given},block=16" for given in ("density=0.4", "density=1", "density=0.4,means=true")),
    config=Config,
    lists=lists,
    reference=reference,
    pooled=pooled,
    of_density=Config.of_density,
)
