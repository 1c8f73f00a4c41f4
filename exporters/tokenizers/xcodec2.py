"""xcodec2: one id of 65536 for 20 ms of speech, from what a codec hears and what Wav2Vec2-BERT understands.

Llasa: Scaling Train-Time and Inference-Time Compute for Llama-based Speech Synthesis, https://arxiv.org/abs/2502.04128,
section 3.1. Published code: zhenye234/X-Codec-2.0 (MIT); transformers' Xcodec2Model, which is the source here.

What differs: the filter bank that transformers' feature extractor computes on the host is in the graph, and so is the
padding: at least one sample, up to a whole token. The inverse STFT is real arithmetic. The length is fixed, because
Wav2Vec2-BERT ties it down: to a sample less than whole tokens, so that a piece gets no token for the padding alone. Ids
are (B, N), where transformers has (B, 1, N).
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edgetok.modules.filter_bank import FilterBank
from edgetok.modules.stft import ISTFT
from edgetok.tokenizer.family import Family, Parts
from edgetok.tokenizer.head import Layout
from edgetok.tokenizer.near_ties import Search, heard, levels, scalar
from edgetok.tokenizer.waveform import Waveform

PAIR = 2  # frames of the filter bank that Wav2Vec2-BERT takes at once
WIDTH, HOP, N_FFT, BANDS = 400, 160, 512, 80  # of the filter bank, at 16 kHz


class Encode(nn.Module):
    """waveform (B, 1, samples) -> ids (B, N)"""

    def __init__(self, model: Any):
        super().__init__()
        self.semantic, self.adapter = model.semantic_encoder, model.semantic_adapter
        self.acoustic = model.acoustic_encoder
        self.join, self.quantiser = model.fc_encoder, model.quantizer
        self.hop = model.config.hop_length
        self.filters = FilterBank(_bands(model.config.sampling_rate), N_FFT, WIDTH, HOP)
        self.requires_grad_(False)  # with gradients torch.export refuses a view inside of Wav2Vec2-BERT's attention

    def forward(self, waveform: torch.Tensor) -> dict[str, torch.Tensor]:
        x = functional.pad(waveform, (0, self.hop - waveform.shape[2] % self.hop))
        semantic = self.adapter(self.semantic(self._heard(x[:, 0])).last_hidden_state.mT)
        joined = self.join(torch.cat([semantic, self.acoustic(x)], dim=1).mT)
        return {"ids": self.quantiser(joined)[1][..., 0].long()}

    def _heard(self, x: torch.Tensor) -> torch.Tensor:
        """(B, samples) -> (B, N, bands of two frames), each band with mean 0 and variance 1 over time."""
        x = functional.pad(x, (self.hop // 2, self.hop // 2)) * 2.0**15
        bands = self.filters(x)
        bands = (bands - bands.mean(dim=1, keepdim=True)) / (bands.var(dim=1, keepdim=True) + 1e-7).sqrt()
        frames = bands.shape[1] // PAIR * PAIR
        return bands[:, :frames].reshape(x.shape[0], frames // PAIR, -1)


class Decode(nn.Module):
    """ids (B, N) -> waveform (B, 1, N hop)"""

    def __init__(self, model: Any):
        super().__init__()
        self.quantiser, self.decoder = model.quantizer, copy(model.acoustic_decoder)
        self.decoder._modules = dict(self.decoder._modules) | {"head": Head(model.acoustic_decoder.head)}

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"waveform": self.decoder(self.quantiser.from_codes(ids[..., None]))}


class Head(nn.Module):
    """(B, N, C) -> (B, 1, N hop): the inverse STFT of magnitudes and phases, in real arithmetic."""

    def __init__(self, of: Any):
        super().__init__()
        self.linear = of.linear
        self.istft = ISTFT(of.n_fft, of.hop_length, ends="same")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logarithm, phase = self.linear(x).mT.chunk(2, dim=1)
        magnitude = logarithm.exp().clamp(max=100.0)
        return self.istft(magnitude * phase.cos(), magnitude * phase.sin())[:, None]


def _bands(rate: int) -> torch.Tensor:
    """(257, 80): Kaldi's triangles, from 20 Hz up, as transformers' feature extractor makes them."""
    from transformers.audio_utils import mel_filter_bank

    bands = mel_filter_bank(
        N_FFT // 2 + 1, BANDS, 20, rate // 2, rate, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    return torch.from_numpy(bands.astype(np.float32))


def parts(model: Any, length: int | None, size: tuple[int, int] | None) -> Parts:
    """The two directions of an Xcodec2Model; pieces of a recording have one length, at least the one asked for."""
    config = model.config
    samples = ((length or config.sampling_rate) // config.hop_length + 1) * config.hop_length - 1
    return Parts(
        encode=Encode(model),
        decode=Decode(model),
        shape=(1, samples),
        layout=Layout(config.quantization_dim, (prod(config.quantization_levels),)),
        signal=Waveform(rate=config.sampling_rate, channels=1, length=samples),
        free_tokens=True,
    )


def searches(encode: Encode, signal: torch.Tensor, ids: torch.Tensor) -> Iterator[Search]:
    """A level in each channel, which is squeezed twice."""
    of = encode.quantiser
    sizes = of.quantizer.levels.long()
    once = of.quantizer.bound(of.project_in(heard(encode, "join", signal)))
    return levels(scalar(once, sizes), ids, sizes)


FAMILY = Family("X-Codec 2: one id of 65536 for 20 ms of speech", ("Xcodec2Model",), parts, searches)
