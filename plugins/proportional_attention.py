"""ProportionalAttention: attention in which a token counts as often as the tokens merged into it.

ToMe (Token Merging, https://arxiv.org/abs/2210.09461, section 3): softmax(q k^T / sqrt(d) + log size) v. The bias also
carries padding (size 0 becomes -1e4) and, per pair of tokens, what local attention does not reach. It is an operator of
its own because runtimes disagree on how to take a bias per key: onnxruntime's Attention rejects a (B, 1, 1, N) mask,
TensorRT's wants it in the type of q.

Heads are apart, (B, h, N, d), or joined, (B, N, h d), which spares four transpositions. The body spreads the bias over
the queries and is one Attention: ViT-S, 184 tokens, one thread: 0.55 ms joined and 0.64 ms apart, against 0.68 ms for
MatMul, Add, Softmax, MatMul.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxscript import opset23 as op
from onnxscript import script
from onnxscript.values import Opset

if TYPE_CHECKING:
    import torch


@script(Opset("edgetok", 1), default_opset=op)
def ProportionalAttention(q, k, v, bias, queries, scale: float, heads: int):  # type: ignore[no-untyped-def]
    """q, k, v (B, h, N, d) or (B, N, h d), bias (B or 1, 1, 1 or N, N) in their type, queries (1,) -> as q."""
    one = op.Constant(value_ints=[1])
    mask = op.Expand(bias, op.Concat(one, one, queries, one, axis=0))  # (B or 1, 1, N, N)
    return op.Attention(q, k, v, mask, scale=scale, q_num_heads=heads, kv_num_heads=heads)


function = ProportionalAttention


def reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor,
    queries: torch.Tensor,
    scale: float,
    heads: int,
) -> torch.Tensor:
    """Attention with a bias per key, or per pair of tokens.

    Args:
        q: (B, h, N, d) or (B, N, h d) queries.
        k: keys, alike.
        v: values, alike.
        bias: (B or 1, 1, 1 or N, N) added to the scores: log(size), or -1e4 for padding and for keys out of reach.
        queries: (1,) int64: N.
        scale: of the scores, usually 1 / sqrt(d).
        heads: h.

    Returns:
        As q.
    """
    if q.dim() == 3:
        q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))
        return reference(q, k, v, bias, queries, scale, heads).transpose(1, 2).flatten(2)
    return ((q * scale) @ k.mT + bias).softmax(dim=-1) @ v


def cases() -> Iterator[tuple[str, tuple[object, ...]]]:
    """Named inputs of the reference."""
    import torch

    def apart(batch: int, heads: int, count: int, width: int) -> tuple[object, ...]:
        seeded = torch.Generator().manual_seed(count)
        q, k, v = torch.randn(3, batch, heads, count, width, generator=seeded)
        size = torch.randint(1, 9, (batch, 1, 1, count), generator=seeded)
        return q, k, v, size.float().log(), torch.tensor([count]), width**-0.5, heads

    yield "vit_s", apart(2, 6, 184, 64)
    yield "odd", apart(3, 1, 17, 5)
    yield "alone", apart(2, 2, 1, 5)
    q, k, v, bias, queries, scale, heads = apart(2, 2, 12, 8)
    bias[:, ..., 7:] = -1e4  # type: ignore[index]
    yield "padding", (q, k, v, bias, queries, scale, heads)
    joined = (x.transpose(1, 2).flatten(2) for x in (q, k, v))  # type: ignore[attr-defined]
    yield "joined", (*joined, bias, queries, scale, heads)
    q, k, v, bias, queries, scale, heads = apart(2, 2, 12, 8)  # no padding: every query reaches a key
    far = (torch.arange(12) - torch.arange(12)[:, None]).abs() > 3
    yield "local", (q, k, v, torch.where(far, -1e4, bias), queries, scale, heads)  # type: ignore[call-overload]
