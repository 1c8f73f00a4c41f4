"""Codebooks one behind the other, each for what the ones before left over, as a module of an audio codec.

SoundStream, https://arxiv.org/abs/2107.03312, section III-C; transformers' EncodecModel and MimiModel. What differs:
the nearest code is the one with the largest x . c - |c|^2 / 2, which orders the codes as the distance does, with one
product and no distance matrix beside it. The levels stand last in the ids, and one that is left out is -1.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class ResidualQuantiser(nn.Module):
    """x (B, N, D) <-> ids (B, N, L), int64

    Args:
        codebooks: (L, codes, D).
    """

    def __init__(self, codebooks: torch.Tensor):
        super().__init__()
        self.codebooks = nn.ParameterList(nn.Parameter(codebook.clone()) for codebook in codebooks)
        self.lengths = nn.ParameterList(nn.Parameter(book.square().sum(dim=1) / -2) for book in codebooks)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, N, D) -> ids (B, N, L)"""
        ids: list[torch.Tensor] = []
        for codebook, length in zip(self.codebooks, self.lengths, strict=True):
            ids.append(functional.linear(x, codebook, length).argmax(dim=-1))
            if len(ids) < len(self.codebooks):
                x = x - functional.embedding(ids[-1], codebook)
        return torch.stack(ids, dim=-1)

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """ids (B, N, L) -> x (B, N, D); an id below 0 adds nothing."""
        tables = [functional.pad(codebook, (0, 0, 1, 0)) for codebook in self.codebooks]
        rows = [functional.embedding(ids[..., k].clamp(min=-1) + 1, table) for k, table in enumerate(tables)]
        return sum(rows[1:], rows[0])
