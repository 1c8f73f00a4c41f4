"""FlexTok: registers that are learnt in order of importance, and a flow that makes a picture of any number of them.

FlexTok: Resampling Images into 1D Token Sequences of Flexible Length, https://arxiv.org/abs/2502.13967, section 3;
published code: apple/ml-flextok (Apple sample code licence). Blocks have that code's names of weights. How it wires
them is told by configuration files beside its weights, which are in no package registry: so the wiring here follows the
paper and the modules, and whether the published weights fit could not be tried.

Encoder: patches and K learnt registers; patches see patches, a register sees the patches and the registers up to it.
Registers become a few channels each, rounded to levels. Decoder: tokens beyond those that were kept are replaced by a
learnt mask token; noised patches and tokens see each other, and what comes out in the patches' places is a velocity,
given the time. A picture is what `steps` steps of that velocity make of noise.

What differs: the noise is drawn once and is part of the model, so that the same ids give the same picture and the
decoder is one graph: `steps` times its blocks, with the same weights. There is no guidance: the published pipeline's
scale is 1 unless it is told another, which takes a second velocity at each step. What is coded are the `channels` of
any map: 3 are pixels; the published models code the 16 channels of a VAE, which is not part of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import nn
from torch.nn import functional

from edgetok.errors import UsageError
from edgetok.modules.attention import attend
from edgetok.modules.levels import Levels

FREQUENCIES = 256  # that a time is written in


@dataclass(frozen=True)
class FlexTokConfig:
    """What a FlexTok is made of; the defaults are d18-d28's.

    Attributes:
        channels: of the map.
        size: its height and width.
        patch: height and width of a patch.
        tokens: K, the registers.
        levels: of each channel of a token.
        encoder_width: channels of the encoder.
        encoder_layers: its blocks.
        decoder_width: channels of the decoder.
        decoder_layers: its blocks.
        head: channels of a head.
        steps: of the flow.
        seed: of the noise that the flow begins with.
    """

    channels: int = 16
    size: int = 32
    patch: int = 2
    tokens: int = 256
    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    encoder_width: int = 1152
    encoder_layers: int = 18
    decoder_width: int = 1792
    decoder_layers: int = 28
    head: int = 64
    steps: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.patch < 1 or self.size % self.patch:
            raise UsageError(f"size={self.size}: accepted is a multiple of patch={self.patch}")
        for name in ("encoder_width", "decoder_width"):
            if self.head < 1 or getattr(self, name) % self.head or getattr(self, name) % 4:
                raise UsageError(f"{name}={getattr(self, name)}: accepted is a multiple of 4 and of head={self.head}")
        if min(self.tokens, self.steps) < 1:
            raise UsageError(f"tokens={self.tokens}, steps={self.steps}: accepted are numbers from 1 up")

    @property
    def grid(self) -> int:
        """Patches in a row, and in a column."""
        return self.size // self.patch


class FlexTok(nn.Module):
    """Maps (B, channels, size, size) with values about -1 to 1 -> ids (B, K) int64; the first k of these -> maps."""

    noise: torch.Tensor

    def __init__(self, config: FlexTokConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.regularizer = Levels(config.levels)
        self.decoder = Decoder(config)
        shape = (1, config.channels, config.size, config.size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(config.seed))
        self.register_buffer("noise", noise, persistent=False)

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        """(B, channels, size, size) -> (B, K)"""
        return self.regularizer.nearest(self.encoder(picture))

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, k), 1 <= k <= K -> (B, channels, size, size), not clamped."""
        x, steps = self.noise.expand(ids.shape[0], -1, -1, -1), self.config.steps
        codes = self.regularizer(ids)
        for step in range(steps, 0, -1):
            time = torch.full((1,), step / steps, dtype=x.dtype)
            x = x - self.decoder(x, time, codes) / steps
        return x

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """There and back."""
        return self.decode(self.encode(picture))


