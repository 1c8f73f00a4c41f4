"""encodec: SEANet with an LSTM and residual codebooks, for speech at 24 kHz and for stereo music at 48 kHz.

High Fidelity Neural Audio Compression, https://arxiv.org/abs/2210.13438. Published code: facebookresearch/encodec
(MIT); transformers' EncodecModel, which is the source here.

What differs: the layers are those of edgetok/modules/seanet.py, because transformers' paddings do not export; ids are
(B, N, L), where transformers has (chunks, B, L, N). All levels are made unless fewer are kept, where transformers takes
the lowest of its bandwidths. The model for 48 kHz works on chunks that overlap, each with a scale, (B, 1), of how loud
it is: a graph takes one of them, and edgetok/tokenizer/overlap.py cuts and joins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from edgetok.exporters.tokenizers import _seanet
from edgetok.modules.memory import Memory
from edgetok.modules.residual_quantiser import ResidualQuantiser
from edgetok.modules.seanet import least_tokens
from edgetok.tokenizer.family import Family, Parts, Streams
from edgetok.tokenizer.head import Layout
from edgetok.tokenizer.near_ties import Search, heard, residual
from edgetok.tokenizer.waveform import Waveform


class Encode(nn.Module):
    """waveform (B, channels, samples) -> ids (B, N, L), and scale (B, 1) where the model normalises."""

    def __init__(self, model: Any, keep: int):
        super().__init__()
        self.encoder, self.quantiser = _seanet.chain(model.encoder.layers), _quantiser(model, keep)
        self.normalise = model.config.normalize

    def forward(self, waveform: torch.Tensor) -> dict[str, torch.Tensor]:
        if not self.normalise:
            return {"ids": self.step(waveform)}
        scale = waveform.mean(dim=1).square().mean(dim=1, keepdim=True).sqrt() + 1e-8
        return {"ids": self.step(waveform / scale[:, None]), "scale": scale}

    def step(self, waveform: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        """waveform (B, channels, samples) -> ids (B, N, L), of a chunk of a stream or of the whole."""
        return self.quantiser.encode(self.encoder(waveform, memory).mT)


class Decode(nn.Module):
    """ids (B, N, L), and scale (B, 1) where the model normalises -> waveform (B, channels, samples)"""

    def __init__(self, model: Any, keep: int):
        super().__init__()
        self.decoder, self.quantiser = _seanet.chain(model.decoder.layers), _quantiser(model, keep)

    def forward(self, ids: torch.Tensor, scale: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        waveform = self.step(ids)
        return {"waveform": waveform if scale is None else waveform * scale[:, None]}

    def step(self, ids: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        """ids (B, N, L) -> waveform (B, channels, samples), of a chunk of a stream or of the whole."""
        return self.decoder(self.quantiser.decode(ids).mT, memory)


def _quantiser(model: Any, keep: int) -> ResidualQuantiser:
    return ResidualQuantiser(torch.stack([layer.codebook.embed for layer in model.quantizer.layers[:keep]]))


def parts(model: Any, length: int | None, size: tuple[int, int] | None) -> Parts:
    """The two directions of an EncodecModel, all levels; of one with chunks, for a chunk."""
    config, levels = model.config, len(model.quantizer.layers)
    chunks = config.chunk_length is not None
    encode, decode = Encode(model, levels), Decode(model, levels)
    streams = None
    if config.use_causal_conv and not (chunks or config.normalize):
        least = max(least_tokens(encode.encoder, config.hop_length), least_tokens(decode.decoder, 1))
        streams = Streams(config.hop_length, least)
    return Parts(
        encode=encode,
        decode=decode,
        shape=(config.audio_channels, config.chunk_length if chunks else length or 40 * config.hop_length),
        layout=Layout(config.codebook_dim, (config.codebook_size,) * levels, skips=True),
        signal=Waveform(
            rate=config.sampling_rate, channels=config.audio_channels, length=config.chunk_length,
            stride=config.chunk_stride,
        ),
        free={} if chunks else {2: "samples"},
        free_tokens=not chunks,
        keep="levels",
        streams=streams,
    )  # fmt: skip


def searches(encode: Encode, signal: torch.Tensor, ids: torch.Tensor) -> Iterator[Search]:
    """Level by level."""
    return residual(heard(encode, "encoder", signal).mT, encode.quantiser.codebooks, ids)


FAMILY = Family("EnCodec: SEANet, an LSTM and residual codebooks", ("EncodecModel",), parts, searches)
