"""WavTokenizer: one id for a frame of speech, 40 or 75 a second, and a decoder that ends in an inverse STFT.

WavTokenizer: an Efficient Acoustic Discrete Codec Tokenizer for Audio Language Modeling (ICLR 2025),
https://arxiv.org/abs/2408.16532, sections 3.1 to 3.3. Published code: jishengpeng/WavTokenizer (MIT), decoder/models.py
and heads.py; the decoder is Vocos, https://arxiv.org/abs/2306.00814, with attention in front.

What differs: the inverse STFT is real arithmetic (edgetok/modules/stft.py); the norms that depend on a bandwidth are
plain ones, because released models use one bandwidth; the SEANet decoder, which the authors build and do not use, is
left out. Attention sees the whole recording, so there are no streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import nn
from torch.nn import functional

from edgetok.modules.lstm import LSTM
from edgetok.modules.residual_quantiser import ResidualQuantiser
from edgetok.modules.seanet import Chain, Conv, Residual
from edgetok.modules.stft import ISTFT


@dataclass(frozen=True)
class Config:
    """Of which size; the defaults are the small model of 75 tokens a second.

    Attributes:
        rate: samples a second.
        filters: channels of the encoder's first layer; each stride doubles them.
        strides: of the encoder, the last one first; their product is a token's samples.
        latent: channels of the codebook.
        codes: its rows.
        width: channels of the decoder.
        inner: channels inside its blocks.
        layers: how many blocks it has.
        groups: of its group norms.
        n_fft: samples of a frame of the inverse STFT.
    """

    rate: int = 24000
    filters: int = 32
    strides: tuple[int, ...] = (8, 5, 4, 2)
    latent: int = 512
    codes: int = 4096
    width: int = 768
    inner: int = 2304
    layers: int = 12
    groups: int = 32
    n_fft: int = 1280

    @property
    def hop(self) -> int:
        """Samples of a token."""
        return prod(self.strides)


class WavTokenizer(nn.Module):
    """waveform (B, 1, samples) -> ids (B, N) -> waveform (B, 1, N hop)"""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.encoder = encoder(config)
        self.quantiser = ResidualQuantiser(torch.randn(1, config.codes, config.latent))
        self.backbone = Backbone(config)
        self.head = Head(config)

    def encode(self, waveform: torch.Tensor) -> torch.Tensor:
        """waveform (B, 1, samples) -> ids (B, N), where N = ceil(samples / hop)"""
        return self.quantiser.encode(self.encoder(waveform).mT)[..., 0]

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """ids (B, N) -> waveform (B, 1, N hop)"""
        return self.head(self.backbone(self.quantiser.decode(ids[..., None]).mT))[:, None]


def encoder(config: Config) -> Chain:
    """SEANet's, not causal: (B, 1, samples) -> (B, latent, N)."""

    def conv(channels: int, out: int, kernel: int, stride: int = 1) -> Conv:
        return Conv(nn.Conv1d(channels, out, kernel, stride), causal=False, mode="reflect")

    width = config.filters
    layers: list[nn.Module] = [conv(1, width, 7)]
    for stride in reversed(config.strides):
        block = Chain(nn.ELU(), conv(width, width // 2, 3), nn.ELU(), conv(width // 2, width, 1))
        layers += [Residual(block, conv(width, width, 1)), nn.ELU(), conv(width, 2 * width, 2 * stride, stride)]
        width *= 2
    return Chain(*layers, LSTM(nn.LSTM(width, width, 2)), nn.ELU(), conv(width, config.latent, 7))


class Backbone(nn.Module):
    """(B, latent, N) -> (B, N, width)"""

    def __init__(self, config: Config):
        super().__init__()
        width, norm = config.width, nn.GroupNorm(config.groups, config.width, eps=1e-6)
        self.embed = nn.Conv1d(config.latent, width, 7, padding=3)
        around = [Resnet(config), Resnet(config), Attention(config), Resnet(config), Resnet(config), norm]
        self.pos_net = nn.Sequential(*around)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.convnext = nn.Sequential(*(ConvNeXt(config) for _ in range(config.layers)))
        self.final_layer_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.pos_net(self.embed(x)).mT)
        return self.final_layer_norm(self.convnext(x))


class Resnet(nn.Module):
    """(B, C, N) -> (B, C, N): two convolutions behind norms and SiLU."""

    def __init__(self, config: Config):
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(config.groups, config.width, eps=1e-6) for _ in range(2))
        self.conv1, self.conv2 = (nn.Conv1d(config.width, config.width, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        return x + self.conv2(functional.silu(self.norm2(h)))


class Attention(nn.Module):
    """(B, C, N) -> (B, C, N): one head over the whole recording."""

    def __init__(self, config: Config):
        super().__init__()
        self.norm = nn.GroupNorm(config.groups, config.width, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv1d(config.width, config.width, 1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        q, k, v = (of(h).mT[:, None] for of in (self.q, self.k, self.v))  # (B, 1, N, C)
        return x + self.proj_out(functional.scaled_dot_product_attention(q, k, v)[:, 0].mT)


class ConvNeXt(nn.Module):
    """(B, N, C) -> (B, N, C): a convolution per channel, then an MLP, scaled."""

    def __init__(self, config: Config):
        super().__init__()
        self.dwconv = nn.Conv1d(config.width, config.width, 7, padding=3, groups=config.width)
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(config.width, config.inner), nn.Linear(config.inner, config.width)
        self.gamma = nn.Parameter(torch.full((config.width,), 1 / config.layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.dwconv(x.mT).mT)
        return x + self.gamma * self.pwconv2(functional.gelu(self.pwconv1(h)))


class Head(nn.Module):
    """(B, N, width) -> (B, N hop): the logarithm of magnitudes, and phases, of N frames of an inverse STFT."""

    def __init__(self, config: Config):
        super().__init__()
        self.out = nn.Linear(config.width, config.n_fft + 2)
        self.istft = ISTFT(config.n_fft, config.hop, ends="same")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logarithm, phase = self.out(x).mT.chunk(2, dim=1)
        magnitude = logarithm.exp().clamp(max=100.0)
        return self.istft(magnitude * phase.cos(), magnitude * phase.sin())
