"""BipartiteMatch: scores tile by tile, so that the A x K matrix is never written, and order by counting.

Two launches: which token of B each of A is nearest to, and the rank of each of A, which is the number of those before
it. A score that is NaN is never the best; a row of nothing else takes token 0 with -inf. A bias that is NaN counts as
-inf too, so that no two tokens have one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from edgetok.plugins.gpu import Launch, power_of_two, tiles

if TYPE_CHECKING:
    import torch

WIDEST = 128  # of a row's part that is multiplied at once


@triton.jit
def nearest(
    a, b, bias_a, bias_b, best, match, A, K, D, a_batch, a_row, b_batch, b_row, bias_a_batch, bias_a_row,
    bias_b_batch, bias_b_row, TILE_A: tl.constexpr, TILE_K: tl.constexpr, TILE_D: tl.constexpr,
):  # fmt: skip
    """Best (B, A) fp32 and match (B, A) int64 of one tile of A in one sample."""
    sample, rows = tl.program_id(1), tl.program_id(0) * TILE_A + tl.arange(0, TILE_A)
    columns, parts = tl.arange(0, TILE_K), tl.arange(0, TILE_D)
    a += sample.to(tl.int64) * a_batch
    b += sample.to(tl.int64) * b_batch
    highest = tl.full([TILE_A], float("-inf"), tl.float32)
    place = tl.zeros([TILE_A], tl.int32)
    for first in range(0, K, TILE_K):
        column = first + columns
        scores = tl.zeros([TILE_A, TILE_K], tl.float32)
        for start in range(0, D, TILE_D):
            part = start + parts
            of_a = tl.load(a + rows[:, None] * a_row + part, (rows[:, None] < A) & (part < D), 0.0)
            inside = (column[None, :] < K) & (part[:, None] < D)
            of_b = tl.load(b + column[None, :] * b_row + part[:, None], inside, 0.0)
            scores = tl.dot(of_a, of_b, scores, input_precision="ieee")
        bias = tl.load(bias_b + sample * bias_b_batch + column * bias_b_row, column < K, float("-inf"))
        scores += bias[None, :].to(tl.float32)
        scores = tl.where(scores == scores, scores, float("-inf"))
        here, where = tl.max(scores, axis=1, return_indices=True)  # of equals the first
        place = tl.where(here > highest, first + where, place)
        highest = tl.maximum(here, highest)
    bias = tl.load(bias_a + sample * bias_a_batch + rows * bias_a_row, rows < A, 0.0)
    worth = highest + bias.to(tl.float32)
    tl.store(best + sample * A + rows, tl.where(worth == worth, worth, float("-inf")), rows < A)
    tl.store(match + sample * A + rows, place.to(tl.int64), rows < A)


@triton.jit
def ranks(best, match, order, matched, ranked, A, TILE_A: tl.constexpr, TILE_K: tl.constexpr):
    """Put one tile of A where it belongs: order, matched (B, A) int64, ranked (B, A), the best first."""
    sample, rows = tl.program_id(1), tl.program_id(0) * TILE_A + tl.arange(0, TILE_A)
    columns = tl.arange(0, TILE_K)
    mine = tl.load(best + sample * A + rows, rows < A, float("-inf"))
    rank = tl.zeros([TILE_A], tl.int32)
    for first in range(0, A, TILE_K):
        column = first + columns
        other = tl.load(best + sample * A + column, column < A, float("-inf"))
        earlier = (other[None, :] == mine[:, None]) & (column[None, :] < rows[:, None])
        ahead = (other[None, :] > mine[:, None]) | earlier
        rank += tl.sum((ahead & (column[None, :] < A)).to(tl.int32), axis=1)
    own = tl.load(match + sample * A + rows, rows < A, 0)
    tl.store(order + sample * A + rank, rows.to(tl.int64), rows < A)
    tl.store(matched + sample * A + rank, own, rows < A)
    tl.store(ranked + sample * A + rank, mine.to(ranked.dtype.element_ty), rows < A)


def launches(
    a: torch.Tensor, b: torch.Tensor, bias_a: torch.Tensor, bias_b: torch.Tensor, *,
    tile_a: int = 16, tile_k: int = 128, warps: int = 4,
) -> tuple[list[Launch], tuple[torch.Tensor, ...]]:  # fmt: skip
    """What is launched, and (order, match, best), which it fills in."""
    import torch

    (batch, of_a, width), of_b = a.shape, b.shape[1]
    a, b = (x if x.stride(2) == 1 else x.contiguous() for x in (a, b))
    bias_a, bias_b = bias_a.expand(batch, of_a), bias_b.expand(batch, of_b)
    best = a.new_empty(batch, of_a, dtype=torch.float32)
    match, order, matched = (best.new_empty(batch, of_a, dtype=torch.int64) for _ in range(3))
    ranked = a.new_empty(batch, of_a)
    found = Launch(
        nearest, (tiles(of_a, tile_a), batch),
        {
            "a": a, "b": b, "bias_a": bias_a, "bias_b": bias_b, "best": best, "match": match,
            "A": of_a, "K": of_b, "D": width, "a_batch": a.stride(0), "a_row": a.stride(1),
            "b_batch": b.stride(0), "b_row": b.stride(1), "bias_a_batch": bias_a.stride(0),
            "bias_a_row": bias_a.stride(1), "bias_b_batch": bias_b.stride(0), "bias_b_row": bias_b.stride(1),
        },
        {"TILE_A": tile_a, "TILE_K": tile_k, "TILE_D": min(WIDEST, power_of_two(width))}, warps=warps,
    )  # fmt: skip
    placed = Launch(
        ranks, (tiles(of_a, 32), batch),
        {"best": best, "match": match, "order": order, "matched": matched, "ranked": ranked, "A": of_a},
        {"TILE_A": 32, "TILE_K": 128},
    )  # fmt: skip
    return [found, placed], (order, matched, ranked)
