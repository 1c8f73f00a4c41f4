"""TokenFlow: one id stands for what a patch means and for how it looks, at one scale after the other.

TokenFlow: Unified Image Tokenizer for Multimodal Understanding and Generation, https://arxiv.org/abs/2412.03069,
section 3.2; published code: tokenflow/tokenizer/vq_model.py of ByteVisionLab/TokenFlow (Apache-2.0), with SigLIP as the
teacher. Names of weights are those of that code (`weights_of` leaves out what decodes the meaning alone); its files are
in no package registry, so this was not tried with them.

SigLIP's last layer but one tells the meaning of each patch, a VQGAN its looks; both are made a few channels, and they
share one id (exporters/heads/dual.py). From the coarsest scale to the finest, what is left of both is averaged to that
scale's grid, quantised there, enlarged, and taken away. A picture is made of the channels of looks, summed over scales.

What differs: resizing is done by constant matrices (resize.py). A quantised vector is the codebooks' row, where that
code adds x and subtracts it again. Ids of the first scales alone decode as well, as in that code; what is missing
counts as zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import embedding, normalize

from edgetok.errors import UsageError
from edgetok.modules import vqgan
from edgetok.modules.resize import Resize


@dataclass(frozen=True)
class TokenFlowConfig:
    """What a TokenFlow is made of; the defaults are TokenFlow-XL's with SigLIP at 384 pixels.

    Attributes:
        image: height and width of a picture, and SigLIP's.
        patch: SigLIP's.
        codes: rows of both codebooks.
        semantic: channels of the meaning.
        pixel: channels of the looks.
        scales: rows and columns of each scale's grid, ending with that of the patches.
        width: of SigLIP.
        layers: of SigLIP.
        heads: of SigLIP.
        hidden: of SigLIP's MLPs.
        z_channels: of the VQGAN's vectors.
        channels: of its convolutions at full resolution.
        multipliers: of the channels, from the full resolution down to the grid.
    """

    image: int = 384
    patch: int = 14
    codes: int = 32768
    semantic: int = 32
    pixel: int = 8
    scales: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 22, 27)
    width: int = 1152
    layers: int = 27
    heads: int = 16
    hidden: int = 4304
    z_channels: int = 256
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)

    def __post_init__(self) -> None:
        if self.scales[-1:] != (self.grid,) or min(self.scales) < 1:
            raise UsageError(f"scales={self.scales}: accepted are sizes that end with the grid of patches, {self.grid}")
        if min(self.codes, self.semantic, self.pixel) < 1 or self.layers < 2:
            raise UsageError(f"{self}: codes, semantic and pixel are numbers from 1 up, layers from 2 up")

    @property
    def grid(self) -> int:
        """Patches in a row, and in a column."""
        return self.image // self.patch

    @property
    def tokens(self) -> int:
        """Of all scales."""
        return sum(size**2 for size in self.scales)


class TokenFlow(nn.Module):
    """Pictures (B, 3, H, W) with values from -1 to 1 <-> ids (B, N) int64: scale after scale, each in raster order."""

    def __init__(self, config: TokenFlowConfig):
        super().__init__()
        self.config = config
        fine = config.grid * 2 ** (len(config.multipliers) - 1)  # pixels that the VQGAN makes the same grid of
        self.encoder_vqkd = _siglip(config)
        self.encode_task_layer = nn.Sequential(
            nn.Linear(config.width, config.width), nn.Tanh(), nn.Linear(config.width, config.semantic)
        )
        self.to_fine, self.from_fine = Resize(config.image, fine, "bicubic"), Resize(fine, config.image, "bicubic")
        self.encoder = vqgan.Encoder(config.z_channels, config.channels, config.multipliers)
        self.quant_conv = nn.Conv2d(config.z_channels, config.pixel, 1)
        self.quantize = SharedCodebook(config.codes, config.semantic, config.pixel)
        self.coarser = nn.ModuleList(Resize(config.grid, size, "area") for size in config.scales)
        self.finer = nn.ModuleList(Resize(size, config.grid, "bicubic") for size in config.scales)
        self.post_quant_conv = nn.Conv2d(config.pixel, config.z_channels, 1)
        self.decoder = vqgan.Decoder(config.z_channels, config.channels, config.multipliers)

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, N)"""
        return self.quantise(self.features(picture))

    def features(self, picture: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, D, grid, grid), meaning and looks"""
        seen = ((picture + 1) * 127.5).clamp(0, 255) / 255  # to the roundings of the published code
        states = self.encoder_vqkd((seen - 0.5) / 0.5, output_hidden_states=True).hidden_states
        meaning = self.encode_task_layer(states[-2]).mT.unflatten(2, (self.config.grid, self.config.grid))
        looks = self.quant_conv(self.encoder(self.to_fine(picture)))
        return torch.cat([meaning, looks], dim=1)

    def quantise(self, x: torch.Tensor) -> torch.Tensor:
        """(B, D, grid, grid), meaning and looks -> ids (B, N)"""
        ids = []
        for coarser, finer, size in zip(self.coarser, self.finer, self.config.scales, strict=True):
            ids.append(self.quantize.nearest(coarser(x).flatten(2).mT))
            x = x - finer(self.quantize(ids[-1]).mT.unflatten(2, (size, size)))
        return torch.cat(ids, dim=1)

    def vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, n), the ids of the first scales or of all -> (B, D, grid, grid)"""
        rows = self.quantize(ids)
        missing = rows.new_zeros(1, 1, 1).expand(ids.shape[0], self.config.tokens - ids.shape[1], rows.shape[2])
        sizes = [size**2 for size in self.config.scales]
        parts = torch.split(torch.cat([rows, missing], dim=1).mT, sizes, dim=2)
        maps = [torch.unflatten(part, 2, (size, size)) for part, size in zip(parts, self.config.scales, strict=True)]
        made = [finer(part) for part, finer in zip(maps, self.finer, strict=True)]
        return sum(made[1:], made[0])

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, n) -> (B, 3, H, W), not clamped."""
        looks = self.vectors(ids)[:, self.config.semantic :]
        return self.from_fine(self.decoder(self.post_quant_conv(looks)))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """There and back."""
        return self.decode(self.encode(picture))


def weights_of(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The published weights without the decoder of the meaning, what counts used codes, and SigLIP's pooling."""
    left_out = ("decoder_vqkd.", "decode_task_layer.", "quantize.codebook_used", "scaling_layer.", "encoder_vqkd.head.")
    return {
        name.replace("encoder_vqkd.vision_model.", "encoder_vqkd."): value
        for name, value in published.items()
        if not name.replace("vision_model.", "").startswith(left_out)
    }


class SharedCodebook(nn.Module):
    """One id for a row of either codebook; lengths count for nothing."""

    def __init__(self, codes: int, semantic: int, pixel: int):
        super().__init__()
        self.widths = [semantic, pixel]
        self.embedding_vqkd, self.embedding_vqgan = nn.Embedding(codes, semantic), nn.Embedding(codes, pixel)

    def rows(self) -> torch.Tensor:
        """(K, D) both, side by side."""
        return torch.cat([normalize(e.weight, dim=-1) for e in (self.embedding_vqkd, self.embedding_vqgan)], dim=1)

    def unit(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D), either half at length one."""
        return torch.cat([normalize(half, dim=-1) for half in torch.split(x, self.widths, dim=-1)], dim=-1)

    def nearest(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N) int64: the least sum of squared distances, so the largest sum of cosines."""
        return (self.unit(x) @ self.rows().mT).argmax(dim=-1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, N) int64 -> (B, N, D)"""
        return embedding(ids, self.rows())


def _siglip(config: TokenFlowConfig) -> nn.Module:
    """transformers' SigLIP without the pooling that it ends with."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=config.width,
            intermediate_size=config.hidden,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            image_size=config.image,
            patch_size=config.patch,
            vision_use_head=False,
        )
    )
