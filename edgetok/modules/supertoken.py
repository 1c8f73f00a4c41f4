"""Super token attention: pixels gather in a few super tokens, these attend to each other, and hand back what they got.

Vision Transformer with Super Token Sampling (CVPR 2023), https://arxiv.org/abs/2211.11167, section 3.2; published code:
StokenAttention. A model has to be trained with it: it is no plug-in for a ViT. `load_state_dict` takes the weights of a
StokenAttention as they are.

The feature map is cut into cells, and the mean of a cell is the first guess of its super token. Each pixel belongs to
the nine super tokens around it by a softmax of products; each super token becomes the mean of its pixels by these
shares. Then the super tokens attend to each other, and each pixel takes the same shares of what they became.

As in the published code, super tokens outside the map are zeros that take their share of the softmax, and where the
cells do not divide the map, the zeros that fill it up at the right and the bottom are pixels like all others. What
differs is the way: rows are gathered by constant indices in place of unfold and fold, for which a runtime needs no more
than Gather, MatMul and Softmax. Height and width are fixed when the module is exported; the batch is free.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import nn
from torch.nn import functional

from edgetok.errors import UsageError

EPSILON = 1e-12
AROUND = tuple(product((-1, 0, 1), repeat=2))  # (row, column) of the nine cells; the opposite of k is 8 - k


class SuperTokenAttention(nn.Module):
    """(B, C, H, W) -> (B, C, H, W)

    Args:
        width: C.
        heads: of the attention between super tokens.
        cell: (height, width) of the cells, in pixels.
        iterations: how often the super tokens are made anew from their pixels.
        bias: whether queries, keys and values have a bias.

    Raises:
        UsageError: a size that is none.
    """

    def __init__(self, width: int, heads: int, cell: tuple[int, int], iterations: int = 1, bias: bool = False):
        super().__init__()
        if heads < 1 or width % heads:
            raise UsageError(f"heads={heads}: accepted is a number that divides width={width}")
        if min(cell) < 1 or iterations < 1:
            raise UsageError(f"cell={cell}, iterations={iterations}: accepted are numbers from 1 up")
        self.cell, self.iterations = cell, iterations
        self.stoken_refine = Attention(width, heads, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, width, height, breadth = x.shape
        rows, columns = -(-height // self.cell[0]), -(-breadth // self.cell[1])
        pixels = _to_cells(x, rows, columns, self.cell)
        around = _around(rows, columns)
        tokens = pixels.mean(dim=2)  # (B, cells, C)
        for _ in range(self.iterations):
            near = _gather(tokens, around)  # (B, cells, 9, C)
            share = (pixels @ near.mT * width**-0.5).softmax(dim=-1).detach()  # (B, cells, pixels, 9), learns nothing
            counted = functional.pad(pixels, (0, 1), value=1.0)  # the last channel adds up the shares
            given = (share.mT @ counted).flatten(1, 2)  # (B, cells * 9, C + 1)
            summed = _gather(given, _opposite(around)).sum(dim=2)  # (B, cells, C + 1)
            tokens = summed[..., :-1] / (summed[..., -1:] + EPSILON)
        tokens = self.stoken_refine(tokens)
        y = share @ _gather(tokens, around)
        return _to_map(y, rows, columns, self.cell)[:, :, :height, :breadth]


class Attention(nn.Module):
    """(B, N, C) -> (B, N, C); each head has its queries, keys and values side by side."""

    def __init__(self, width: int, heads: int, bias: bool = False):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=bias)  # of 1 x 1, as StokenAttention's weights are
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, tokens, width = x.shape
        qkv = functional.linear(x, self.qkv.weight.flatten(1), self.qkv.bias)
        heads = qkv.reshape(-1, tokens, self.heads, 3 * width // self.heads).transpose(1, 2)
        query, key, value = heads.chunk(3, dim=-1)
        y = functional.scaled_dot_product_attention(query, key, value)
        y = y.transpose(1, 2).reshape(-1, tokens, width)
        return functional.linear(y, self.proj.weight.flatten(1), self.proj.bias)


def _to_cells(x: torch.Tensor, rows: int, columns: int, cell: tuple[int, int]) -> torch.Tensor:
    """(B, C, H, W) -> (B, cells, pixels of a cell, C), filled up with zeros."""
    _, width, height, breadth = x.shape
    x = functional.pad(x, (0, columns * cell[1] - breadth, 0, rows * cell[0] - height))
    x = x.reshape(-1, width, rows, cell[0], columns, cell[1]).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(-1, rows * columns, cell[0] * cell[1], width)


def _to_map(cells: torch.Tensor, rows: int, columns: int, cell: tuple[int, int]) -> torch.Tensor:
    """(B, cells, pixels of a cell, C) -> (B, C, H, W)"""
    width = cells.shape[3]
    x = cells.reshape(-1, rows, columns, *cell, width).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(-1, width, rows * cell[0], columns * cell[1])


def _around(rows: int, columns: int) -> list[list[int]]:
    """For each cell the nine around it; one more than the last for those outside."""

    def number(row: int, column: int) -> int:
        return row * columns + column if 0 <= row < rows and 0 <= column < columns else rows * columns

    return [[number(i + di, j + dj) for di, dj in AROUND] for i, j in product(range(rows), range(columns))]


def _opposite(around: list[list[int]]) -> list[list[int]]:
    """For each cell, where what the nine around it give to it stands among all that is given, nine per cell."""
    outside = 9 * len(around)
    return [[min(9 * other + 8 - k, outside) for k, other in enumerate(nine)] for nine in around]


def _gather(rows: torch.Tensor, index: list[list[int]]) -> torch.Tensor:
    """(B, R, C), cells lists of nine -> (B, cells, 9, C); row R is zeros."""
    flat = torch.tensor(index, device=rows.device).flatten()
    gathered = functional.pad(rows, (0, 0, 0, 1)).index_select(1, flat)
    return gathered.reshape(-1, len(index), 9, rows.shape[2])
