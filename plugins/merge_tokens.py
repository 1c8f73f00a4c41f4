"""MergeTokens: the tokens that go are averaged into those that stay, weighted by how many tokens each stands for.

The merging step of ToMe (Token Merging, https://arxiv.org/abs/2210.09461, section 3): x = sum(size x) / sum(size).
A token of size 0 is padding: it changes nothing that it is merged into.

Sums are made in fp32, also for fp16 tokens: a large token of a large size leaves fp16's range. The rows that go are
added by a product with one-hot columns (kept x r x C multiplications, under 1 % of a ViT-S block), because TensorRT
takes no scatter with a reduction. The division is made on what is small: each row that stays is scaled by its share of
the sum, each column by its token's. ViT-S, 132 tokens, r=13, two cores: 0.064 ms at batch 1 and 0.55 ms at batch 8;
dividing the sums, with size as one more channel, took 0.096 and 1.0 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxscript import opset23 as op
from onnxscript import script
from onnxscript.values import Opset

if TYPE_CHECKING:
    import torch

SMALLEST = 1e-4  # divides the zeros of merged padding; real sizes are 1 and more


@script(Opset("edgetok", 1), default_opset=op)
def MergeTokens(x, size, order, destination, kept):  # type: ignore[no-untyped-def]
    """x (B, N, C), size (B, N, 1), order (B, N), destination (B, r), kept (1,) -> (B, kept, C), (B, kept, 1)."""
    one = op.Constant(value_ints=[1])
    places = op.Unsqueeze(order, op.Constant(value_ints=[-1]))
    stay = op.Slice(places, op.Constant(value_ints=[0]), kept, one)  # (B, kept, 1)
    go = op.Slice(places, kept, op.Constant(value_ints=[9223372036854775807]), one)  # (B, r, 1)
    size_stay = op.GatherND(size, stay, batch_dims=1)
    size_go = op.GatherND(size, go, batch_dims=1)
    hit = op.OneHot(destination, kept, op.Constant(value_floats=[0.0, 1.0]), axis=1)  # (B, kept, r)
    merged_size = size_stay + op.MatMul(hit, size_go)
    share = op.Reciprocal(op.Max(merged_size, op.Constant(value_float=1e-4)))
    rows = op.Cast(x, to=1)
    kept_rows = op.GatherND(rows, stay, batch_dims=1) * (size_stay * share)
    merged = kept_rows + op.MatMul(hit * share, op.GatherND(rows, go, batch_dims=1) * size_go)
    return op.CastLike(merged, x), merged_size


function = MergeTokens


def reference(
    x: torch.Tensor, size: torch.Tensor, order: torch.Tensor, destination: torch.Tensor, kept: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge tokens.

    Args:
        x: (B, N, C) the tokens.
        size: (B, N, 1) how many tokens each stands for; 0 for padding.
        order: (B, N) the tokens that stay, in their new order, then the r that go.
        destination: (B, r) for each that goes, the new row that it is merged into.
        kept: (1,) int64: N - r.

    Returns:
        x: (B, N - r, C) and size: (B, N - r, 1).
    """
    stay = int(kept)
    rows = (x * size).gather(1, order[..., None].expand(-1, -1, x.shape[2]))
    sizes = size.gather(1, order[..., None])
    into = destination[..., None]
    total = rows[:, :stay].scatter_add(1, into.expand(-1, -1, x.shape[2]), rows[:, stay:])
    merged_size = sizes[:, :stay].scatter_add(1, into, sizes[:, stay:])
    return total / merged_size.clamp_min(SMALLEST), merged_size


def cases() -> Iterator[tuple[str, tuple[torch.Tensor, ...]]]:
    """Named inputs of the reference."""
    import torch

    def tokens(batch: int, count: int, width: int, gone: int) -> tuple[torch.Tensor, ...]:
        seeded = torch.Generator().manual_seed(count)
        x = torch.randn(batch, count, width, generator=seeded)
        size = torch.randint(1, 5, (batch, count, 1), generator=seeded).float()
        order = torch.stack([torch.randperm(count, generator=seeded) for _ in range(batch)])
        destination = torch.randint(0, count - gone, (batch, gone), generator=seeded)
        return x, size, order, destination, torch.tensor([count - gone])

    yield "vit_s", tokens(2, 197, 384, 13)
    yield "odd", tokens(3, 31, 8, 3)
    yield "half", tokens(1, 64, 16, 32)
    yield "none_go", tokens(2, 9, 4, 0)
    x, size, order, destination, kept = tokens(2, 12, 4, 5)
    size[0, :6] = 0
    yield "padding", (x, size, order, destination, kept)
    yield "one_left", tokens(2, 2, 5, 1)
    yield "alone", tokens(2, 1, 5, 0)
