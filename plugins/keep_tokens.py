"""KeepTokens: some tokens stay, the others are dropped.

The applying step of every pruning technique, such as EViT (https://arxiv.org/abs/2202.07800, section 3.2).
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
def KeepTokens(x, index):  # type: ignore[no-untyped-def]
    """x (B, N, C), index (B, kept) -> (B, kept, C)."""
    return op.GatherND(x, op.Unsqueeze(index, op.Constant(value_ints=[-1])), batch_dims=1)


function = KeepTokens


def reference(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Keep the tokens at `index` (B, kept) of x (B, N, C), in that order."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


def cases() -> Iterator[tuple[str, tuple[torch.Tensor, ...]]]:
    """Named inputs of the reference."""
    import torch

    seeded = torch.Generator().manual_seed(0)
    x = torch.randn(2, 31, 8, generator=seeded)
    yield "two_orders", (x, torch.stack([torch.randperm(31, generator=seeded)[:12] for _ in range(2)]))
    yield "one_token", (x, torch.full((2, 1), 30))
    yield "none", (x, torch.zeros(2, 0, dtype=torch.int64))
    yield "alone", (x[:, :1], torch.zeros(2, 1, dtype=torch.int64))
