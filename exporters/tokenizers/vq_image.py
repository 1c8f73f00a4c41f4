"""vq_image: the convolutional VQ tokenizers of Chameleon, Janus and Emu3, as transformers has them.

Chameleon, https://arxiv.org/abs/2405.09818, section 2.1 (Make-A-Scene's tokenizer; transformers holds no decoder);
Janus, https://arxiv.org/abs/2410.13848 (LlamaGen's, https://arxiv.org/abs/2406.06525, section 3.1); Emu3,
https://arxiv.org/abs/2409.18869, section 2.2, here for single pictures. All are VQGANs, https://arxiv.org/abs/2012.09841.

What differs: pictures have one size, which is a multiple of a token's pixels; Emu3's are not cropped to sizes that are
an input, because that does not export, and its decoder takes one picture at a time. Constants of the preprocessing are
those of transformers' image processors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgetok.errors import SourceError
from edgetok.preprocess.image import ImagePreprocess
from edgetok.tokenizer.family import Family, Parts
from edgetok.tokenizer.head import Layout
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
        model: Janus' or Emu3's.
        grid: rows and columns of tokens.
    """

    def __init__(self, model: Any, grid: tuple[int, int]):
        super().__init__()
        self.model, self.grid = model, grid

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        if hasattr(self.model.config, "temporal_downsample_factor"):
            ids = ids.reshape(-1, *self.grid)
        return {"picture": self.model.decode(ids)}


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
    preprocess = ImagePreprocess(size=(height, width), box=(height, width), **PROCESSING[name])
    return Parts(
        encode=Encode(model),
        decode=None if name == "ChameleonVQVAE" else Decode(model, (height // pixels, width // pixels)),
        shape=(3, height, width),
        layout=Layout(config.embed_dim, (getattr(config, "num_embeddings", None) or config.codebook_size,)),
        signal=Picture(preprocess=preprocess),
    )


FAMILY = Family("VQGANs of Chameleon, Janus and Emu3", tuple(PROCESSING), parts)
