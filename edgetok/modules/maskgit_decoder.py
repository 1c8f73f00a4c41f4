"""The convolutions that make a picture of a grid of vectors: the decoder of MaskGIT-VQGAN.

MaskGIT: Masked Generative Image Transformer, https://arxiv.org/abs/2202.04200, section 3.1; published code: Decoder of
modeling/modules/maskgit_vqgan.py in bytedance/1d-tokenizer (Apache-2.0), whose weights `load_state_dict` takes.

It is VQGAN's decoder without attention. As in that code, a block that changes the number of channels adds a projection
of what its convolutions made, not of what they were given: the released weights are trained so.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

EPSILON = 1e-6


class PixelDecoder(nn.Module):
    """(B, width, h, w) -> (B, 3, h * f, w * f); f is 2 to the number of multipliers less one.

    Args:
        width: channels of a vector.
        channels: of the last level; those of the others are multiples.
        multipliers: of the channels, from the largest map to the smallest.
        blocks: residual blocks of each level.
        groups: of the normalisation.
    """

    def __init__(self, width: int, channels: int, multipliers: tuple[int, ...], blocks: int = 2, groups: int = 32):
        super().__init__()
        widths = [channels * m for m in multipliers]
        self.conv_in = nn.Conv2d(width, widths[-1], 3, padding=1)
        self.mid = nn.ModuleList(Residual(widths[-1], widths[-1], groups) for _ in range(blocks))
        before = [*widths[1:], widths[-1]]
        self.up = nn.ModuleList(Level(before[i], widths[i], blocks, groups, larger=i > 0) for i in range(len(widths)))
        self.norm_out = nn.GroupNorm(groups, widths[0], eps=EPSILON)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        for block in (*self.mid, *reversed(self.up)):
            x = block(x)
        return self.conv_out(functional.silu(self.norm_out(x)))


class Level(nn.Module):
    """Residual blocks of one width; then a map twice as high and wide, if `larger`."""

    def __init__(self, given: int, width: int, blocks: int, groups: int, larger: bool):
        super().__init__()
        self.block = nn.ModuleList(Residual(width if i else given, width, groups) for i in range(blocks))
        self.larger = larger
        if larger:
            self.upsample_conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.block:
            x = block(x)
        return self.upsample_conv(functional.interpolate(x, scale_factor=2.0)) if self.larger else x


class Residual(nn.Module):
    """Two times norm, SiLU and convolution."""

    def __init__(self, given: int, width: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, given, eps=EPSILON)
        self.conv1 = nn.Conv2d(given, width, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, width, eps=EPSILON)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.nin_shortcut = nn.Conv2d(width, width, 1, bias=False) if given != width else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(functional.silu(self.norm1(x)))
        y = self.conv2(functional.silu(self.norm2(y)))
        return y + (x if self.nin_shortcut is None else self.nin_shortcut(y))
