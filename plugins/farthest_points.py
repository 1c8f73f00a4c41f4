"""FarthestPoints: the next token is always the one farthest from those chosen.

Greedy max-min diversity, distance = 1 - cosine: DivPrune (https://arxiv.org/abs/2503.02175, section 3.3) and, with a
weight per token, FlashVID's attention- and diversity-based selection (https://arxiv.org/abs/2602.08024, section 3.2).
The first token is the one whose nearest other is farthest. No token is chosen twice; DivPrune's code may choose one of
several duplicates again and again. Equal distances: the lower index first.

One core, 384 channels, batch 1: 64 of 256 tokens 0.62 ms, 144 of 256 0.82; of 576: 64 2.8, 144 3.4, 288 3.7. Of these
the cosines take 0.4 and 2.0 ms; with a row of them per step instead, 64 of 576 were chosen in 1.0 ms, but 144 of 256 in
1.4 and 288 of 576 in 5.7. ViT-S at 257 tokens takes 40 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, no_type_check

from onnxscript import opset23 as op
from onnxscript import script
from onnxscript.values import Opset

from edgetok.plugins import greedy_select
from edgetok.plugins.greedy_select import GreedySelect

if TYPE_CHECKING:
    import torch


@no_type_check  # onnxscript reads the body, Python never runs it
@script(Opset("edgetok", 1), default_opset=op)
def FarthestPoints(x, weight, bias, count: int):
    """x (B, N, d), weight and bias (1 or B, 1 or N) -> index (B, count) int64, in the order of choice."""
    rows, columns = op.Constant(value_ints=[1]), op.Constant(value_ints=[2])
    tokens = op.Shape(x, start=1, end=2)
    own = op.EyeLike(op.ConstantOfShape(op.Concat(tokens, tokens, axis=0))) * op.Constant(value_float=1e6)
    cosine = op.MatMul(x, op.Transpose(x, perm=[0, 2, 1]))  # (B, N, N)
    closest = op.ReduceMax(cosine + (op.Unsqueeze(bias, rows) - own), columns, keepdims=0)  # barred ones are far
    nearest = (op.Constant(value_float=1.0) - closest) * weight + bias
    distance = op.Unsqueeze(weight + bias, rows) - cosine * op.Unsqueeze(weight, rows)
    return GreedySelect(distance, nearest, count=count, objective="max_min")


function = FarthestPoints


def reference(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, count: int) -> torch.Tensor:
    """Choose tokens far from each other.

    Args:
        x: (B, N, d) the tokens, at length one.
        weight: (B or 1, N or 1) multiplies the distance of a token to the chosen ones; 1 for DivPrune.
        bias: (B or 1, N or 1) added to that distance; -4 puts a token behind all others.
        count: how many tokens are chosen.

    Returns:
        (B, count) the chosen tokens in the order of choice.
    """
    import torch

    cosine = x @ x.mT
    own = torch.eye(x.shape[1], dtype=x.dtype, device=x.device) * greedy_select.NEVER
    nearest = (1 - (cosine + bias[:, None] - own).amax(dim=2)) * weight + bias  # barred ones are no neighbours
    distance = (1 - cosine) * weight[:, None] + bias[:, None]
    return greedy_select.reference(distance, nearest, count, "max_min")


def cases() -> Iterator[tuple[str, tuple[object, ...]]]:
    """Named inputs of the reference."""
    import torch

    def tokens(batch: int, count: int, width: int) -> tuple[torch.Tensor, ...]:
        seeded = torch.Generator().manual_seed(count)
        x = torch.nn.functional.normalize(torch.randn(batch, count, width, generator=seeded), dim=-1)
        return x, torch.rand(batch, count, generator=seeded), torch.zeros(1, 1)

    x, weight, zero = tokens(2, 256, 64)
    yield "divprune", (x, torch.ones(1, 1), zero, 64)
    yield "flashvid", (x, weight, zero, 64)
    x, weight, zero = tokens(3, 31, 8)
    yield "one", (x, weight, zero, 1)
    yield "all", (x, torch.ones(1, 1), zero, 31)
    bias = torch.zeros(3, 31)
    bias[1, 20:] = -4
    yield "padding", (x, weight, bias, 25)
    yield "equal", (torch.ones(2, 19, 4) / 2, torch.ones(1, 1), zero, 7)
    yield "alone", (*tokens(2, 1, 3), 1)
