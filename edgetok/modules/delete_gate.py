"""MrT5's gate: bytes that the first layers have understood are deleted.

MrT5: Dynamic Token Merging for Efficient Byte-level Language Models (ICLR 2025), https://arxiv.org/abs/2410.20771,
section 3; published code: models/modeling_mrt5.py of jkallini/mrt5 (Apache-2.0).

A gate of 0 keeps a token, one of `scale` (-30; the published configuration's default is -10) deletes it. While
training, the gate is added to the scores of its key (soft); afterwards tokens at `threshold`, half of that, or below
are taken out (hard). What differs: the tokens that are left are packed to the front of a row that stays as long as it
was, so that shapes do not depend on the input; the mask bars the rest. A row of which nothing is left keeps its first
token.
"""

from __future__ import annotations

import torch
from torch import nn

from edgetok.modules.packing import packed_order

BARRED = -1e9


class DeleteGate(nn.Module):
    """hidden (B, N, C), ids (B, N), 0 for padding -> gate (B, N, 1), `scale` to 0

    Args:
        width: C.
        scale: of a gate that deletes.
        epsilon: of the norm in front.
    """

    def __init__(self, width: int, scale: float = -30.0, epsilon: float = 1e-6):
        super().__init__()
        self.scale, self.epsilon = scale, epsilon
        self.layer_norm = nn.Parameter(torch.ones(width))
        self.feed_forward = nn.Linear(width, 1)
        nn.init.ones_(self.feed_forward.bias)

    def forward(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        size = hidden.square().mean(dim=-1, keepdim=True)
        logits = self.feed_forward(hidden * (size + self.epsilon).rsqrt() * self.layer_norm)
        return torch.where(ids[..., None] == 0, self.scale, self.scale * torch.sigmoid(-logits))


class Deletion(nn.Module):
    """hidden (B, N, C), gate (B, N, 1) -> tokens (B, N, C) packed to the front, places (B, N), mask (B, N, 1) to add

    Args:
        threshold: gates above it keep their token.
    """

    def __init__(self, threshold: float = -15.0):
        super().__init__()
        self.threshold = threshold

    def forward(self, hidden: torch.Tensor, gate: torch.Tensor) -> dict[str, torch.Tensor]:
        kept = gate[..., 0] > self.threshold
        place = torch.arange(hidden.shape[1])
        order = packed_order(kept)
        count = kept.sum(dim=1, keepdim=True).clamp(min=1)
        left = place < count
        tokens = hidden.gather(1, order[..., None].expand_as(hidden))
        mask = torch.where(left, 0.0, BARRED)[..., None]
        return {"tokens": tokens, "places": torch.where(left, order, 0), "mask": mask}
