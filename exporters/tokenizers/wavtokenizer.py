"""wavtokenizer: one id for a frame of speech, 40 or 75 a second.

WavTokenizer: an Efficient Acoustic Discrete Codec Tokenizer for Audio Language Modeling (ICLR 2025),
https://arxiv.org/abs/2408.16532. transformers has no class for it: the source is a callable that returns a
`edgetok.modules.wavtokenizer.WavTokenizer`, whose docstring says what differs from the published code.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from edgetok.modules.wavtokenizer import WavTokenizer
from edgetok.tokenizer.family import Family, Parts
from edgetok.tokenizer.head import Layout
from edgetok.tokenizer.near_ties import Search, heard, residual
from edgetok.tokenizer.waveform import Waveform


class Encode(nn.Module):
    """waveform (B, 1, samples) -> ids (B, N)"""

    def __init__(self, model: WavTokenizer):
        super().__init__()
        self.model = model

    def forward(self, waveform: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"ids": self.model.encode(waveform)}


class Decode(nn.Module):
    """ids (B, N) -> waveform (B, 1, samples)"""

    def __init__(self, model: WavTokenizer):
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"waveform": self.model.decode(ids)}


def parts(model: WavTokenizer, length: int | None, size: tuple[int, int] | None) -> Parts:
    """The two directions of a WavTokenizer."""
    config = model.config
    return Parts(
        encode=Encode(model),
        decode=Decode(model),
        shape=(1, length or 40 * config.hop),
        layout=Layout(config.latent, (config.codes,)),
        signal=Waveform(rate=config.rate, channels=1),
        free={2: "samples"},
        free_tokens=True,
        keep="tokens",
    )


def searches(encode: Encode, signal: torch.Tensor, ids: torch.Tensor) -> Iterator[Search]:
    """Frame by frame."""
    return residual(heard(encode, "model.encoder", signal).mT, encode.model.quantiser.codebooks, ids[..., None])


FAMILY = Family("WavTokenizer: one id for a frame of speech", ("WavTokenizer",), parts, searches)
