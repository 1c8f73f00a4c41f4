"""TokenSparseAttention: each query, or each few queries in a row, attend to the tokens on their list, and to no others.

The operator behind attention that picks single tokens, as Double Sparsity (https://arxiv.org/abs/2408.07092, section
3), TokenSelect (https://arxiv.org/abs/2411.02886, section 4) and DeepSeek's sparse attention do it in decoders.
`block_q` = 1 gives each query a list of its own; a decode step or a chunk of a prompt that shares one list has more.
Lists are data, their capacity M is a shape, and `token_cnt` says how many of the M count. Order in a list does not
matter, a number that is no key's is passed over, and none may stand twice. A query that sees no key gives zeros.

What it differs in from BlockSparseAttention with blocks of one key is what it costs: the listed keys are gathered as
rows, once for all queries of a list, so memory and time grow with the lists and not with the number of keys. With lists
of single queries no product is shared, so dense attention is overtaken only far below the density where blocks do.
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
def TokenSparseAttention(q, k, v, token_idx, token_cnt, key_bias, block_q: int, scale: float, causal: int):
    """q (B, h, N, d), k, v (B, g, K, d), lists (1 or B, 1, g or h, L, M) int32, bias (1 or B, 1 or K) -> as q."""
    zero, one, last = op.Constant(value_ints=[0]), op.Constant(value_ints=[1]), op.Constant(value_ints=[-1])
    start, step, barred = op.Constant(value_int=0), op.Constant(value_int=1), op.Constant(value_float=-1e30)
    of_q = op.Reshape(op.Constant(value_int=block_q), one)
    batch, heads, queries, width = op.Split(op.Shape(q), axis=0, num_outputs=4)
    groups, keys = op.Shape(k, start=1, end=2), op.Shape(k, start=2, end=3)
    rows, most = op.Shape(token_idx, start=2, end=3), op.Shape(token_idx, start=3, end=4)

    # which keys, (B, h, L, M); -1 for none
    idx = op.Cast(token_idx, to=7)
    listed = op.Range(start, op.Squeeze(most), step) < op.Unsqueeze(op.Cast(token_cnt, to=7), last)
    listed = op.And(listed, op.And(idx >= zero, idx < keys))
    coded = op.Unsqueeze(op.Where(listed, idx, last), op.Constant(value_ints=[2]))
    sharing = heads / op.Shape(token_idx, start=1, end=2)  # heads that have one list
    coded = op.Expand(coded, op.Concat(batch, one, sharing, one, one, axis=0))
    coded = op.Reshape(coded, op.Concat(batch, heads, rows, most, axis=0))
    idx = op.Max(coded, zero)

    # their keys and values, (B, h, L, M, d), and biases, (B, h, L, 1, M)
    sample = op.Reshape(op.Range(start, op.Squeeze(batch), step), op.Constant(value_ints=[-1, 1, 1, 1]))
    group = op.Range(start, op.Squeeze(heads), step) / (heads / groups)
    of_head = (sample * groups + op.Reshape(group, op.Constant(value_ints=[-1, 1, 1]))) * keys + idx
    values = op.Shape(v, start=3, end=4)
    all_keys = op.Reshape(op.Cast(k, to=1), op.Concat(batch * groups * keys, width, axis=0))
    all_values = op.Reshape(op.Cast(v, to=1), op.Concat(batch * groups * keys, values, axis=0))
    listed_keys, listed_values = op.Gather(all_keys, of_head), op.Gather(all_values, of_head)
    bias = op.Reshape(op.Expand(key_bias, op.Concat(batch, keys, axis=0)), last)
    bias = op.Where(coded >= zero, op.Gather(bias, sample * keys + idx), barred)
    bias = op.Unsqueeze(bias, op.Constant(value_ints=[3]))

    over = op.Concat(zero, zero, zero, zero, zero, zero, rows * of_q - queries, zero, axis=0)
    grouped = op.Reshape(op.Pad(op.Cast(q, to=1), over), op.Concat(batch, heads, rows, of_q, width, axis=0))
    scores = op.MatMul(grouped * op.Constant(value_float=scale), op.Transpose(listed_keys, perm=[0, 1, 2, 4, 3])) + bias
    if op.Constant(value_int=causal) > start:  # constant: one is dropped
        row = op.Range(start, op.Squeeze(rows * of_q), step) + op.Squeeze(keys - queries)
        row = op.Reshape(row, op.Concat(rows, of_q, one, axis=0))
        seen = op.Where(op.Unsqueeze(idx, op.Constant(value_ints=[3])) > row, barred, scores)
    else:
        seen = op.Identity(scores)
    finite = op.Where(seen < barred, barred, seen)  # what is NaN stays it
    out = op.MatMul(op.Softmax(finite, axis=-1), listed_values)
    blind = op.ReduceMax(finite, last) <= barred
    out = op.Where(blind, op.Constant(value_float=0.0), out)
    joined = op.Reshape(out, op.Concat(batch, heads, last, values, axis=0))
    return op.CastLike(op.Slice(joined, zero, queries, op.Constant(value_ints=[2])), q)


function = TokenSparseAttention


def reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    token_idx: torch.Tensor,
    token_cnt: torch.Tensor,
    key_bias: torch.Tensor,
    block_q: int,
    scale: float,
    causal: int,
) -> torch.Tensor:
    """Dense attention under the mask that the lists are.

    Args:
        q: (B, h, N, d) queries.
        k: (B, g, K, d) keys; query head i reads head i // (h / g).
        v: (B, g, K, e) values.
        token_idx: (1 or B, 1, g or h, L, M) int32: the keys that queries attend to; L is N / block_q, rounded up.
            Numbers that are no key's are passed over.
        token_cnt: (1 or B, 1, g or h, L) int32: how many of a list's M count, the first ones.
        key_bias: (1 or B, 1 or K) fp32 added to the scores: log(size) of merged tokens, -1e4 or -inf for padding.
        block_q: queries that share a list, one after the other.
        scale: of the scores, usually 1 / sqrt(d).
        causal: 1 if query i sees no key behind i + K - N, else 0.

    Returns:
        (B, h, N, e), as q; zeros where a query sees no key.
    """
    import torch

    (batch, heads, queries, _), (groups, keys) = q.shape, k.shape[1:3]
    counted = torch.arange(token_idx.shape[-1]) < token_cnt[..., None]
    known = counted & (token_idx >= 0) & (token_idx < keys)
    slot = torch.where(known, token_idx, keys).long()
    seen = torch.zeros(*slot.shape[:3], keys + 1, dtype=torch.bool).scatter_(3, slot, True)[..., :keys]
    seen = seen.repeat_interleave(heads // seen.shape[1], dim=1).expand(batch, -1, -1, -1)
    seen = seen.repeat_interleave(block_q, dim=2)[:, :, :queries]
    if causal:
        seen = seen & (torch.arange(keys) <= torch.arange(queries)[:, None] + keys - queries)
    k, v = (x.repeat_interleave(heads // groups, dim=1) for x in (k, v))
    scores = q @ k.mT * scale + key_bias[:, None, None, :]
    seen = seen & (scores != -torch.inf)
    weights = scores.masked_fill(~seen, -1e30).softmax(dim=-1)
    return torch.where(seen.any(dim=-1, keepdim=True), weights @ v, 0)


def cases() -> Iterator[tuple[str, tuple[object, ...]]]:
    """Named inputs of the reference."""
    import torch

    def drawn(
        heads: int, groups: int, lists: int, queries: int, keys: int, width: int, of_q: int, most: int
    ) -> tuple[torch.Tensor, ...]:
        seeded = torch.Generator().manual_seed(queries + keys)
        q = torch.randn(2, heads, queries, width, generator=seeded)
        k, v = torch.randn(2, 2, groups, keys, width, generator=seeded)
        rows = -(-queries // of_q)
        idx = torch.rand(2, lists, rows, keys, generator=seeded).argsort(dim=-1)[..., :most].int()
        cnt = torch.randint(0, most + 1, (2, lists, rows), generator=seeded).int()
        return q, k, v, idx, cnt, torch.zeros(1, 1)

    yield "each", (*drawn(3, 3, 3, 64, 64, 64, 1, 16), 1, 0.125, 0)
    yield "each_causal", (*drawn(2, 2, 1, 77, 77, 32, 1, 40), 1, 0.2, 1)
    yield "step", (*drawn(4, 2, 1, 1, 300, 64, 1, 100), 1, 0.125, 1)
    yield "alone", (*drawn(2, 1, 1, 1, 1, 5, 8, 1), 8, 0.4, 1)
    yield "chunk", (*drawn(4, 2, 4, 100, 197, 24, 32, 97), 32, 0.2, 1)
    yield "grouped", (*drawn(6, 2, 2, 50, 50, 128, 16, 33), 16, 0.09, 0)
    q, k, v, idx, cnt, _ = drawn(2, 2, 2, 90, 90, 16, 8, 90)
    bias = torch.randint(1, 9, (2, 90), generator=torch.Generator().manual_seed(0)).float().log()
    bias[0, 70:], bias[1, 30:] = -1e4, -torch.inf
    yield "sizes_and_padding", (q, k, v, idx, cnt, bias, 8, 0.25, 0)
    idx[:, :, 1, :3] = torch.tensor([-1, 90, 2**31 - 1], dtype=torch.int32)  # no key's
    cnt[:, :, 0], cnt[:, :, 1:] = 0, 90
    yield "empty_and_full", (q, k, v, idx, cnt, torch.zeros(1, 1), 8, 0.25, 1)
