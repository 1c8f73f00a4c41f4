"""SumTokens: the tokens that go are added to those that stay, each with a weight; nothing is divided.

The combining step of techniques whose weights are no sizes: EViT's fused token (https://arxiv.org/abs/2202.07800,
section 3.2), the discounted sizes of DiffRate (https://arxiv.org/abs/2305.17997). Sums are made in fp32.
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
def SumTokens(x, weight, order, destination, kept):  # type: ignore[no-untyped-def]
    """x (B, N, C), weight (B, N, 1), order (B, M), destination (B, M - kept), kept (1,) -> (B, kept, C)."""
    one = op.Constant(value_ints=[1])
    places = op.Unsqueeze(order, op.Constant(value_ints=[-1]))
    stay = op.Slice(places, op.Constant(value_ints=[0]), kept, one)  # (B, kept, 1)
    go = op.Slice(places, kept, op.Constant(value_ints=[9223372036854775807]), one)  # (B, r, 1)
    rows = op.Cast(x, to=1)
    kept_rows = op.GatherND(rows, stay, batch_dims=1) * op.GatherND(weight, stay, batch_dims=1)
    gone_rows = op.GatherND(rows, go, batch_dims=1) * op.GatherND(weight, go, batch_dims=1)
    hit = op.OneHot(destination, kept, op.Constant(value_floats=[0.0, 1.0]), axis=1)  # (B, kept, r)
    return op.CastLike(kept_rows + op.MatMul(hit, gone_rows), x)


function = SumTokens


def reference(
    x: torch.Tensor, weight: torch.Tensor, order: torch.Tensor, destination: torch.Tensor, kept: torch.Tensor
) -> torch.Tensor:
    """Add tokens.

    Args:
        x: (B, N, C) the tokens.
        weight: (B, N, 1) of each.
        order: (B, M) the tokens that stay, in their new order, then those that go; a token in neither is dropped.
        destination: (B, M - kept) for each that goes, the new row that it is added to.
        kept: (1,) int64: how many stay.

    Returns:
        (B, kept, C)
    """
    stay = int(kept)
    rows = (x * weight).gather(1, order[..., None].expand(-1, -1, x.shape[2]))
    into = destination[..., None].expand(-1, -1, x.shape[2])
    return rows[:, :stay].scatter_add(1, into, rows[:, stay:])


def cases() -> Iterator[tuple[str, tuple[torch.Tensor, ...]]]:
    """Named inputs of the reference."""
    import torch

    def tokens(batch: int, count: int, width: int, kept: int, dropped: int) -> tuple[torch.Tensor, ...]:
        seeded = torch.Generator().manual_seed(count)
        x = torch.randn(batch, count, width, generator=seeded)
        weight = torch.rand(batch, count, 1, generator=seeded)
        order = torch.stack([torch.randperm(count, generator=seeded)[: count - dropped] for _ in range(batch)])
        destination = torch.randint(0, kept, (batch, count - dropped - kept), generator=seeded)
        return x, weight, order, destination, torch.tensor([kept])

    yield "vit_s", tokens(2, 197, 384, 140, 0)
    yield "odd", tokens(3, 31, 8, 20, 4)
    yield "sizes", tokens(2, 12, 1, 6, 1)
    yield "none_go", tokens(2, 9, 4, 9, 0)
    yield "one_left", tokens(2, 2, 5, 1, 0)
    yield "alone", tokens(2, 1, 5, 1, 0)