class Encoder(nn.Module):
    """(B, channels, size, size) -> (B, K, D)"""

    places: torch.Tensor
    sees: torch.Tensor

    def __init__(self, config: FlexTokConfig):
        super().__init__()
        width, patches = config.encoder_width, config.grid**2
        self.patch = config.patch
        self.patch_proj = nn.Linear(config.channels * config.patch**2, width)
        self.register_buffer("places", _places(config.grid, width), persistent=False)
        self.registers = nn.Parameter(torch.randn(config.tokens, width) * 0.02)
        place = torch.arange(patches + config.tokens)
        sees = (place[None] < patches) | (place[None] <= place[:, None])  # patches come first
        self.register_buffer("sees", sees, persistent=False)
        self.blocks = nn.ModuleList(Block(width, config.head) for _ in range(config.encoder_layers))
        self.proj = nn.Linear(width, len(config.levels))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        patches = self.patch_proj(_patches(picture, self.patch)) + self.places
        x = torch.cat([patches, self.registers.expand(picture.shape[0], -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x, self.sees)
        return self.proj(_norm(x[:, patches.shape[1] :]))


class Decoder(nn.Module):
    """(B, channels, size, size), times (B,) or (1,), and codes (B, k, D) -> (B, channels, size, size)"""

    places: torch.Tensor

    def __init__(self, config: FlexTokConfig):
        super().__init__()
        width = config.decoder_width
        self.patch, self.grid = config.patch, config.grid
        self.patch_proj = nn.Linear(config.channels * config.patch**2, width)
        self.register_buffer("places", _places(config.grid, width), persistent=False)
        self.embed = nn.Linear(len(config.levels), width)
        self.dropout_mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.registers = nn.Parameter(torch.randn(config.tokens, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(TimedBlock(width, config.head) for _ in range(config.decoder_layers))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.proj = nn.Linear(width, config.channels * config.patch**2)

    def forward(self, noised: torch.Tensor, time: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        patches = self.patch_proj(_patches(noised, self.patch)) + self.places
        dropped = self.dropout_mask_token.expand(codes.shape[0], self.registers.shape[0] - codes.shape[1], -1)
        tokens = torch.cat([self.embed(codes), dropped], dim=1) + self.registers
        time = self.time(_frequencies(time))
        x = torch.cat([patches, tokens], dim=1)
        for block in self.blocks:
            x = block(x, time, self.grid**2)
        shift, scale = self.adaLN_modulation(time)[:, None].chunk(2, dim=-1)
        return self._map(self.proj(_norm(x[:, : self.grid**2]) * (1 + scale) + shift))

    def _map(self, patches: torch.Tensor) -> torch.Tensor:
        """(B, patches, patch * patch * channels) -> (B, channels, size, size)"""
        channels = patches.shape[2] // self.patch**2
        x = patches.reshape(-1, self.grid, self.grid, self.patch, self.patch, channels)
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class Block(nn.Module):
    """(B, N, C) -> (B, N, C): attention and a gated MLP, each behind a norm without weights."""

    def __init__(self, width: int, head: int):
        super().__init__()
        self.attn, self.mlp = SelfAttention(width, head), GatedMlp(width)

    def forward(self, x: torch.Tensor, sees: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(_norm(x), sees)
        return x + self.mlp(_norm(x))


class TimedBlock(nn.Module):
    """The same, shifted, scaled and gated by the time, patches (the first ones) and tokens each in their way."""

    def __init__(self, width: int, head: int):
        super().__init__()
        self.attn, self.mlp = SelfAttention(width, head), GatedMlp(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 12 * width))

    def forward(self, x: torch.Tensor, time: torch.Tensor, patches: int) -> torch.Tensor:
        each = self.adaLN_modulation(time).unflatten(1, (2, -1))  # (B, of patches and of tokens, 6 C)
        counts = (patches, x.shape[1] - patches)
        each = torch.cat([each[:, i : i + 1].expand(-1, n, -1) for i, n in enumerate(counts)], dim=1)
        gate1, gate2, shift1, scale1, shift2, scale2 = each.chunk(6, dim=-1)
        x = x + gate1 * self.attn(_norm(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(_norm(x) * (1 + scale2) + shift2)


class SelfAttention(nn.Module):
    """(B, N, C) -> (B, N, C): queries and keys are normalised head by head."""

    def __init__(self, width: int, head: int):
        super().__init__()
        self.head = head
        self.wq, self.wk, self.wv, self.proj = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: torch.Tensor, sees: torch.Tensor | None = None) -> torch.Tensor:
        heads = x.shape[2] // self.head
        query, key = (_norm(w(x).unflatten(2, (heads, -1))).flatten(2) for w in (self.wq, self.wk))
        return self.proj(attend(query, key, self.wv(x), heads, sees, scale=8 / self.head))  # muP's scale


class GatedMlp(nn.Module):
    """(B, N, C) -> (B, N, C)"""

    def __init__(self, width: int):
        super().__init__()
        hidden = int(2 * 4 * width / 3)
        self.fc1, self.fc3 = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.silu(self.fc1(x)) * self.fc3(x))


def _norm(x: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:])


def _patches(x: torch.Tensor, patch: int) -> torch.Tensor:
    """(B, channels, H, W) -> (B, patches, patch * patch * channels)"""
    _, channels, height, width = x.shape
    x = x.reshape(-1, channels, height // patch, patch, width // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def _frequencies(time: torch.Tensor) -> torch.Tensor:
    """(B,) from 0 to 1 -> (B, FREQUENCIES): cosines, then sines."""
    half = FREQUENCIES // 2
    slower = 1000 * torch.exp(-log(256) * torch.arange(half, dtype=time.dtype) / half)
    angle = time[:, None] * slower
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def _places(grid: int, width: int) -> torch.Tensor:
    """(1, patches, C): sines and cosines of the row, then of the column, a quarter of C each."""
    quarter = width // 4
    angle = torch.arange(grid)[:, None] * 10000.0 ** -(torch.arange(quarter) / quarter)
    waves = torch.cat([angle.sin(), angle.cos()], dim=1)  # (grid, C / 2)
    first, second = waves[:, None].expand(-1, grid, -1), waves[None].expand(grid, -1, -1)
    return torch.cat([first, second], dim=2).flatten(0, 1)[None]
