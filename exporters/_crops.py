"""A picture's thumbnail and its crops share the tokens that are left: hired and globalcom2 differ in how.

A budget per crop depends on the picture, and a graph's shapes must not. So one ranking goes through all crops: first
the best of each crop, up to its budget; then, as budgets are rounded down, the best of those that are over, wherever
they are. With the thumbnail's share in front, exactly K tokens are kept.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.errors import UsageError

if TYPE_CHECKING:
    import torch

    from edgetok.view.site import Site

WITHIN = 8.0  # what a token within its crop's budget is raised by: above every score


def parse_grid(text: str) -> tuple[int, int]:
    """How a picture is cut into crops, "2x3": rows and columns; "" for none.

    Raises:
        UsageError: no grid.
    """
    match = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", text)
    if match is None and text:
        raise UsageError(f"option grid={text!r}: accepted are the rows and columns of crops, such as 2x2 or 1x3")
    return (int(match[1]), int(match[2])) if match else (0, 0)


def pictures(grid: str) -> int:
    """The thumbnail and its crops."""
    rows, columns = parse_grid(grid)
    return 1 + rows * columns


def under(side: int, grid: str) -> np.ndarray:
    """(side * side, crops) fp32: 1 where the middle of a patch of the thumbnail lies in a crop."""
    rows, columns = parse_grid(grid)
    middle = np.arange(side) * 2 + 1  # in half patches
    crop = (middle * rows // (2 * side))[:, None] * columns + middle * columns // (2 * side)
    return (crop.reshape(-1, 1) == np.arange(rows * columns)).astype(np.float32)


def join(site: Site, first: ir.Value, share: int, scores: ir.Value, budgets: ir.Value) -> ir.Value:
    """(1, P * N) all tokens: those that stay by their places, then those that go.

    Args:
        site: of the tokens of P pictures, N each, in one row.
        first: (1, N) fp32 scores of the thumbnail.
        share: how many of its tokens stay.
        scores: (P - 1, N) fp32 of the crops.
        budgets: (P - 1, 1) fp32, whole numbers.
    """
    op, kept, patches = site.op, site.tokens - site.count, site.tokens // site.crops
    best, places = op.TopK(scores, np.array([patches]), axis=1, outputs=2)
    within = op.Less(np.arange(patches, dtype=np.float32)[None], budgets)
    raised = op.Add(best, op.Mul(op.Cast(within, to=ir.DataType.FLOAT), np.float32(WITHIN)))
    places = op.Add(places, patches * np.arange(1, site.crops)[:, None])
    raised, places = (op.Reshape(value, np.array([1, -1])) for value in (raised, places))
    places = op.GatherElements(places, site.ranked(raised, site.tokens - patches), axis=1)
    thumbnail = site.ranked(first, patches)
    stay = op.Concat(site.part(thumbnail, 0, share), site.part(places, 0, kept - share), axis=1)
    order: ir.Value = op.Concat(
        site.in_order(stay, kept), site.part(thumbnail, share), site.part(places, kept - share), axis=1
    )
    return order


def join_reference(
    first: torch.Tensor, share: int, scores: torch.Tensor, budgets: torch.Tensor, kept: int
) -> torch.Tensor:
    """The same in PyTorch; `kept` counts the tokens that stay."""
    import torch

    crops, patches = scores.shape
    places = scores.argsort(dim=1, descending=True, stable=True)
    raised = scores.gather(1, places) + WITHIN * (torch.arange(patches) < budgets)
    places = (places + patches * torch.arange(1, crops + 1)[:, None]).flatten()
    places = places[raised.flatten().argsort(descending=True, stable=True)]
    thumbnail = first[0].argsort(descending=True, stable=True)
    stay = torch.cat([thumbnail[:share], places[: kept - share]]).sort().values
    return torch.cat([stay, thumbnail[share:], places[kept - share :]])[None]
