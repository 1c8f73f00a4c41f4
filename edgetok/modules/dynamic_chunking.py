"""H-Net's dynamic chunking: bytes become chunks where neighbours differ, and chunks bytes again.

Dynamic Chunking for End-to-End Hierarchical Sequence Modeling, https://arxiv.org/abs/2507.07955, section 2.2; published
code: hnet/modules/dc.py of goombalab/hnet (MIT).

A byte begins a chunk with the probability (1 - cosine of its key with the query before it) / 2, above a half. What
differs: chunks are packed to the front of a row that stays as long as it was, so that shapes do not depend on the
input. The published code smooths chunks by Mamba-2's kernel, whose recurrence e_j = (1 - P_j) e_(j-1) + P_j z_j is here
a product with the matrix of its decays; it is causal, and needs no more than CumSum, Exp and MatMul.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edgetok.modules.packing import packed_order

LEAST = 1e-4  # of a chunk's probability, and of what is left of 1


class Router(nn.Module):
    """hidden (B, N, C), mask (B, N) bool -> probability (B, N) of a chunk's beginning, and boundary (B, N) bool

    Args:
        width: C.
    """

    def __init__(self, width: int):
        super().__init__()
        self.q_proj_layer, self.k_proj_layer = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        with torch.no_grad():
            self.q_proj_layer.weight.copy_(torch.eye(width))
            self.k_proj_layer.weight.copy_(torch.eye(width))

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        query = functional.normalize(self.q_proj_layer(hidden[:, :-1]), dim=-1)
        key = functional.normalize(self.k_proj_layer(hidden[:, 1:]), dim=-1)
        apart = ((1 - (query * key).sum(dim=-1)) / 2).clamp(0, 1)
        probability = functional.pad(apart, (1, 0), value=1.0)
        return {"probability": probability, "boundary": (probability > 0.5) & mask}


class Chunk(nn.Module):
    """hidden (B, N, C), boundary (B, N) -> chunks (B, N, C) packed to the front, and mask (B, N) bool of them"""

    def forward(self, hidden: torch.Tensor, boundary: torch.Tensor) -> dict[str, torch.Tensor]:
        place = torch.arange(hidden.shape[1])
        order = packed_order(boundary)
        chunks = hidden.gather(1, order[..., None].expand_as(hidden))
        return {"chunks": chunks, "mask": place < boundary.sum(dim=1, keepdim=True)}


class Dechunk(nn.Module):
    """chunks (B, N, C), probability, boundary (B, N) -> (B, N, C): each byte its chunk, smoothed over those before"""

    def forward(self, chunks: torch.Tensor, probability: torch.Tensor, boundary: torch.Tensor) -> torch.Tensor:
        place = torch.arange(chunks.shape[1])
        order = packed_order(boundary)
        share = probability.gather(1, order).clamp(LEAST, 1 - LEAST)  # (B, N), of each chunk
        decay = torch.log1p(-share).cumsum(dim=1)
        since = decay[:, :, None] - decay[:, None]  # (B, N, N): the logarithm of what is left of chunk i at chunk j
        before = place[:, None] >= place
        weight = torch.where(before, since, -torch.inf).exp() * share[:, None]
        smooth = weight @ chunks
        own = (boundary.long().cumsum(dim=1) - 1).clamp(min=0)  # (B, N): the chunk of each byte
        return smooth.gather(1, own[..., None].expand_as(chunks))
