"""xcodec: what DAC hears and what HuBERT understands, in one stack of residual codebooks.

Codec Does Matter: Exploring the Semantic Shortcoming of Codec for Audio Language Model,
https://arxiv.org/abs/2408.17175. Published code: zhenye234/xcodec (MIT); transformers' XcodecModel, the source here.

What differs: ids are (B, N, L), where transformers has (B, L, N). Whether the waveform is padded by half a token for
the acoustic half, which transformers finds out by comparing lengths as it runs, is decided as the graph is made: its
length is fixed, and a multiple of a token's samples, as transformers' feature extractor makes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgetok.exporters.tokenizers import _snake
from edgetok.modules.residual_quantiser import ResidualQuantiser
from edgetok.tokenizer.family import Family, Parts
from edgetok.tokenizer.head import Layout
from edgetok.tokenizer.near_ties import Search, heard, residual
from edgetok.tokenizer.waveform import Waveform


class Encode(nn.Module):
    """waveform (B, 1, samples) -> ids (B, N, L)"""

    def __init__(self, model: Any, keep: int):
        super().__init__()
        self.semantic, self.semantic_encoder = model.semantic_model, model.encoder_semantic
        self.acoustic, self.join = _snake.mended(model.acoustic_encoder), model.fc
        self.around = (model.config.hop_length // 2,) * 2
        self.quantiser = _quantiser(model, keep)

    def forward(self, waveform: torch.Tensor) -> dict[str, torch.Tensor]:
        states = self.semantic(functional.pad(waveform[:, 0], self.around), output_hidden_states=True).hidden_states
        semantic = self.semantic_encoder(torch.stack(states).mean(dim=0).mT)
        acoustic = self.acoustic(waveform)
        if acoustic.shape[2] != semantic.shape[2]:
            acoustic = self.acoustic(functional.pad(waveform, self.around))
        return {"ids": self.quantiser.encode(self.join(torch.cat([acoustic, semantic], dim=1).mT))}


class Decode(nn.Module):
    """ids (B, N, L) -> waveform (B, 1, samples)"""

    def __init__(self, model: Any, keep: int):
        super().__init__()
        self.quantiser, self.split = _quantiser(model, keep), model.fc2
        self.decoder = _snake.mended(model.acoustic_decoder)

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"waveform": self.decoder(self.split(self.quantiser.decode(ids)).mT)}


def _quantiser(model: Any, keep: int) -> ResidualQuantiser:
    return ResidualQuantiser(torch.stack([layer.codebook.embed for layer in model.quantizer.quantizers[:keep]]))


def parts(model: Any, length: int | None, size: tuple[int, int] | None) -> Parts:
    """The two directions of an XcodecModel, all levels; a recording is cut into pieces of one length."""
    config, levels = model.config, len(model.quantizer.quantizers)
    samples = -(-(length or config.sample_rate) // config.hop_length) * config.hop_length
    return Parts(
        encode=Encode(model, levels),
        decode=Decode(model, levels),
        shape=(1, samples),
        layout=Layout(config.codebook_dim, (config.codebook_size,) * levels, skips=True),
        signal=Waveform(rate=config.sample_rate, channels=1, length=samples),
        free_tokens=True,
        keep="levels",
    )


def searches(encode: Encode, signal: torch.Tensor, ids: torch.Tensor) -> Iterator[Search]:
    """Level by level."""
    return residual(heard(encode, "join", signal), encode.quantiser.codebooks, ids)


FAMILY = Family("X-Codec: what DAC hears and HuBERT understands in one stack", ("XcodecModel",), parts, searches)
