"""dac: convolutions with periodic activations, and residual codebooks that are searched in few dimensions.

High-Fidelity Audio Compression with Improved RVQGAN, https://arxiv.org/abs/2306.06546. Published code:
descriptinc/descript-audio-codec (MIT); transformers' DacModel, which is the source here.

What differs: ids are (B, N, L), where both have (B, L, N). The waveform is filled up with zeros to a whole token,
which the authors' `preprocess` and transformers' feature extractor do outside of the model. An id of -1 is a level that
is left out. Strides that are odd give a few samples less than the tokens stand for, in both codes and here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgetok.exporters.tokenizers import _snake
from edgetok.tokenizer.family import Family, Parts
from edgetok.tokenizer.head import Layout
from edgetok.tokenizer.near_ties import Search, heard
from edgetok.tokenizer.waveform import Waveform


class Encode(nn.Module):
    """waveform (B, 1, samples) -> ids (B, N, L)"""

    def __init__(self, model: Any, keep: int):
        super().__init__()
        self.encoder, self.hop = _snake.mended(model.encoder), model.config.hop_length
        self.levels: Any = nn.ModuleList(model.quantizer.quantizers[:keep])

    def forward(self, waveform: torch.Tensor) -> dict[str, torch.Tensor]:
        fill = (self.hop - waveform.shape[2] % self.hop) % self.hop  # no negative operand: ONNX rounds towards zero
        x, ids = self.encoder(functional.pad(waveform, (0, fill))), []
        for level in self.levels:
            codes = functional.normalize(level.codebook.weight, dim=-1)
            near = functional.normalize(level.in_proj(x).mT, dim=-1)
            ids.append(functional.linear(near, codes, codes.square().sum(dim=1) / 2).argmax(dim=-1))
            if len(ids) < len(self.levels):
                x = x - level.out_proj(level.codebook(ids[-1]).mT)
        return {"ids": torch.stack(ids, dim=-1)}


class Decode(nn.Module):
    """ids (B, N, L) -> waveform (B, 1, samples)"""

    def __init__(self, model: Any, keep: int):
        super().__init__()
        self.decoder = _snake.mended(model.decoder)
        self.levels: Any = nn.ModuleList(model.quantizer.quantizers[:keep])

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        made = (ids >= 0)[:, None].to(self.levels[0].codebook.weight.dtype)  # (B, 1, N, L)
        ids = ids.clamp(min=0)
        parts = [level.out_proj(level.codebook(ids[..., k]).mT) * made[..., k] for k, level in enumerate(self.levels)]
        return {"waveform": self.decoder(sum(parts[1:], parts[0]))}


def parts(model: Any, length: int | None, size: tuple[int, int] | None) -> Parts:
    """The two directions of a DacModel, all levels."""
    config = model.config
    levels = len(model.quantizer.quantizers)
    return Parts(
        encode=Encode(model, levels),
        decode=Decode(model, levels),
        shape=(1, length or 40 * config.hop_length),
        layout=Layout(config.hidden_size, (config.codebook_size,) * levels, skips=True),
        signal=Waveform(rate=config.sampling_rate, channels=1),
        free={2: "samples"},
        free_tokens=True,
        keep="levels",
    )


def searches(encode: Encode, signal: torch.Tensor, ids: torch.Tensor) -> Iterator[Search]:
    """What each level sees, and its codebook, both of length 1."""
    x = heard(encode, "encoder", signal)
    for level, found in zip(encode.levels, ids.unbind(dim=-1), strict=True):
        near, codes = level.in_proj(x).mT, level.codebook.weight
        yield Search(functional.normalize(near, dim=-1), functional.normalize(codes, dim=-1), found)
        x = x - level.out_proj(level.codebook(found).mT)


FAMILY = Family("DAC: residual codebooks searched in few dimensions", ("DacModel",), parts, searches)
