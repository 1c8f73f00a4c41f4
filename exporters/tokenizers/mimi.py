"""mimi: SEANet, a transformer over a window of 10 seconds, and codebooks of which the first holds what is said.

Moshi: a speech-text foundation model for real-time dialogue, https://arxiv.org/abs/2410.00037, section 3.3. Published
code: kyutai-labs/moshi (MIT, weights CC-BY); transformers' MimiModel, which is the source here.

What differs: the layers are those of edgetok/modules/, because transformers' paddings do not export and its masks hold
up streams; ids are (B, N, L), where both have (B, L, N). A recording that is no multiple of a token's samples is padded
layer by layer, as transformers does; moshi pads it with zeros beforehand, and its last id is then another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from edgetok.errors import SourceError
from edgetok.exporters.tokenizers import _seanet
from edgetok.modules.memory import Memory
from edgetok.modules.residual_quantiser import ResidualQuantiser
from edgetok.modules.sliding_transformer import Shape, SlidingTransformer
from edgetok.tokenizer.family import Family, Parts, Streams
from edgetok.tokenizer.head import Layout
from edgetok.tokenizer.near_ties import Search, heard, residual
from edgetok.tokenizer.waveform import Waveform


class Encode(nn.Module):
    """waveform (B, channels, samples) -> ids (B, N, L)"""

    def __init__(self, model: Any, keep: int):
        super().__init__()
        self.encoder = _seanet.chain(model.encoder.encoder_seanet.layers)
        self.transformer = _transformer(model.encoder.encoder_transformer, model.config)
        self.downsample = _seanet.layer(model.encoder.downsample)
        self.quantisers: Any = nn.ModuleList(_quantisers(model.quantizer, keep))

    def forward(self, waveform: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"ids": self.step(waveform)}

    def step(self, waveform: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        """waveform (B, channels, samples) -> ids (B, N, L), of a chunk of a stream or of the whole."""
        x = self.transformer(self.encoder(waveform, memory).mT, memory)
        x = self.downsample(x.mT, memory)
        return torch.cat([quantiser.encode(x) for quantiser in self.quantisers], dim=-1)


class Decode(nn.Module):
    """ids (B, N, L) -> waveform (B, channels, samples)"""

    def __init__(self, model: Any, keep: int):
        super().__init__()
        self.upsample = _seanet.layer(model.decoder.upsample)
        self.transformer = _transformer(model.decoder.decoder_transformer, model.config)
        self.decoder = _seanet.chain(model.decoder.decoder_seanet.layers)
        self.quantisers: Any = nn.ModuleList(_quantisers(model.quantizer, keep))

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"waveform": self.step(ids)}

    def step(self, ids: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        """ids (B, N, L) -> waveform (B, channels, samples), of a chunk of a stream or of the whole."""
        parts = torch.split(ids, [len(of.quantiser.codebooks) for of in self.quantisers], dim=-1)
        latents = [of.decode(part) for of, part in zip(self.quantisers, parts, strict=True)]
        x = self.upsample(sum(latents[1:], latents[0]), memory)
        return self.decoder(self.transformer(x.mT, memory).mT, memory)


class Projected(nn.Module):
    """x (B, C, N) <-> ids (B, N, L): codebooks of fewer channels than the latents have."""

    def __init__(self, of: Any, keep: int):
        super().__init__()
        books = [layer.codebook for layer in of.layers[:keep]]  # their `embed` may be stale: it is computed once
        self.quantiser = ResidualQuantiser(
            torch.stack([book.embed_sum / book.cluster_usage.clamp(min=book.epsilon)[:, None] for book in books])
        )
        self.input_proj, self.output_proj = of.input_proj or nn.Identity(), of.output_proj or nn.Identity()

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.quantiser.encode(self.input_proj(x).mT)

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        return self.output_proj(self.quantiser.decode(ids).mT)


def _quantisers(of: Any, keep: int) -> list[Projected]:
    """The semantic codebooks, and the acoustic ones, which do not see what those left over."""
    semantic = Projected(of.semantic_residual_vector_quantizer, keep)
    rest = keep - of.num_semantic_quantizers
    return [semantic, Projected(of.acoustic_residual_vector_quantizer, rest)] if rest > 0 else [semantic]


def _transformer(of: nn.Module, config: Any) -> SlidingTransformer:
    from transformers.activations import ACT2FN

    if config.rope_parameters["rope_type"] != "default":
        raise SourceError(f"rotary positions of type {config.rope_parameters['rope_type']!r}: accepted is 'default'")
    shape = Shape(
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        head=config.head_dim,
        inner=config.intermediate_size,
        window=config.sliding_window,
        theta=config.rope_parameters["rope_theta"],
        epsilon=config.norm_eps,
        bias=config.attention_bias,
        stride=config.latent_stride,
    )
    transformer = SlidingTransformer(shape, ACT2FN[config.hidden_act])
    transformer.load_state_dict(of.state_dict())
    return transformer


def parts(model: Any, length: int | None, size: tuple[int, int] | None) -> Parts:
    """The two directions of a MimiModel, all levels."""
    config = model.config
    levels, hop = config.num_quantizers, round(config.sampling_rate / config.frame_rate)
    return Parts(
        encode=Encode(model, levels),
        decode=Decode(model, levels),
        shape=(1, length or 20 * hop),
        layout=Layout(config.codebook_dim, (config.codebook_size,) * levels, skips=True),
        signal=Waveform(rate=config.sampling_rate, channels=1),
        free={2: "samples"},
        free_tokens=True,
        keep="levels",
        streams=Streams(hop),
    )


def searches(encode: Encode, signal: torch.Tensor, ids: torch.Tensor) -> Iterator[Search]:
    """Level by level, in each of the two stacks."""
    x, stacks = heard(encode, "downsample", signal), list(encode.quantisers)
    of_each = torch.split(ids, [len(of.quantiser.codebooks) for of in stacks], dim=-1)
    for of, found in zip(stacks, of_each, strict=True):
        yield from residual(of.input_proj(x).mT, of.quantiser.codebooks, found)


FAMILY = Family(
    "Mimi: SEANet, a sliding transformer, one semantic codebook and acoustic ones", ("MimiModel",), parts, searches
)
