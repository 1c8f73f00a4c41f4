"""vq_image: the convolutional VQ tokenizers of Chameleon, Janus and Emu3, as transformers has them.

Chameleon, https://arxiv.org/abs/2405.09818, section 2.1 (Make-A-Scene's tokenizer; transformers holds no decoder);
Janus, https://arxiv.org/abs/2410.13848 (LlamaGen's, https://arxiv.org/abs/2406.06525, section 3.1); Emu3,
https://arxiv.org/abs/2409.18869, section 2.2, here for single pictures. All are VQGANs, https://arxiv.org/abs/2012.09841.

What differs: pictures have one size, which is a multiple of a token's pixels; Emu3's are not cropped to sizes that are
an input, because that does not export. Constants of the preprocessing are those of transformers' image processors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgetok.errors import SourceError
from edgetok.preprocess.image import ImagePreprocess
from edgetok.tokenizer.family import Family, Parts
from edgetok.tokenizer.head import Layout
from edgetok.tokenizer.near_ties import Search, heard
from edgetok.tokenizer.picture import Picture

CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
PROCESSING: dict[str, dict[str, Any]] = {
    "ChameleonVQVAE": {
        "scale": 0.0078, "mean": (1.0, 1.0, 1.0), "std": (1.0, 1.0, 1.0), "resample": "lanczos", "fit": "cover",
    },
    "JanusVQVAE": {**CLIP, "resample": "bicubic", "fit": "contain"},
    "Emu3VQVAE": {**CLIP, "resample": "bicubic", "fit": "squash"},
}  # fmt: skip


class Encode(nn.Module):
    """picture (B, 3, H, W) -> ids (B, N) in raster order"""

    def __init__(self, model: Any):
        super().__init__()
        self.encoder, self.quant_conv, self.quantize = model.encoder, model.quant_conv, model.quantize
        self.frames = getattr(model.config, "temporal_downsample_factor", None)

    def forward(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.frames is None:
            return {"ids": self.quantize(self.quant_conv(self.encoder(picture)))[2].reshape(picture.shape[0], -1)}
        hidden = self.encoder(picture[:, None].repeat(1, self.frames, 1, 1, 1))  # a video of one picture
        return {"ids": self.quantize(self.quant_conv(hidden.transpose(1, 2)).transpose(1, 2)).flatten(1)}


class Decode(nn.Module):
    """ids (B, N) -> picture (B, 3, H, W)

    Args:
        model: a Janus'.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"picture": self.model.decode(ids)}


class DecodeFirstFrame(nn.Module):
    """ids (B, N) -> picture (B, 3, H, W), the first of the frames that an Emu3 makes of one frame of tokens.

    transformers decodes all of them and gives out the first; behind the layers over time each frame goes its own way,
    so here the others end there. What goes through those layers is not joined along the batch, which torch would fix.

    Args:
        model: an Emu3's.
        grid: rows and columns of tokens.
    """

    def __init__(self, model: Any, grid: tuple[int, int]):
        super().__init__()
        self.embedding, self.post, self.decoder = model.quantize.embedding, model.post_quant_conv, model.decoder
        self.grid = grid

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        codes = self.embedding(ids.unflatten(1, self.grid)).movedim(3, 1)[:, :, None]  # (B, D, 1, rows, columns)
        x, codes = self._first(self.post(codes)), self._first(codes)
        x = self.decoder.middle_block(self.decoder.conv_in(x), codes)
        x = self.decoder.norm_out(self.decoder.up_block(x, codes), codes)
        return {"picture": self.decoder.conv_out(functional.silu(x))}

    def _first(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 1, rows, columns) -> (B, C, rows, columns)"""
        for layer in self.decoder.time_res_stack:
            x = layer(x)
        for layer in self.decoder.time_conv:
            x = functional.silu(layer(x))
        return x[:, :, 0]


def parts(model: Any, length: int | None, size: tuple[int, int] | None) -> Parts:
    """The two directions, at the asked-for size or the usual one.

    Raises:
        SourceError: a size that is no multiple of a token's pixels, or none that a Janus decodes.
    """
    config, name = model.config, type(model).__name__
    pixels = 2 ** (len(config.channel_multiplier) - 1)
    usual = getattr(config, "num_patches", 512 // pixels) * pixels
    height, width = size or (usual, usual)
    if height % pixels or width % pixels or (name == "JanusVQVAE" and (height, width) != (usual, usual)):
        only = f"{usual}x{usual}" if name == "JanusVQVAE" else f"multiples of {pixels}"
        raise SourceError(f"pictures of {height}x{width}: {name} takes {only}")
    decode: nn.Module | None = None if name == "ChameleonVQVAE" else Decode(model)
    if name == "Emu3VQVAE":
        decode = DecodeFirstFrame(model, (height // pixels, width // pixels))
    preprocess = ImagePreprocess(size=(height, width), box=(height, width), **PROCESSING[name])
    return Parts(
        encode=Encode(model),
        decode=decode,
        shape=(3, height, width),
        layout=Layout(config.embed_dim, (getattr(config, "num_embeddings", None) or config.codebook_size,)),
        signal=Picture(preprocess=preprocess),
    )


def searches(encode: Encode, signal: torch.Tensor, ids: torch.Tensor) -> Iterator[Search]:
    """Of a picture's places in raster order."""
    x = heard(encode, "quant_conv", signal).movedim(1, -1).flatten(1, -2)
    yield Search(x, encode.quantize.embedding.weight, ids)


FAMILY = Family("VQGANs of Chameleon, Janus and Emu3", tuple(PROCESSING), parts, searches)
