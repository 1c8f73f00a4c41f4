"""The networks of a small picture tokenizer: 8 x 8 pixels become one vector, and vectors pixels again.

Between them stands a quantiser head of exporters/heads/ (`edgetok/tokenizer/joined.py` writes it into the graphs), as
in VQ-VAE, https://arxiv.org/abs/1711.00937, section 3, and FSQ, https://arxiv.org/abs/2309.15505, section 3.1.

What differs from both: no network downsamples step by step. A linear map of each patch, which training starts at the
patches' principal components, carries the picture, and a residual network of 3 x 3 convolutions over the patches adds
what the neighbours tell; it starts at zero. So training begins with the best linear code and not with noise, which is
what lets it end within minutes on a CPU.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

PATCH = 8  # pixels, both ways
PIXELS = 3 * PATCH * PATCH


class Block(nn.Module):
    """(B, C, rows, columns) -> the same: what a patch and its eight neighbours tell is added to it."""

    def __init__(self, width: int):
        super().__init__()
        self.near, self.back = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.back(functional.gelu(self.near(x), approximate="tanh"))


class Network(nn.Module):
    """(B, inner, patch rows, patch columns) -> (B, outer, rows, columns): a linear map, and what the blocks add to it.

    Patches are read by the strides of the first convolutions, which onnxruntime does in a third of the time that
    pixel_unshuffle, its slowest kind of Transpose, takes with convolutions of 1 x 1 behind it.

    Args:
        inner: channels in.
        outer: channels out.
        width: channels of the blocks.
        blocks: how many there are.
        patch: pixels of a patch, both ways.
    """

    def __init__(self, inner: int, outer: int, width: int, blocks: int, patch: int = 1):
        super().__init__()
        self.linear = nn.Conv2d(inner, outer, patch, patch)
        self.blocks = nn.Sequential(nn.Conv2d(inner, width, patch, patch), *(Block(width) for _ in range(blocks)))
        self.last = nn.Conv2d(width, outer, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.last(self.blocks(x))


class ImageEncoder(nn.Module):
    """A picture (B, 3, H, W) of 0 to 1 -> vectors (B, N, D) in raster order, and grid (B, 2) int64: rows, columns.

    N is ceil(H / 8) ceil(W / 8): the last row and column of pixels are repeated until the patches are full.

    Args:
        channels: D.
        width: channels of the blocks.
        blocks: how many there are.
    """

    def __init__(self, channels: int, width: int, blocks: int):
        super().__init__()
        self.network = Network(3, channels, width, blocks, PATCH)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        batch, _, height, breadth = pixels.shape
        rows, columns = (height + PATCH - 1) // PATCH, (breadth + PATCH - 1) // PATCH
        filled = functional.pad(pixels, (0, -breadth % PATCH, 0, -height % PATCH), mode="replicate")
        x = self.network(filled - 0.5)
        grid = torch.stack((torch.full((batch,), rows), torch.full((batch,), columns)), dim=1)
        return {"vectors": x.flatten(2).mT, "grid": grid}


class ImageDecoder(nn.Module):
    """Vectors of a map, (B, D, rows, columns) -> pixels (B, 3, 8 rows, 8 columns), of 0 to 1.

    Args:
        channels: D.
        width: channels of the blocks.
        blocks: how many there are.
    """

    def __init__(self, channels: int, width: int, blocks: int):
        super().__init__()
        self.network = Network(channels, PIXELS, width, blocks)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        pixels = functional.pixel_shuffle(self.network(vectors), PATCH) + 0.5
        return pixels if self.training else pixels.clamp(0, 1)
