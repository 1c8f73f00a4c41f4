"""Finite scalar quantisation inside a model: each channel is rounded to a few levels, and these together are one id.

Finite Scalar Quantization: VQ-VAE Made Simple, https://arxiv.org/abs/2309.15505, section 3.1; the same as
exporters/heads/fsq.py.
"""

from __future__ import annotations

from math import prod

import torch
from torch import nn

MARGIN = 1.001  # the outermost levels are reached by a finite value


class Levels(nn.Module):
    """As many channels as there are levels. Even numbers of levels are not symmetric about 0: 8 are -1 to 0.75.

    Args:
        levels: of each channel.
    """

    levels: torch.Tensor
    worth: torch.Tensor
    span: torch.Tensor
    offset: torch.Tensor
    shift: torch.Tensor

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.codes = prod(levels)
        count = torch.tensor(levels)
        half = (count - 1) * MARGIN / 2
        offset = torch.where(count % 2 == 0, 0.5, 0.0)
        worth = torch.tensor([prod(levels[:i]) for i in range(len(levels))])  # the first channel is the least
        buffers = {"levels": count, "worth": worth, "span": half, "offset": offset, "shift": (offset / half).atanh()}
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def nearest(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (...) int64"""
        level = ((x + self.shift).tanh() * self.span - self.offset).round().long() + self.levels // 2
        return (level * self.worth).sum(dim=-1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(...) int64 -> (..., D)"""
        level = ids[..., None] // self.worth % self.levels
        middle = self.levels // 2
        return (level - middle).to(self.span.dtype) / middle
