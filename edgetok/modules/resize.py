"""Resizing by constant matrices: one for the rows and one for the columns, which any runtime can do.

The same numbers as torch's `interpolate`: "area" averages what falls into a bin, of bins that overlap where sizes do
not divide; "bicubic" is the cubic kernel of -0.75 on half-pixel centres, without antialiasing, as torch's default is.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional


class Resize(nn.Module):
    """(..., given, given) -> (..., made, made)

    Args:
        given: rows and columns before.
        made: rows and columns after.
        mode: what torch calls it.
    """

    matrix: torch.Tensor

    def __init__(self, given: int, made: int, mode: Literal["area", "bicubic"]):
        super().__init__()
        rows = functional.interpolate(torch.eye(given)[None, None], (made, given), mode=mode)  # of one column each
        self.register_buffer("matrix", rows[0, 0], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.matrix @ x @ self.matrix.mT
