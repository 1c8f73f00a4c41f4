"""ProportionalAttention: attention in which a token counts as often as the tokens merged into it.

ToMe (Token Merging, https://arxiv.org/abs/2210.09461, section 3): softmax(q k^T / sqrt(d) + log size) v. The bias also
carries padding (size 0 becomes -1e4). It is an operator of its own because runtimes disagree on how to take a bias
per key: onnxruntime's Attention rejects a (B, 1, 1, N) mask, TensorRT's wants it in the type of q.
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
def ProportionalAttention(q, k, v, bias, scale: float):  # type: ignore[no-untyped-def]
    """q, k, v (B, h, N, d), bias (B or 1, 1, 1, N) -> (B, h, N, d)."""
    scaled = q * op.CastLike(op.Constant(value_float=scale), q)
    scores = op.MatMul(scaled, op.Transpose(k, perm=[0, 1, 3, 2])) + bias
    return op.MatMul(op.Softmax(scores, axis=-1), v)


function = ProportionalAttention


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention with a bias per key.

    Args:
        q: (B, h, N, d) queries.
        k: (B, h, N, d) keys.
        v: (B, h, N, d) values.
        bias: (B or 1, 1, 1, N) added to every score of a key: log(size), or -1e4 for padding.
        scale: of the scores, usually 1 / sqrt(d).

    Returns:
        (B, h, N, d)
    """
    return ((q * scale) @ k.mT + bias).softmax(dim=-1) @ v


def cases() -> Iterator[tuple[str, tuple[object, ...]]]:
    """Named inputs of the reference."""
    import torch

    def heads(batch: int, heads: int, count: int, width: int) -> tuple[object, ...]:
        seeded = torch.Generator().manual_seed(count)
        q, k, v = torch.randn(3, batch, heads, count, width, generator=seeded)
        size = torch.randint(1, 9, (batch, 1, 1, count), generator=seeded)
        return q, k, v, size.float().log(), width**-0.5

    yield "vit_s", heads(2, 6, 184, 64)
    yield "odd", heads(3, 1, 17, 5)
    q, k, v, bias, scale = heads(2, 2, 12, 8)
    bias[:, ..., 7:] = -1e4  # type: ignore[index]
    yield "padding", (q, k, v, bias, scale)
