"""TiTok: a picture becomes a handful of tokens that belong to no place in it, and a picture again.

An Image is Worth 32 Tokens for Reconstruction and Generation, https://arxiv.org/abs/2406.07550, section 3.2; published
code: modeling/titok.py of bytedance/1d-tokenizer (Apache-2.0). Names of weights are those of that code, so that
`load_state_dict` takes its safetensors; they are in no package registry, so this was not tried with them.

Latent tokens go through a vision transformer beside the patches, and what comes out in their places is quantised. The
decoder sees these tokens beside a mask token per patch, and tells for each patch how likely each code of a
MaskGIT-VQGAN is; convolutions make pixels of the expected code. Without `legacy` it tells the pixels themselves.

In the models of the paper (L-32, B-64, S-128: `legacy`) what should be a transposition is a reshape, which mixes tokens
with channels; their weights know it so. What differs: a decoded vector is the codebook's row, where that code adds what
was encoded and subtracts it again; loss terms are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from edgetok.errors import UsageError
from edgetok.modules.attention import attend
from edgetok.modules.codebook import Codebook
from edgetok.modules.maskgit_decoder import PixelDecoder


@dataclass(frozen=True)
class Size:
    """Of a transformer."""

    width: int
    layers: int
    heads: int


SMALL, BASE, LARGE = Size(512, 8, 8), Size(768, 12, 12), Size(1024, 24, 16)


@dataclass(frozen=True)
class TiTokConfig:
    """What a TiTok is made of; the defaults are TiTok-L-32.

    Attributes:
        image: height and width of a picture.
        patch: of the encoder's patches, and of the decoder's.
        tokens: K, the latent tokens.
        codes: rows of the codebook.
        token_width: channels of a row.
        unit: whether rows are compared at length one.
        encoder: its size.
        decoder: its size.
        legacy: reshapes in place of transpositions, and decodes by a MaskGIT-VQGAN.
        pixel_codes: rows of the MaskGIT-VQGAN's codebook.
        pixel_width: channels of them.
        pixel_channels: of its convolutions at full resolution.
        pixel_multipliers: of the channels, from the full resolution down to the grid of patches.
    """

    image: int = 256
    patch: int = 16
    tokens: int = 32
    codes: int = 4096
    token_width: int = 12
    unit: bool = True
    encoder: Size = LARGE
    decoder: Size = LARGE
    legacy: bool = True
    pixel_codes: int = 1024
    pixel_width: int = 256
    pixel_channels: int = 128
    pixel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)

    def __post_init__(self) -> None:
        if self.patch < 1 or self.image < self.patch or self.image % self.patch:
            raise UsageError(f"image={self.image}: accepted is a multiple of patch={self.patch}")
        if self.legacy and 2 ** (len(self.pixel_multipliers) - 1) != self.patch:
            raise UsageError(
                f"pixel_multipliers={self.pixel_multipliers}: {len(self.pixel_multipliers)} levels enlarge by "
                f"{2 ** (len(self.pixel_multipliers) - 1)}; the patches are of {self.patch}"
            )
        for name in ("tokens", "codes", "token_width"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: accepted are numbers from 1 up")

    @property
    def grid(self) -> int:
        """Patches in a row, and in a column."""
        return self.image // self.patch


class TiTok(nn.Module):
    """Pictures (B, 3, H, W) with values from 0 to 1 <-> ids (B, K) int64."""

    def __init__(self, config: TiTokConfig):
        super().__init__()
        self.config = config
        self.latent_tokens = nn.Parameter(torch.randn(config.tokens, config.encoder.width) * config.encoder.width**-0.5)
        self.encoder = Encoder(config)
        self.quantize = Codebook(config.codes, config.token_width, config.unit)
        self.decoder = Decoder(config)
        if config.legacy:
            self.pixel_quantize = Codebook(config.pixel_codes, config.pixel_width, unit=False)
            self.pixel_decoder = PixelDecoder(config.pixel_width, config.pixel_channels, config.pixel_multipliers)

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, K)"""
        return self.quantize.nearest(self.encoder(picture, self.latent_tokens))

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, K) -> (B, 3, H, W), not clamped."""
        made = self.decoder(self.quantize(ids))
        if not self.config.legacy:
            return made
        expected = made.softmax(dim=1).movedim(1, 3) @ self.pixel_quantize.embedding.weight  # (B, h, w, pixel_width)
        return self.pixel_decoder(expected.movedim(3, 1))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """There and back."""
        return self.decode(self.encode(picture))


class Encoder(nn.Module):
    """(B, 3, H, W) and the latent tokens (K, C) -> (B, K, token_width)"""

    def __init__(self, config: TiTokConfig):
        super().__init__()
        width = config.encoder.width
        self.legacy = config.legacy
        self.patch_embed = nn.Conv2d(3, width, config.patch, stride=config.patch)
        self.class_embedding = _embedding(1, width)
        self.positional_embedding = _embedding(config.grid**2 + 1, width)
        self.latent_token_positional_embedding = _embedding(config.tokens, width)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.ModuleList(Block(width, config.encoder.heads) for _ in range(config.encoder.layers))
        self.ln_post = nn.LayerNorm(width)
        self.conv_out = nn.Conv2d(width, config.token_width, 1)

    def forward(self, picture: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        batch = picture.shape[0]
        patches = self.patch_embed(picture).flatten(2).mT  # (B, patches, C)
        x = torch.cat([self.class_embedding.expand(batch, 1, -1), patches], dim=1) + self.positional_embedding
        latent = (latent + self.latent_token_positional_embedding).expand(batch, -1, -1)
        x = self.ln_pre(torch.cat([x, latent], dim=1))
        for block in self.transformer:
            x = block(x)
        x = self.ln_post(x[:, -latent.shape[1] :])
        if self.legacy:  # the reshape: (B, K, C) is read as (B, C, K)
            x = x.reshape(batch, x.shape[2], x.shape[1]).mT
        return nn.functional.linear(x, self.conv_out.weight.flatten(1), self.conv_out.bias)


class Decoder(nn.Module):
    """(B, k, token_width), k up to K -> (B, pixel_codes, h, w) logits, or (B, 3, H, W) without `legacy`."""

    def __init__(self, config: TiTokConfig):
        super().__init__()
        width = config.decoder.width
        self.grid, self.patch, self.legacy = config.grid, config.patch, config.legacy
        self.decoder_embed = nn.Linear(config.token_width, width)
        self.class_embedding = _embedding(1, width)
        self.positional_embedding = _embedding(config.grid**2 + 1, width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.latent_token_positional_embedding = _embedding(config.tokens, width)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.ModuleList(Block(width, config.decoder.heads) for _ in range(config.decoder.layers))
        self.ln_post = nn.LayerNorm(width)
        if config.legacy:
            self.ffn = nn.Sequential(
                nn.Conv2d(width, 2 * width, 1), nn.Tanh(), nn.Conv2d(2 * width, config.pixel_codes, 1)
            )
        else:
            self.ffn = nn.Sequential(nn.Conv2d(width, config.patch**2 * 3, 1))
            self.conv_out = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        latent = self.decoder_embed(latent)
        latent = latent + self.latent_token_positional_embedding[: latent.shape[1]]
        masks = torch.cat([self.class_embedding[None], self.mask_token.expand(-1, self.grid**2, -1)], dim=1)
        masks = (masks + self.positional_embedding).expand(latent.shape[0], -1, -1)
        x = self.ln_pre(torch.cat([masks, latent], dim=1))
        for block in self.transformer:
            x = block(x)
        x = self.ln_post(x[:, 1 : 1 + self.grid**2])
        x = self.ffn(x.mT.unflatten(2, (self.grid, self.grid)))
        if self.legacy:
            return x
        x = x.unflatten(1, (self.patch, self.patch, 3)).permute(0, 3, 4, 1, 5, 2)  # (B, 3, h, patch, w, patch)
        return self.conv_out(x.flatten(4, 5).flatten(2, 3))


class Block(nn.Module):
    """(B, N, C) -> (B, N, C): attention and an MLP, each behind a norm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class SelfAttention(nn.Module):
    """With the weights of a torch.nn.MultiheadAttention, which itself exports as many nodes in place of one."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        return self.out_proj(attend(query, key, value, self.heads))


def _embedding(count: int, width: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(count, width) * width**-0.5)
