"""TokenSparseAttention: one program holds queries that share a list and reads the listed keys and values, no others.

Online softmax (FlashAttention, https://arxiv.org/abs/2205.14135, section 3.1) over the list, in base 2 (scores times
log2(e)), sums in fp32. Keys lie anywhere, so each is read as a row of its own. Lists of single queries share no
product: theirs are sums in registers, where tensor cores would be filled with fifteen rows of nothing.
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
def attend_to_tokens(
    q, k, v, token_idx, token_cnt, key_bias, out, HEADS, GROUPS, QUERIES, KEYS, WIDTH, VALUE_WIDTH,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    LISTS, ROWS, MOST, list_batch, count_batch, bias_batch, SCALE,
    BLOCK_Q: tl.constexpr, PARTS: tl.constexpr, TILE_Q: tl.constexpr, TILE_K: tl.constexpr, TILE_D: tl.constexpr,
    TILE_E: tl.constexpr, CAUSAL: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """Some queries of one list, of one head in one sample."""
    row, part = tl.program_id(0) // PARTS, tl.program_id(0) % PARTS
    sample, head = tl.program_id(1) // HEADS, tl.program_id(1) % HEADS
    group, listed = head // (HEADS // GROUPS), head // (HEADS // LISTS)
    within, parts, values = part * TILE_Q + tl.arange(0, TILE_Q), tl.arange(0, TILE_D), tl.arange(0, TILE_E)
    queries = row * BLOCK_Q + within
    mine = (within < BLOCK_Q) & (queries < QUERIES)
    q += sample.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
    k += sample.to(tl.int64) * k_batch + group.to(tl.int64) * k_head
    v += sample.to(tl.int64) * v_batch + group.to(tl.int64) * v_head
    token_idx += sample.to(tl.int64) * list_batch + (listed * ROWS + row).to(tl.int64) * MOST
    count = tl.minimum(tl.load(token_cnt + sample * count_batch + listed * ROWS + row), MOST)
    query = tl.load(q + queries[:, None] * q_row + parts, mine[:, None] & (parts < WIDTH), 0.0)
    highest = tl.full([TILE_Q], float("-inf"), tl.float32)
    weights = tl.zeros([TILE_Q], tl.float32)
    total = tl.zeros([TILE_Q, TILE_E], tl.float32)
    stand = queries + KEYS - QUERIES  # the last query stands on the last key
    for start in range(0, count, TILE_K):
        place = start + tl.arange(0, TILE_K)
        token = tl.load(token_idx + place, place < count, -1)
        known = (token >= 0) & (token < KEYS)  # a number that is no key's: nothing
        at = tl.where(known, token, 0).to(tl.int64)
        key = tl.load(k + at[:, None] * k_row + parts, known[:, None] & (parts < WIDTH), 0.0)
        if TILE_Q == 1:
            scores = tl.sum(query.to(tl.float32) * key.to(tl.float32), axis=1)[None, :] * SCALE
        else:
            scores = tl.dot(query, tl.trans(key), input_precision="ieee") * SCALE
        if BIAS:
            bias = tl.load(key_bias + sample * bias_batch + at, known, float("-inf"))
            scores += bias[None, :].to(tl.float32) * 1.4426950408889634  # LOG2_E
        seen = known[None, :] & mine[:, None]
        if CAUSAL:
            seen = seen & (token[None, :] <= stand[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        now = tl.maximum(highest, tl.max(scores, axis=1))
        safe = tl.where(now == float("-inf"), 0.0, now)  # nothing seen yet
        weight = tl.exp2(scores - safe[:, None])
        shrink = tl.exp2(highest - safe)
        weights = weights * shrink + tl.sum(weight, axis=1)
        value = tl.load(v + at[:, None] * v_row + values, known[:, None] & (values < VALUE_WIDTH), 0.0)
        if TILE_Q == 1:
            added = tl.sum(tl.trans(weight) * value.to(tl.float32), axis=0)[None, :]
            total = total * shrink[:, None] + added
        else:
            total = tl.dot(weight.to(value.dtype), value, total * shrink[:, None], input_precision="ieee")
        highest = now
    total = tl.where(weights[:, None] > 0, total / tl.where(weights > 0, weights, 1.0)[:, None], 0.0)
    to = ((sample.to(tl.int64) * HEADS + head) * QUERIES + queries[:, None]) * VALUE_WIDTH + values
    tl.store(out + to, total.to(out.dtype.element_ty), mine[:, None] & (values < VALUE_WIDTH)[None, :])


def launches(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, token_idx: torch.Tensor, token_cnt: torch.Tensor,
    key_bias: torch.Tensor, block_q: int, scale: float, causal: int, tile_k: int = 64,
) -> tuple[list[Launch], tuple[torch.Tensor, ...]]:  # fmt: skip
    """What is launched, and what it fills in, as q."""
    (batch, heads, queries, width), (groups, keys), values = q.shape, k.shape[1:3], v.shape[3]
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    token_idx, token_cnt, bias = token_idx.contiguous(), token_cnt.contiguous(), key_bias.contiguous()
    lists, rows, most = token_idx.shape[1:]
    out = q.new_empty(batch, heads, queries, values)
    tile_q = 1 if block_q == 1 else min(64, power_of_two(block_q))
    parts = tiles(block_q, tile_q)
    launch = Launch(
        attend_to_tokens, (rows * parts, batch * heads),
        {
            "q": q, "k": k, "v": v, "token_idx": token_idx, "token_cnt": token_cnt, "key_bias": bias, "out": out,
            "HEADS": heads, "GROUPS": groups, "QUERIES": queries, "KEYS": keys, "WIDTH": width, "VALUE_WIDTH": values,
            "q_batch": q.stride(0), "q_head": q.stride(1), "q_row": q.stride(2),
            "k_batch": k.stride(0), "k_head": k.stride(1), "k_row": k.stride(2),
            "v_batch": v.stride(0), "v_head": v.stride(1), "v_row": v.stride(2),
            "LISTS": lists, "ROWS": rows, "MOST": most,
            "list_batch": lists * rows * most if len(token_idx) > 1 else 0,
            "count_batch": lists * rows if len(token_cnt) > 1 else 0,
            "bias_batch": bias.shape[1] if len(bias) > 1 else 0, "SCALE": scale * LOG2_E,
        },
        {
            "BLOCK_Q": block_q, "PARTS": parts, "TILE_Q": tile_q, "TILE_K": min(tile_k, power_of_two(most)),
            "TILE_D": power_of_two(width), "TILE_E": power_of_two(values), "CAUSAL": int(bool(causal)),
            "BIAS": int(bias.shape[1] > 1),
        },
    )  # fmt: skip
    return [launch], (out,)
