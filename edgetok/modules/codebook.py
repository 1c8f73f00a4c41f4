"""A learnt codebook inside a model: the nearest row by cosine or by distance, and the rows of ids."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import normalize


class Codebook(nn.Module):
    """K rows of D, the codes.

    With `unit`, vectors and rows are brought to length one before they are compared, and what is decoded is a row of
    length one. A vector's length does not change which row is the nearest, so it is left out.

    Args:
        codes: K.
        width: D.
        unit: whether lengths count for nothing.
    """

    def __init__(self, codes: int, width: int, unit: bool):
        super().__init__()
        self.unit = unit
        self.embedding = nn.Embedding(codes, width)

    def rows(self) -> torch.Tensor:
        """(K, D) what ids stand for."""
        weight = self.embedding.weight
        return normalize(weight, dim=-1) if self.unit else weight

    def nearest(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (...) int64: the row of the largest cosine, or at the smallest distance."""
        rows = self.rows()
        nearness = x @ rows.mT
        if not self.unit:  # |x - c|^2 = |x|^2 - 2 (x c - |c|^2 / 2), and |x|^2 is the same for all rows
            nearness = nearness - rows.square().sum(dim=-1) / 2
        return nearness.argmax(dim=-1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(...) int64 -> (..., D)"""
        return nn.functional.embedding(ids, self.rows())
