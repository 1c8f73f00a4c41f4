"""Rows packed to the front: those that stay, in their order, and behind them the others; without a sort."""

from __future__ import annotations

import torch


def packed_order(kept: torch.Tensor) -> torch.Tensor:
    """kept (B, N) bool -> (B, N) int64: which row comes to each place"""
    stay = kept.long()
    front = stay.cumsum(dim=1) - 1
    behind = stay.sum(dim=1, keepdim=True) + (1 - stay).cumsum(dim=1) - 1
    place = torch.arange(kept.shape[1]).expand_as(stay)
    return torch.zeros_like(stay).scatter(1, torch.where(kept, front, behind), place)
