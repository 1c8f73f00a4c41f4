"""BipartiteMatch: for every token of set A its most similar token of set B, the best matched first.

The matching step of ToMe (Token Merging, https://arxiv.org/abs/2210.09461, section 3) and of what follows it.
Rows are compared by their product: rows of length one give the cosine, and a row of zeros is similar to nothing.
Equal scores: the lower index first, in A and in B.
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
def BipartiteMatch(a, b, bias_a, bias_b):  # type: ignore[no-untyped-def]
    """a (B, A, d), b (B, K, d), bias_a (1 or B, 1 or A), bias_b (1 or B, 1 or K) to order, match, best (B, A)."""
    last = op.Constant(value_ints=[-1])
    scores = op.MatMul(a, op.Transpose(b, perm=[0, 2, 1])) + op.Unsqueeze(bias_b, op.Constant(value_ints=[1]))
    best = op.ReduceMax(scores, last, keepdims=0) + bias_a  # (B, A)
    ranked, order = op.TopK(best, op.Shape(a, start=1, end=2), axis=1)
    match = op.GatherElements(op.ArgMax(scores, axis=2, keepdims=0), order, axis=1)
    return order, match, ranked


function = BipartiteMatch


def reference(
    a: torch.Tensor, b: torch.Tensor, bias_a: torch.Tensor, bias_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Match two sets of tokens.

    Args:
        a: (B, A, d) the tokens that may be merged away.
        b: (B, K, d) the tokens that they may be merged into.
        bias_a: (B or 1, A or 1) added to the rank of a token of A; -1e4 protects it.
        bias_b: (B or 1, K or 1) added to the score of a token of B; -1e4 bars it.

    Returns:
        order: (B, A) the tokens of A, the best matched first.
        match: (B, A) for each of them, in that order, its token of B.
        best: (B, A) and its score with that one, with its bias.
    """
    scores = a @ b.mT + bias_b[:, None, :]  # (B, A, K)
    best, match = scores.max(dim=-1)
    ranked, order = (best + bias_a).sort(dim=-1, descending=True, stable=True)
    return order, match.gather(1, order), ranked


def cases() -> Iterator[tuple[str, tuple[torch.Tensor, ...]]]:
    """Named inputs of the reference."""
    import torch

    def tokens(batch: int, a: int, b: int, width: int) -> tuple[torch.Tensor, ...]:
        seeded = torch.Generator().manual_seed(a)
        draw = torch.randn(batch, a + b, width, generator=seeded)
        return draw[:, :a], draw[:, a:], torch.zeros(1, a), torch.zeros(1, b)

    yield "vit_s", tokens(2, 98, 98, 64)
    yield "odd", tokens(3, 16, 15, 8)
    a, b, bias_a, bias_b = tokens(2, 9, 7, 4)
    bias_a[0, 0], bias_b[0, 3] = -1e4, -1e4
    yield "barred", (a, b, bias_a, bias_b)
    yield "equal", (torch.ones(2, 33, 5), torch.ones(2, 17, 5), torch.zeros(1, 33), torch.zeros(1, 17))
    yield "one_each", tokens(2, 1, 1, 3)
