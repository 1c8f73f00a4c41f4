"""quest: each token of a causal model attends to the pages of keys that could hold the largest scores, and to its own.

Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference, https://arxiv.org/abs/2406.10774, section 3.3;
published code: local_heavy_hitter_mask and the kernels of mit-han-lab/Quest, whose pages this one's equal (tests).

A page is `page` keys in a row, of which the least and the largest value of each channel are known. The sum over the
channels of the larger of query x least and query x largest bounds every score in the page; each query of each head
takes the pages with the largest bounds, `budget` tokens with those of its own page, which is always taken. One pass
over a prompt is then what the paper does step by step when it decodes: a query's earlier pages are full, and the
partial one, its own, needs no bound. Nothing else is always kept. For causal models. Cost: 2 products of N^2 / page
numbers a head, and a TopK for each query.

The lists are of pages, so `BlockSparseAttention` serves with blocks of one query and one page: written out as tokens
they would be `page` times as long. Each query reads keys of its own, so no product is shared as blocks of queries share
it: over a prompt it is faster than dense attention on a CPU where few keys are kept only (docs/attention.md).

What differs: the paper decodes so, and reads the prompt densely, as it leaves the first two blocks dense: leave them
out with layers=2-29. The evaluation code may leave out the page that the token itself is in, its kernels never do.
Padding counts in no bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from edgetok.attention import Attention, AttentionState, Lists, check_range, keys_of_density
from edgetok.errors import UsageError
from edgetok.exporters.attention import _pieces
from edgetok.graph import constant

if TYPE_CHECKING:
    import torch

    from edgetok.view.sparse import AttentionSite

FORCED = np.float32(1e6)
BARRED = np.float32(-1e6)


@dataclass(frozen=True)
class Config:
    """Options of quest.

    Attributes:
        budget: tokens that a query attends to, in whole pages, its own among them.
        page: tokens of a page: 8, 16, 32 or 64.
    """

    budget: int = 256
    page: int = 16
    block: ClassVar[int] = 1  # each query has pages of its own

    def __post_init__(self) -> None:
        check_range(self, "budget", 1, 2**24)
        if self.page not in (8, 16, 32, 64):
            raise UsageError(f"option page={self.page}: accepted are pages of 8, 16, 32 and 64 tokens")

    def pages(self, of: int) -> int:
        """How many of so many pages a query takes; its own and another at least."""
        return min(of, max(2, ceil(self.budget / self.page)))


def lists(site: AttentionSite, config: Config) -> Lists:
    """The bounds of the pages, their products with each query, the best of them."""
    op, tokens, page, pages = site.op, site.tokens, config.page, site.blocks(config.page)
    least, largest = (site.for_heads(bound, site.width) for bound in _bounds(site, page))
    most, step = config.pages(pages), _pieces.length(site, tokens, pages, page)
    own, column = np.arange(step)[:, None] // page, np.arange(-(-step // page))
    always = constant(op.graph, FORCED * (own == column) + 2 * BARRED * (column > own))

    def best(first: int, last: int) -> ir.Value:
        query = op.Cast(_pieces.rows(op, site.query, first, last, tokens), to=ir.DataType.FLOAT)
        start, stop = first // page, -(-last // page)

        def bound(low: int, high: int) -> ir.Value:
            above, below = (
                op.Transpose(_pieces.rows(op, each, low, high, pages), perm=[0, 1, 3, 2]) for each in (largest, least)
            )
            sums: ir.Value = op.Add(
                op.MatMul(op.Max(query, np.float32(0)), above), op.MatMul(op.Min(query, np.float32(0)), below)
            )
            return sums  # (B, h, last - first, high - low)

        scores = _pieces.causal(op, bound, start, (last - first, stop - start), always)
        return _pieces.best(op, scores, stop, most)

    index = _pieces.joined(op, [best(first, min(first + step, tokens)) for first in range(0, tokens, step)])
    earlier = np.arange(tokens) // page
    visible = np.minimum(earlier + 1, most)
    count = constant(op.graph, visible[None, None].astype(np.int32))
    count = op.Expand(count, op.Concat(op.Shape(index, start=0, end=2), np.array([1]), axis=0))
    density = float(visible.sum() / (earlier + 1).sum())
    return Lists(index, count, 0, density=density, block_k=page)


def _bounds(site: AttentionSite, page: int) -> tuple[ir.Value, ir.Value]:
    """The least and the largest value of each channel in each page, (B, g, pages, d) fp32; padding left out.

    A page of padding has bounds as low as a score can get.
    """
    op, pages = site.op, site.blocks(page)
    key = op.Cast(site.key, to=ir.DataType.FLOAT)
    fill, shape = pages * page - site.tokens, np.array([0, site.groups, pages, page, site.width])
    real = None if site.size is None else op.Unsqueeze(op.Greater(site.size, np.float32(0)), np.array([1]))
    bounds = []
    for reduce, beyond in ((op.ReduceMin, np.float32(1e4)), (op.ReduceMax, np.float32(-1e4))):
        only = key if real is None else op.Where(real, key, beyond)
        padded = op.Pad(only, np.array([0, 0, 0, 0, 0, 0, fill, 0]), beyond) if fill else only
        bounds.append(reduce(op.Reshape(padded, shape), np.array([3]), keepdims=0))
    return bounds[0], bounds[1]


def reference(state: AttentionState, config: Config) -> torch.Tensor:
    """Who sees whom, by a loop over the queries, each with the keys up to its own."""
    import torch

    tokens, page = state.keys.shape[2], config.page
    of_token = torch.arange(tokens) // page
    seen = torch.zeros(*state.keys.shape[:2], tokens, tokens, dtype=torch.bool)
    for row in range(tokens):
        own = row // page
        scores = bounds(state.queries[:, :, row], state.keys[:, :, : own * page], state.size[:, : own * page], page)
        earlier = min(config.pages(-(-tokens // page)) - 1, own)
        taken = scores.topk(earlier, dim=-1).indices  # (B, h, pages)
        seen[:, :, row] = (taken[..., None] == of_token).any(dim=2) | (of_token == own)
    return seen


def bounds(query: torch.Tensor, keys: torch.Tensor, size: torch.Tensor, page: int) -> torch.Tensor:
    """(B, h, d), (B, h, K, d), (B, K, 1): the most that a score of a page can be, (B, h, K / page)."""
    batch, heads, tokens, width = keys.shape
    padding, shape = (size == 0)[:, None], (batch, heads, tokens // page, page, width)
    least = keys.masked_fill(padding, 1e4).reshape(shape).amin(dim=3)
    largest = keys.masked_fill(padding, -1e4).reshape(shape).amax(dim=3)
    query = query[:, :, None]
    return (query * least).maximum(query * largest).sum(dim=-1)


ATTENTION = Attention(
    summary="each token of a causal model sees the pages whose channels' bounds promise the largest scores",
    paper="Quest, https://arxiv.org/abs/2406.10774, section 3.3",
    examples=("quest:budget=24,page=8",),
    config=Config,
    lists=lists,
    reference=reference,
    serves="causal models",
    of_density=lambda config, density, tokens: replace(config, budget=keys_of_density(density, tokens)),
)
