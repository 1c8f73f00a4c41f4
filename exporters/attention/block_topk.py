"""block-topk: each block of queries attends to the blocks of keys whose means it is most similar to.

MInference 1.0: Accelerating Pre-filling for Long-Context LLMs via Dynamic Sparse Attention,
https://arxiv.org/abs/2407.02490, section 3.2, its block-sparse heads; published code: _build_block_index of
microsoft/MInference.

Queries and keys are averaged over their blocks, and each head's block of queries takes the blocks of keys with the
largest products of the averages: `density` of all blocks. Its own block is always taken, and so is the first one, which
holds the class token or the sinks. The first blocks of queries that hold the prefix attend to all. Cost: the averages,
one product of (N / block)^2 numbers a head, and a TopK.

What differs: the published code forces neither block, reads one block more than it chose in early rows, and keeps 100
blocks whatever the length. Averages here count merged tokens as often as the tokens they stand for and leave padding
out, and a block's score grows with the log of how many tokens it holds: that is the mass which so many keys at the
average would get. It serves models without a causal mask as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.attention import Attention, AttentionState, Lists, check_block, check_range
from edgetok.exporters.attention import _blocks
from edgetok.graph import constant

if TYPE_CHECKING:
    import torch

    from edgetok.view.sparse import AttentionSite

FORCED = 1e6  # is added to the score of a block that is always taken
BARRED = -1e6  # of one that is empty or lies ahead


@dataclass(frozen=True)
class Config:
    """Options of block-topk.

    Attributes:
        density: the share of the blocks of keys that a block of queries attends to; two of them at least.
        block: tokens of a block: 16, 32, 64 or 128.
    """

    density: float = 0.25
    block: int = 64

    def __post_init__(self) -> None:
        check_block(self.block)
        check_range(self, "density", 0.001, 1)

    def count(self, blocks: int) -> int:
        """How many blocks of so many."""
        return min(blocks, max(2, ceil(self.density * blocks)))


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
    added = FORCED * ((row == column) | (column == 0)) + BARRED * 2 * (site.causal & (column > row))
    _, index = op.TopK(op.Add(scores, added.astype(np.float32)), np.array([most]), axis=3, outputs=2)
    visible = np.minimum(np.arange(whole, blocks) + 1, most) if site.causal else np.full(blocks - whole, most)
    count = constant(site.op.graph, visible[None, None].astype(np.int32))
    pairs = blocks * (blocks + 1) // 2 if site.causal else blocks**2
    density = (int(visible.sum()) + whole * blocks) / pairs
    counts = op.Expand(count, op.Concat(op.Shape(index, start=0, end=2), np.array([1]), axis=0))  # (B, h, Q)
    return Lists(op.Cast(index, to=ir.DataType.INT32), counts, whole, density=density)


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
    seen = torch.zeros(*scores.shape[:2], tokens, tokens, dtype=torch.bool)
    for row in range(blocks):
        if row < whole:
            seen[:, :, parts[row]] = True
            continue
        own = scores[:, :, row].clone()
        own[..., [0, row]] += FORCED
        last = row + 1 if state.causal else blocks
        for chosen in own[..., :last].topk(min(config.count(blocks), last)).indices.unbind(dim=-1):
            of_key = torch.arange(tokens) // block == chosen[..., None]  # (B, h, N)
            seen[:, :, parts[row]] |= of_key[:, :, None]
    return seen


ATTENTION = Attention(
    summary="each block of queries sees the blocks of keys whose means are nearest",
    paper="MInference 1.0, https://arxiv.org/abs/2407.02490, section 3.2, block-sparse heads",
    examples=("block-topk:density=0.4,block=16", "block-topk:density=1,block=16"),
    config=Config,
    lists=lists,
    reference=reference,
    of_density=lambda density, tokens: Config(density=density),
)
