"""tokenselect: chunks of a causal model's tokens attend to the tokens that the heads vote for, and to what is near.

TokenSelect: Efficient Long-Context Inference and Length Extrapolation for LLMs via Dynamic Token-Level KV Cache
Selection, https://arxiv.org/abs/2411.02886, section 4; published code: token_retrieval.py of pzs19/TokenSelect, whose
tokens this one's equal but for its map of heads (tests).

A prompt is read in chunks of `block` queries. A chunk's mean query of each head is compared with all keys between the
`init` first tokens and the `local` last ones up to the chunk's end; softmax over these gives each head's vote, and the
votes of all heads are added, which is why no head with large scores outweighs the others. The `top` tokens with most
votes are listed, with the first and the local ones, for all heads of the layer. Always kept: these two. A token still
sees none behind itself. For causal models: the mean of queries that stand far from each other would say little. Cost:
N^2 / block products a head, and a TopK for each chunk.

Single tokens are chosen, by chunks: `TokenSparseAttention` with one list for a chunk, and one for all heads, so that
keys that are gathered once serve all of its queries.

What differs: the published code maps heads of queries to shared keys by a remainder and reads wrong keys; here it is by
groups, as the model does. It compares with keys that are not rotated and numbers the chosen ones anew; here keys keep
their places, as attention sees them. Scores stay without 1 / sqrt(d) before the softmax, as published. Its chunks are
of 512, with first, local and chosen tokens of 128, 512 and 2048; a chunk that reaches beyond `local` would drop its own
tokens there, here it is refused. The cache of selections of the paper is off in the code, and not here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.attention import Attention, AttentionState, Lists, check_block, check_range, keys_of_density
from edgetok.errors import UsageError
from edgetok.exporters.attention import _blocks, _pieces
from edgetok.graph import constant

if TYPE_CHECKING:
    import torch

    from edgetok.view.sparse import AttentionSite

FORCED = np.float32(3e6)
BARRED = np.float32(-1e6)


@dataclass(frozen=True)
class Config:
    """Options of tokenselect.

    Attributes:
        top: tokens that the votes choose.
        init: first tokens that all see.
        local: last tokens that a chunk sees, itself among them.
        block: tokens of a chunk: 16, 32, 64 or 128, no more than `local`.
    """

    top: int = 256
    init: int = 16
    local: int = 128
    block: int = 64

    def __post_init__(self) -> None:
        check_block(self.block)
        check_range(self, "top", 1, 2**24)
        check_range(self, "init", 0, 2**24)
        if self.local < self.block:
            raise UsageError(f"option local={self.local}: accepted is a number from block={self.block}")

    def of_density(self, density: float, tokens: int) -> Config:
        """With a quarter of the keys always kept, and a whole chunk of them at least."""
        keys = keys_of_density(density, tokens)
        local = max(self.block, keys // 4)
        return replace(self, top=max(1, keys - local - self.init), local=local)

    def places(self, tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """(chunks, N) bool: what a chunk always sees, and between which tokens it chooses."""
        end = np.minimum(np.arange(self.block, tokens + self.block, self.block), tokens)[:, None]
        place = np.arange(tokens)
        middle = (place >= self.init) & (place < end - self.local)
        return (place < end) & ~middle, middle


def lists(site: AttentionSite, config: Config) -> Lists:
    """Mean queries, votes, the most voted for."""
    op, tokens = site.op, site.tokens
    always, middle = config.places(tokens)
    chunks = len(always)
    step = _pieces.length(site, chunks, tokens)
    queries, _ = _blocks.averages(site, site.query, site.heads, config.block)
    keys = site.for_heads(op.Cast(site.key, to=ir.DataType.FLOAT), site.width)
    most = min(tokens, config.init + config.top + config.local)

    def best(first: int, last: int) -> ir.Value:
        end = min(last * config.block, tokens)  # of what the last of these chunks sees
        query = _pieces.rows(op, queries, first, last, chunks)
        key = op.Transpose(_pieces.rows(op, keys, 0, end, tokens), perm=[0, 1, 3, 2])
        seen, between = always[first:last, :end], middle[first:last, :end]
        scores = op.Add(op.MatMul(query, key), np.where(between, np.float32(0), BARRED))  # (B, h, last - first, end)
        if site.size is not None:
            padding = op.Where(op.Greater(site.size, np.float32(0)), np.float32(0), BARRED)  # (B, N, 1)
            padding = _pieces.rows(op, op.Unsqueeze(padding, np.array([1])), 0, end, tokens)
            scores = op.Add(scores, op.Transpose(padding, perm=[0, 1, 3, 2]))
        votes = op.ReduceLogSumExp(op.LogSoftmax(scores, axis=3), np.array([1]))  # (B, 1, ...): none is lost at 0
        votes = op.Add(votes, FORCED * seen + 3 * BARRED * ~(seen | between))
        return _pieces.best(op, votes, end, most)

    index = _pieces.joined(op, [best(first, min(first + step, chunks)) for first in range(0, chunks, step)])
    visible = np.minimum((always | middle).sum(axis=1), most)
    count = constant(op.graph, visible[None, None].astype(np.int32))
    count = op.Expand(count, op.Concat(op.Shape(index, start=0, end=2), np.array([1]), axis=0))
    return Lists(index, count, 0, density=_density(visible, config, tokens), block_k=1)


def _density(visible: np.ndarray, config: Config, tokens: int) -> float:
    """The share of the pairs that causality leaves: of its chunk, a token sees those up to itself."""
    rows = np.minimum(config.block, tokens - config.block * np.arange(len(visible)))
    pairs = (rows * (visible - rows) + rows * (rows + 1) // 2).sum()
    return float(pairs / (tokens * (tokens + 1) // 2))


def reference(state: AttentionState, config: Config) -> torch.Tensor:
    """Who sees whom, by a loop over the chunks."""
    import torch

    tokens = state.keys.shape[2]
    seen = torch.zeros(len(state.keys), 1, tokens, tokens, dtype=torch.bool)
    for start in range(0, tokens, config.block):
        end = min(start + config.block, tokens)
        size = state.size[:, None, start:end]
        query = (state.queries[:, :, start:end] * size).sum(dim=2) / size.sum(dim=2).clamp_min(1e-6)
        first, last = config.init, max(config.init, end - config.local)
        seen[:, :, start:end, : min(first, end)] = True
        seen[:, :, start:end, min(last, end) : end] = True
        if last > first:
            taken = first + voted(query, state.keys[:, :, first:last], state.size[:, first:last], config.top)
            seen[:, 0, start:end] |= (taken[..., None] == torch.arange(tokens)).any(dim=1)[:, None]
    return seen


def voted(query: torch.Tensor, keys: torch.Tensor, size: torch.Tensor, top: int) -> torch.Tensor:
    """(B, h, d), (B, h, K, d), (B, K, 1): the places of the keys with most votes, (B, top or K)."""
    scores = (keys @ query[..., None])[..., 0].masked_fill((size == 0).mT, float(BARRED))
    votes: torch.Tensor = scores.softmax(dim=-1).sum(dim=1)
    return votes.topk(min(top, keys.shape[2])).indices


ATTENTION = Attention(
    summary="chunks of a causal model's tokens see the tokens that all heads vote for, the first and the near ones",
    paper="TokenSelect, https://arxiv.org/abs/2411.02886, section 4",
    examples=("tokenselect:top=10,init=4,local=18,block=16",),
    config=Config,
    lists=lists,
    reference=reference,
    serves="causal models",
    by_place=True,
    of_density=Config.of_density,
)
