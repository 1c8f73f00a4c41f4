"""The convolutions of a VQGAN with attention at the smallest maps, from pixels to vectors and back.

Taming Transformers for High-Resolution Image Synthesis, https://arxiv.org/abs/2012.09841, section 3.1, as LlamaGen and
TokenFlow build it; names of weights are those of ByteVisionLab/TokenFlow (Apache-2.0), tokenflow/tokenizer/vq_model.py.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edgetok.modules.attention import attend

EPSILON = 1e-6


class Encoder(nn.Module):
    """(B, 3, H, W) -> (B, width, H / f, W / f); f is 2 to the number of multipliers less one.

    Args:
        width: channels of a vector.
        channels: of the first level; those of the others are multiples.
        multipliers: of the channels, from the largest map to the smallest.
        blocks: residual blocks of each level.
        groups: of the normalisation.
    """

    def __init__(self, width: int, channels: int, multipliers: tuple[int, ...], blocks: int = 2, groups: int = 32):
        super().__init__()
        widths = [channels * m for m in multipliers]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
        before = [channels, *widths[:-1]]
        kinds = [Smaller] * last + [Level]
        self.conv_blocks = nn.ModuleList(
            kinds[i](before[i], widths[i], blocks, groups, attends=i == last) for i in range(len(widths))
        )
        self.mid = _middle(widths[-1], groups)
        self.norm_out = nn.GroupNorm(groups, widths[-1], eps=EPSILON)
        self.conv_out = nn.Conv2d(widths[-1], width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        for block in (*self.conv_blocks, *self.mid):
            x = block(x)
        return self.conv_out(functional.silu(self.norm_out(x)))


class Decoder(nn.Module):
    """(B, width, h, w) -> (B, 3, h * f, w * f), with one more residual block a level than the encoder."""

    def __init__(self, width: int, channels: int, multipliers: tuple[int, ...], blocks: int = 2, groups: int = 32):
        super().__init__()
        widths = [channels * m for m in reversed(multipliers)]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(width, widths[0], 3, padding=1)
        self.mid = _middle(widths[0], groups)
        before = [widths[0], *widths[:-1]]
        kinds = [Larger] * last + [Level]
        self.conv_blocks = nn.ModuleList(
            kinds[i](before[i], widths[i], blocks + 1, groups, attends=i == 0) for i in range(len(widths))
        )
        self.norm_out = nn.GroupNorm(groups, widths[-1], eps=EPSILON)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        for block in (*self.mid, *self.conv_blocks):
            x = block(x)
        return self.conv_out(functional.silu(self.norm_out(x)))


class Level(nn.Module):
    """Residual blocks of one width, with attention behind each where the level `attends`."""

    def __init__(self, given: int, made: int, blocks: int, groups: int, attends: bool):
        super().__init__()
        self.res = nn.ModuleList(Residual(made if j else given, made, groups) for j in range(blocks))
        self.attn = nn.ModuleList(PixelAttention(made, groups) for _ in range(blocks if attends else 0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for j, block in enumerate(self.res):
            x = block(x)
            if j < len(self.attn):
                x = self.attn[j](x)
        return x


class Smaller(Level):
    """A level, then a map half as high and wide, filled up at the right and the bottom only."""

    def __init__(self, given: int, made: int, blocks: int, groups: int, attends: bool):
        super().__init__(given, made, blocks, groups, attends)
        self.downsample = nn.ModuleDict({"conv": nn.Conv2d(made, made, 3, stride=2)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.downsample["conv"](functional.pad(super().forward(x), (0, 1, 0, 1)))


class Larger(Level):
    """A level, then a map twice as high and wide."""

    def __init__(self, given: int, made: int, blocks: int, groups: int, attends: bool):
        super().__init__(given, made, blocks, groups, attends)
        self.upsample = nn.ModuleDict({"conv": nn.Conv2d(made, made, 3, padding=1)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.upsample["conv"](functional.interpolate(super().forward(x), scale_factor=2.0))


class Residual(nn.Module):
    """Two times norm, SiLU and convolution, added to a projection of what was given."""

    def __init__(self, given: int, width: int, groups: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, given, eps=EPSILON), nn.GroupNorm(groups, width, eps=EPSILON)
        self.conv1, self.conv2 = nn.Conv2d(given, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(given, width, 1) if given != width else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(functional.silu(self.norm1(x)))
        y = self.conv2(functional.silu(self.norm2(y)))
        return y + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class PixelAttention(nn.Module):
    """(B, C, h, w) -> (B, C, h, w): each place sees all others, with one head."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=EPSILON)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x).flatten(2).mT  # (B, places, C)
        query, key, value = (functional.linear(y, w.weight.flatten(1), w.bias) for w in (self.q, self.k, self.v))
        y = functional.linear(attend(query, key, value, 1), self.proj_out.weight.flatten(1), self.proj_out.bias)
        return x + torch.unflatten(y.mT, 2, x.shape[2:])


def _middle(width: int, groups: int) -> nn.ModuleList:
    before, after = Residual(width, width, groups), Residual(width, width, groups)
    return nn.ModuleList([before, PixelAttention(width, groups), after])
