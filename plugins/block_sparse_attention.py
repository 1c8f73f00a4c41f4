"""BlockSparseAttention: each block of queries attends to the blocks of keys on its list, and to no others.

The operator behind block-sparse attention as BigBird (https://arxiv.org/abs/2007.14062, section 2), MInference
(https://arxiv.org/abs/2407.02490, section 3) and XAttention (https://arxiv.org/abs/2503.16428, section 2) use it: the
lists are data, their capacity M is a shape, and `block_cnt` says how many of the M count. Order in a list does not
matter, a number outside the keys' blocks is passed over, and none may stand twice.

Besides the lists, a pair is barred by `causal` (the last query stands on the last key) and by `window`: keys farther
away than that, unless query or key is one of the `pinned` first. A query that sees no key gives zeros.

The body gathers the listed blocks and attends densely, so its memory grows with M, not with the number of keys; in C++
(native/) nothing is gathered, and blocks that are not listed are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, no_type_check

from onnxscript import opset23 as op
from onnxscript import script
from onnxscript.values import Opset

if TYPE_CHECKING:
    import torch


@no_type_check  # onnxscript reads the body, Python never runs it
@script(Opset("edgetok", 1), default_opset=op)
def BlockSparseAttention(
    q, k, v, block_idx, block_cnt, key_bias,
    block_q: int, block_k: int, scale: float, causal: int, window: int, pinned: int,
):  # fmt: skip
    """q (B, h, N, d), k, v (B, g, K, d), lists (1 or B, 1, g or h, Q, M) int32, bias (1 or B, 1 or K) -> as q."""
    zero, one, last = op.Constant(value_ints=[0]), op.Constant(value_ints=[1]), op.Constant(value_ints=[-1])
    start, step, barred = op.Constant(value_int=0), op.Constant(value_int=1), op.Constant(value_float=-1e30)
    of_q, of_k = op.Reshape(op.Constant(value_int=block_q), one), op.Reshape(op.Constant(value_int=block_k), one)
    batch, heads, queries, width = op.Split(op.Shape(q), axis=0, num_outputs=4)
    groups, keys = op.Shape(k, start=1, end=2), op.Shape(k, start=2, end=3)
    rows, most = op.Shape(block_idx, start=2, end=3), op.Shape(block_idx, start=3, end=4)
    blocks = (keys + of_k - one) / of_k

    # which blocks, (B, h, Q, M), and the places of their keys, (B, h, Q, M k)
    idx = op.Cast(block_idx, to=7)
    listed = op.Range(start, op.Squeeze(most), step) < op.Unsqueeze(op.Cast(block_cnt, to=7), last)
    listed = op.And(listed, op.And(idx >= zero, idx < blocks))
    coded = op.Unsqueeze(op.Where(listed, idx, last), op.Constant(value_ints=[2]))
    sharing = heads / op.Shape(block_idx, start=1, end=2)  # heads that have one list
    coded = op.Expand(coded, op.Concat(batch, one, sharing, one, one, axis=0))
    coded = op.Reshape(coded, op.Concat(batch, heads, rows, most, axis=0))
    idx = op.Max(coded, zero)
    flat = op.Concat(zero, zero, zero, last, axis=0)
    place = op.Unsqueeze(idx * of_k, last) + op.Range(start, op.Squeeze(of_k), step)
    open_keys = op.And(op.Unsqueeze(coded >= zero, last), place < keys)
    place, open_keys = op.Reshape(place, flat), op.Reshape(open_keys, flat)

    # their keys, values and biases
    sample = op.Reshape(op.Range(start, op.Squeeze(batch), step), op.Constant(value_ints=[-1, 1, 1, 1]))
    group = op.Range(start, op.Squeeze(heads), step) / (heads / groups)
    of_head = (sample * groups + op.Reshape(group, op.Constant(value_ints=[-1, 1, 1]))) * blocks + idx
    fill = op.Concat(zero, zero, zero, zero, zero, zero, blocks * of_k - keys, zero, axis=0)
    per_block = op.Concat(batch * groups * blocks, last, axis=0)
    apart = op.Concat(batch, heads, rows, op.Mul(most, of_k), last, axis=0)
    key_blocks = op.Reshape(op.Pad(op.Cast(k, to=1), fill), per_block)
    value_blocks = op.Reshape(op.Pad(op.Cast(v, to=1), fill), per_block)
    listed_keys = op.Reshape(op.Gather(key_blocks, of_head), apart)
    listed_values = op.Reshape(op.Gather(value_blocks, of_head), apart)
    bias = op.Expand(key_bias, op.Concat(batch, keys, axis=0))
    bias = op.Pad(bias, op.Concat(zero, zero, zero, blocks * of_k - keys, axis=0))
    bias = op.Gather(op.Reshape(bias, op.Concat(batch * blocks, last, axis=0)), sample * blocks + idx)
    bias = op.Unsqueeze(op.Where(open_keys, op.Reshape(bias, flat), barred), op.Constant(value_ints=[3]))

    over = op.Concat(zero, zero, zero, zero, zero, zero, rows * of_q - queries, zero, axis=0)
    grouped = op.Reshape(op.Pad(op.Cast(q, to=1), over), op.Concat(batch, heads, rows, of_q, width, axis=0))
    scores = op.MatMul(grouped * op.Constant(value_float=scale), op.Transpose(listed_keys, perm=[0, 1, 2, 4, 3])) + bias
    if op.Constant(value_int=causal) + op.Constant(value_int=window) >= start:  # constant: one is dropped
        column = op.Unsqueeze(place, op.Constant(value_ints=[3]))
        row = op.Range(start, op.Squeeze(rows * of_q), step) + op.Squeeze(keys - queries)
        row = op.Reshape(row, op.Concat(rows, of_q, one, axis=0))
        ahead = op.And(op.Constant(value_int=causal) > start, column > row)
        far = op.And(op.Constant(value_int=window) >= start, op.Abs(column - row) > op.Constant(value_int=window))
        pin = op.Constant(value_int=pinned)
        far = op.And(far, op.And(column >= pin, row >= pin))
        seen = op.Where(op.Or(ahead, far), barred, scores)
    else:
        seen = op.Identity(scores)
    finite = op.Where(seen < barred, barred, seen)  # what is NaN stays it
    out = op.MatMul(op.Softmax(finite, axis=-1), listed_values)
    blind = op.ReduceMax(finite, last) <= barred
    out = op.Where(blind, op.Constant(value_float=0.0), out)
    joined = op.Reshape(out, op.Concat(batch, heads, last, op.Shape(v, start=3, end=4), axis=0))
    return op.CastLike(op.Slice(joined, zero, queries, op.Constant(value_ints=[2])), q)


function = BlockSparseAttention


def reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    block_idx: torch.Tensor,
    block_cnt: torch.Tensor,
    key_bias: torch.Tensor,
    block_q: int,
    block_k: int,
    scale: float,
    causal: int,
    window: int,
    pinned: int,
) -> torch.Tensor:
    """Dense attention under the mask that the lists are.

    Args:
        q: (B, h, N, d) queries.
        k: (B, g, K, d) keys; query head i reads head i // (h / g).
        v: (B, g, K, e) values.
        block_idx: (1 or B, 1, g or h, Q, M) int32: the blocks of keys that a block of queries attends to; Q is
            N / block_q, rounded up. Numbers that are no block's are passed over.
        block_cnt: (1 or B, 1, g or h, Q) int32: how many of a list's M count, the first ones.
        key_bias: (1 or B, 1 or K) fp32 added to the scores: log(size) of merged tokens, -1e4 or -inf for padding.
        block_q: queries of a block.
        block_k: keys of a block.
        scale: of the scores, usually 1 / sqrt(d).
        causal: 1 if query i sees no key behind i + K - N, else 0.
        window: the largest distance from there of a key that is seen; -1 for any.
        pinned: how many first keys are seen from any distance, and how many first queries see to any distance.

    Returns:
        (B, h, N, e), as q; zeros where a query sees no key.
    """
    import torch

    (batch, heads, queries, _), (groups, keys) = q.shape, k.shape[1:3]
    blocks = -(-keys // block_k)
    counted = torch.arange(block_idx.shape[-1]) < block_cnt[..., None]
    known = counted & (block_idx >= 0) & (block_idx < blocks)
    slot = torch.where(known, block_idx, blocks).long()
    lists = torch.zeros(*slot.shape[:3], blocks + 1, dtype=torch.bool).scatter_(3, slot, True)[..., :blocks]
    lists = lists.repeat_interleave(heads // lists.shape[1], dim=1).expand(batch, -1, -1, -1)
    seen = lists.repeat_interleave(block_q, dim=2)[:, :, :queries].repeat_interleave(block_k, dim=3)[..., :keys]
    row, column = torch.arange(queries)[:, None] + keys - queries, torch.arange(keys)
    if causal:
        seen = seen & (column <= row)
    if window >= 0:
        seen = seen & (((column - row).abs() <= window) | (column < pinned) | (row < pinned))
    k, v = (x.repeat_interleave(heads // groups, dim=1) for x in (k, v))
    scores = q @ k.mT * scale + key_bias[:, None, None, :]
    seen = seen & (scores != -torch.inf)
    weights = scores.masked_fill(~seen, -1e30).softmax(dim=-1)
    return torch.where(seen.any(dim=-1, keepdim=True), weights @ v, 0)


def cases() -> Iterator[tuple[str, tuple[object, ...]]]:
    """Named inputs of the reference."""
    import torch

    def drawn(
        heads: int, groups: int, lists: int, queries: int, keys: int, width: int, of_q: int, of_k: int, kept: float
    ) -> tuple[torch.Tensor, ...]:
        seeded = torch.Generator().manual_seed(queries + keys)
        q = torch.randn(2, heads, queries, width, generator=seeded)
        k, v = torch.randn(2, 2, groups, keys, width, generator=seeded)
        rows, blocks = -(-queries // of_q), -(-keys // of_k)
        idx = torch.rand(2, lists, rows, blocks, generator=seeded).argsort(dim=-1).int()
        cnt = torch.randint(0, 2 + int(kept * blocks), (2, lists, rows), generator=seeded).clamp_max(blocks).int()
        return q, k, v, idx, cnt, torch.zeros(1, 1)

    yield "quarter", (*drawn(3, 3, 3, 256, 256, 64, 64, 64, 0.5), 64, 64, 0.125, 0, -1, 0)
    yield "odd", (*drawn(2, 2, 1, 197, 197, 32, 64, 32, 0.5), 64, 32, 0.2, 0, -1, 0)
    yield "alone", (*drawn(2, 1, 1, 1, 1, 5, 32, 16, 1.0), 32, 16, 0.4, 0, -1, 0)
    yield "causal", (*drawn(2, 2, 2, 70, 130, 16, 16, 32, 1.0), 16, 32, 0.25, 1, -1, 0)
    yield "grouped", (*drawn(4, 2, 2, 100, 100, 24, 32, 16, 0.5), 32, 16, 0.2, 0, -1, 0)
    yield "window", (*drawn(2, 1, 1, 150, 150, 8, 32, 32, 1.0), 32, 32, 0.35, 0, 20, 3)
    yield "causal_window", (*drawn(2, 2, 1, 99, 99, 128, 32, 32, 1.0), 32, 32, 0.09, 1, 10, 2)
    q, k, v, idx, cnt, _ = drawn(2, 2, 2, 90, 90, 16, 32, 32, 1.0)
    bias = torch.randint(1, 9, (2, 90), generator=torch.Generator().manual_seed(0)).float().log()
    bias[0, 70:], bias[1, 30:] = -1e4, -torch.inf
    yield "sizes_and_padding", (q, k, v, idx, cnt, bias, 32, 32, 0.25, 0, -1, 0)
    idx[:, :, 1] = torch.tensor([-1, 2**27, 2], dtype=torch.int32)  # beyond the keys' three blocks, and 2**32 keys on
    cnt[:, :, 0], cnt[:, :, 1:] = 0, 3
    yield "empty_and_full", (q, k, v, idx, cnt, torch.zeros(1, 1), 32, 32, 0.25, 0, -1, 0)
