"""Bytes to ids and back without a vocabulary, in a graph: ByT5's.

ByT5: Towards a token-free future with pre-trained byte-to-byte models, https://arxiv.org/abs/2105.13626, section 3.1;
transformers' ByT5Tokenizer. An id is a byte plus 3; 0 pads, 1 ends a text, 2 is unknown. What differs: a batch of texts
is padded bytes and their lengths, because a graph reads no strings.
"""

from __future__ import annotations

import torch
from torch import nn

PAD, END, SPECIAL = 0, 1, 3


class ByteIds(nn.Module):
    """bytes (B, N) int64, 0 to 255, and length (B,) -> ids (B, N + 1) int64, each text ended and padded"""

    def forward(self, bytes: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        longer = torch.nn.functional.pad(bytes, (0, 1))
        place = torch.arange(longer.shape[1])
        rest = torch.where(place == length[:, None], END, PAD)
        return torch.where(place < length[:, None], longer + SPECIAL, rest)


class IdBytes(nn.Module):
    """ids (B, N) -> bytes (B, N) int64, and length (B,): what comes before the first id that is no byte"""

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        inside = ((ids >= SPECIAL) & (ids < SPECIAL + 256)).long().cumprod(dim=1)
        return {"bytes": (ids - SPECIAL) * inside, "length": inside.sum(dim=1)}
