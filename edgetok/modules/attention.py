"""Attention over heads, in the one form that capture makes an `Attention` node of."""

from __future__ import annotations

import torch
from torch.nn import functional


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """(B, N, C) and twice (B, M, C) -> (B, N, C)

    Args:
        query: heads side by side in C, as keys and values.
        key: of what is attended to.
        value: of the same.
        heads: how many.
        mask: (N, M) bool, true where a token sees another; None: everywhere.
        scale: of the products; None: one over the root of a head's width.
    """
    q, k, v = (torch.unflatten(x, 2, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return y.transpose(1, 2).flatten(2)
