"""LARP: a video becomes tokens that are learned queries' answers, in no order of place or time.

LARP: Tokenizing Videos with a Learned Autoregressive Generative Prior (ICLR 2025), https://arxiv.org/abs/2410.21264,
section 3.2; published code: models/larp_tokenizer.py and bottleneck.py of hywang66/LARP (MIT). Names of weights are
those of that code (`weights_of` leaves out what serves its training); its files are in no package registry, so this was
not tried with them.

Patches of a few frames and the queries go through a transformer; what comes out in the queries' places is quantised by
cosine. The decoder sees the tokens, placed by fixed sines and cosines, beside a fixed query per patch.

What differs: that code draws an id by the softmax of cosines unless it is told not to; here it is always the largest,
as a runtime that draws could not repeat it. A decoded vector is the codebook's row, where that code adds what was
encoded and subtracts it again. Norms of blocks add 1e-5, as timm's `Block` did when LARP was trained (from 1.0.16 on
it adds 1e-6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from edgetok.errors import UsageError
from edgetok.modules.attention import attend
from edgetok.modules.codebook import Codebook


@dataclass(frozen=True)
class LarpConfig:
    """What a LARP is made of; the defaults are LARP-L.

    Attributes:
        frames: of a video.
        image: height and width of a frame.
        patch_frames: frames of a patch.
        patch: height and width of a patch.
        tokens: K, the queries.
        codes: rows of the codebook.
        token_width: channels of a row.
        width: channels of the transformers.
        layers: blocks of each.
        heads: of their attention.
    """

    frames: int = 16
    image: int = 128
    patch_frames: int = 4
    patch: int = 8
    tokens: int = 1024
    codes: int = 8192
    token_width: int = 16
    width: int = 768
    layers: int = 12
    heads: int = 12

    def __post_init__(self) -> None:
        if min(self.patch, self.patch_frames) < 1 or self.image % self.patch or self.frames % self.patch_frames:
            raise UsageError(
                f"frames={self.frames}, image={self.image}: accepted are multiples of patch_frames="
                f"{self.patch_frames} and patch={self.patch}"
            )
        if self.width % 4 or self.width % self.heads:
            raise UsageError(f"width={self.width}: accepted is a multiple of 4 and of heads={self.heads}")
        if min(self.tokens, self.codes, self.token_width) < 1:
            raise UsageError(f"{self}: tokens, codes and token_width are numbers from 1 up")

    @property
    def grid(self) -> tuple[int, int]:
        """Patches in time, and in each direction of a frame."""
        return self.frames // self.patch_frames, self.image // self.patch


class Larp(nn.Module):
    """Videos (B, 3, T, H, W) with values from 0 to 1 <-> ids (B, K) int64."""

    encoder_patch_pe: torch.Tensor
    decoder_latent_pe: torch.Tensor
    decoder_patch_query_embed: torch.Tensor

    def __init__(self, config: LarpConfig):
        super().__init__()
        self.config = config
        places = _places(config)
        size = (config.patch_frames, config.patch, config.patch)
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv3d(3, config.width, size, stride=size)})
        self.register_buffer("encoder_patch_pe", places)
        self.encoder_latent_query_embed = nn.Parameter(torch.randn(config.tokens, config.width) * 0.02)
        self.encoder = Transformer(config)
        self.bottleneck = Bottleneck(config)
        self.register_buffer("decoder_latent_pe", _waves(torch.arange(config.tokens), config.width)[None])
        self.register_buffer("decoder_patch_query_embed", places.clone())
        self.decoder_patch_query_token_type_embed = nn.Parameter(torch.randn(1, 1, config.width) * 0.02)
        self.decoder = Transformer(config)
        self.final_layer = nn.Sequential()
        self.final_layer.add_module("norm_final", nn.LayerNorm(config.width, eps=1e-6))
        self.final_layer.add_module("linear", nn.Linear(config.width, config.patch_frames * config.patch**2 * 3))

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, K)"""
        patches = self.x_embedder["proj"](video).flatten(2).mT + self.encoder_patch_pe  # (B, patches, C)
        queries = self.encoder_latent_query_embed.expand(video.shape[0], -1, -1)
        return self.bottleneck.encode(self.encoder(patches, queries))

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, K) -> (B, 3, T, H, W), not clamped."""
        tokens = self.bottleneck.decode(ids) + self.decoder_latent_pe
        queries = self.decoder_patch_query_embed + self.decoder_patch_query_token_type_embed
        x = self.final_layer(self.decoder(tokens, queries.expand(ids.shape[0], -1, -1)))
        (times, side), c = self.config.grid, self.config
        x = x.unflatten(2, (c.patch_frames, c.patch, c.patch, 3)).unflatten(1, (times, side, side))
        x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)  # (B, 3, times, patch_frames, side, patch, side, patch)
        return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        """There and back."""
        return self.decode(self.encode(video))


def weights_of(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The published weights without the prior model, which serves training alone."""
    return {name: value for name, value in published.items() if not name.startswith("prior_model.")}


class Transformer(nn.Module):
    """(B, N, C) and queries (B, M, C) -> (B, M, C)"""

    def __init__(self, config: LarpConfig):
        super().__init__()
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))

    def forward(self, context: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        x = torch.cat([context, queries], dim=1)
        for block in self.blocks:
            x = block(x)
        return x[:, -queries.shape[1] :]


class Block(nn.Module):
    """(B, N, C) -> (B, N, C): attention and an MLP, each behind a norm, with the names of timm's."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = SelfAttention(width, heads), nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(width, 4 * width))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SelfAttention(nn.Module):
    """(B, N, C) -> (B, N, C)"""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        return self.proj(attend(query, key, value, self.heads))


class Bottleneck(nn.Module):
    """(B, K, C) <-> ids (B, K)"""

    def __init__(self, config: LarpConfig):
        super().__init__()
        self.in_linear = nn.Linear(config.width, config.token_width)
        self.out_linear = nn.Linear(config.token_width, config.width)
        self.regularizer = Codebook(config.codes, config.token_width, unit=True)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.regularizer.nearest(self.in_linear(x))

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out_linear(self.regularizer(ids))


def _waves(place: torch.Tensor, width: int) -> torch.Tensor:
    """(N,) -> (N, width) fp32: sines, then cosines, of geometrically slower waves."""
    slower = 10000 ** (torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angle = place[:, None] / slower
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()


def _places(config: LarpConfig) -> torch.Tensor:
    """(1, patches, C): time over all channels, added to column and row, which share them."""
    times, side = config.grid
    time = _waves(torch.arange(times), config.width)[:, None, None]
    half = _waves(torch.arange(side), config.width // 2)
    column = half[None, :, :].expand(side, -1, -1)
    row = half[:, None, :].expand(-1, side, -1)
    return (time + torch.cat([column, row], dim=-1)).flatten(0, 2)[None]
