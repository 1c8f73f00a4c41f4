"""BlockSparseAttention: one program holds a block of queries and reads the listed blocks of keys, and no others.

Online softmax (FlashAttention, https://arxiv.org/abs/2205.14135, section 3.1) over the list, in base 2 (scores times
log2(e)), sums in fp32. A
`key_bias` of one column shifts all scores of a sample alike, which changes no weight: it is not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from edgetok.plugins.gpu import Launch, power_of_two, tiles

if TYPE_CHECKING:
    import torch

LOG2_E = 1.4426950408889634


@triton.jit
def attend(
    q, k, v, block_idx, block_cnt, key_bias, out, HEADS, GROUPS, QUERIES, KEYS, WIDTH, VALUE_WIDTH,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    LISTS, ROWS, MOST, list_batch, count_batch, bias_batch, SCALE, SPAN, PINNED,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, TILE_Q: tl.constexpr, TILE_K: tl.constexpr, TILE_D: tl.constexpr,
    TILE_E: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BIAS: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """Rows of one block of queries, of one head in one sample."""
    row, sample, head = tl.program_id(0), tl.program_id(1) // HEADS, tl.program_id(1) % HEADS
    group, listed = head // (HEADS // GROUPS), head // (HEADS // LISTS)
    within, parts, values = tl.arange(0, TILE_Q), tl.arange(0, TILE_D), tl.arange(0, TILE_E)
    queries = row * BLOCK_Q + within
    mine = (within < BLOCK_Q) & (queries < QUERIES)
    q += sample.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
    k += sample.to(tl.int64) * k_batch + group.to(tl.int64) * k_head
    v += sample.to(tl.int64) * v_batch + group.to(tl.int64) * v_head
    block_idx += sample.to(tl.int64) * list_batch + (listed * ROWS + row) * MOST
    count = tl.load(block_cnt + sample * count_batch + listed * ROWS + row)
    query = tl.load(q + queries[:, None] * q_row + parts, mine[:, None] & (parts < WIDTH), 0.0)
    highest = tl.full([TILE_Q], float("-inf"), tl.float32)
    weights = tl.zeros([TILE_Q], tl.float32)
    total = tl.zeros([TILE_Q, TILE_E], tl.float32)
    stand = queries + KEYS - QUERIES  # the last query stands on the last key
    within_block = (BLOCK_K + TILE_K - 1) // TILE_K
    for step in range(tl.minimum(count, MOST) * within_block):
        block = tl.load(block_idx + step // within_block)
        if not EVEN:  # a number that is no block's gives columns below 0; times BLOCK_K it could wrap around to a key's
            block = tl.where((block >= 0) & (block < tl.cdiv(KEYS, BLOCK_K)), block, -1)
        inside = tl.arange(0, TILE_K) + (step % within_block) * TILE_K
        columns = block * BLOCK_K + inside
        if EVEN:
            key = tl.load(k + columns[None, :] * k_row + parts[:, None])
        else:
            known = (inside < BLOCK_K) & (columns >= 0) & (columns < KEYS)
            key = tl.load(k + columns[None, :] * k_row + parts[:, None], known[None, :] & (parts < WIDTH)[:, None], 0.0)
        scores = tl.dot(query, key, input_precision="ieee")
        if EVEN:  # one multiply-add for each score
            now = tl.maximum(highest, tl.max(scores, axis=1) * SCALE)
            weight = tl.exp2(scores * SCALE - now[:, None])
            shrink = tl.exp2(highest - now)
        else:
            scores *= SCALE
            if BIAS:
                bias = tl.load(key_bias + sample * bias_batch + columns, known, float("-inf"))
                scores += bias[None, :].to(tl.float32) * 1.4426950408889634  # LOG2_E
            seen = known[None, :]
            if CAUSAL:
                seen = seen & (columns[None, :] <= stand[:, None])
            if WINDOW:
                near = tl.abs(columns[None, :] - stand[:, None]) <= SPAN
                seen = seen & (near | (columns[None, :] < PINNED) | (stand[:, None] < PINNED))
            scores = tl.where(seen, scores, float("-inf"))
            now = tl.maximum(highest, tl.max(scores, axis=1))
            safe = tl.where(now == float("-inf"), 0.0, now)  # nothing seen yet
            weight = tl.exp2(scores - safe[:, None])
            shrink = tl.exp2(highest - safe)
        weights = weights * shrink + tl.sum(weight, axis=1)
        if EVEN:
            value = tl.load(v + columns[:, None] * v_row + values)
        else:
            there = known[:, None] & (values < VALUE_WIDTH)[None, :]
            value = tl.load(v + columns[:, None] * v_row + values, there, 0.0)
        total = tl.dot(weight.to(value.dtype), value, total * shrink[:, None], input_precision="ieee")
        highest = now
    total = tl.where(weights[:, None] > 0, total / tl.where(weights > 0, weights, 1.0)[:, None], 0.0)
    at = ((sample.to(tl.int64) * HEADS + head) * QUERIES + queries[:, None]) * VALUE_WIDTH + values
    tl.store(out + at, total.to(out.dtype.element_ty), mine[:, None] & (values < VALUE_WIDTH)[None, :])


def launches(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block_idx: torch.Tensor, block_cnt: torch.Tensor,
    key_bias: torch.Tensor, block_q: int, block_k: int, scale: float, causal: int, window: int, pinned: int,
    tile_k: int = 64, warps: int | None = None, stages: int = 3, known: bool = False,
) -> tuple[list[Launch], tuple[torch.Tensor, ...]]:  # fmt: skip
    """What is launched, and what it fills in, as q.

    `known` promises that every number counted in a list is a block's, as those that edgetok chooses are: then nothing
    is masked where sizes are whole blocks.
    """
    (batch, heads, queries, width), (groups, keys), values = q.shape, k.shape[1:3], v.shape[3]
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    block_idx, block_cnt, bias = block_idx.contiguous(), block_cnt.contiguous(), key_bias.contiguous()
    lists, rows, most = block_idx.shape[1:]
    out = q.new_empty(batch, heads, queries, values)
    tile_d, tile_e = power_of_two(width), power_of_two(values)
    tile_k = min(tile_k, power_of_two(block_k))
    even = (
        known and not causal and window < 0 and bias.shape[1] == 1 and keys % block_k == 0 and block_k % tile_k == 0
        and tile_d == width and tile_e == values and scale > 0
    )  # fmt: skip
    launch = Launch(
        attend, (tiles(queries, block_q), batch * heads),
        {
            "q": q, "k": k, "v": v, "block_idx": block_idx, "block_cnt": block_cnt, "key_bias": bias, "out": out,
            "HEADS": heads, "GROUPS": groups, "QUERIES": queries, "KEYS": keys, "WIDTH": width, "VALUE_WIDTH": values,
            "q_batch": q.stride(0), "q_head": q.stride(1), "q_row": q.stride(2),
            "k_batch": k.stride(0), "k_head": k.stride(1), "k_row": k.stride(2),
            "v_batch": v.stride(0), "v_head": v.stride(1), "v_row": v.stride(2),
            "LISTS": lists, "ROWS": rows, "MOST": most,
            "list_batch": lists * rows * most if len(block_idx) > 1 else 0,
            "count_batch": lists * rows if len(block_cnt) > 1 else 0,
            "bias_batch": bias.shape[1] if len(bias) > 1 else 0,
            "SCALE": scale * LOG2_E, "SPAN": max(window, 0), "PINNED": pinned,
        },
        {
            "BLOCK_Q": block_q, "BLOCK_K": block_k, "TILE_Q": power_of_two(block_q), "TILE_K": tile_k,
            "TILE_D": tile_d, "TILE_E": tile_e, "CAUSAL": int(bool(causal)), "WINDOW": int(window >= 0),
            "BIAS": int(bias.shape[1] > 1), "EVEN": int(even),
        },
        warps=warps or (8 if block_q >= 128 else 4), stages=stages,
    )  # fmt: skip
    return [launch], (out,)
