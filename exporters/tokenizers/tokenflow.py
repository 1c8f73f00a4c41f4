"""tokenflow: one id for meaning and looks, scale after scale.

TokenFlow: Unified Image Tokenizer for Multimodal Understanding and Generation, https://arxiv.org/abs/2412.03069. The
model is edgetok/modules/tokenflow.py, whose docstring says what differs from the published code.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from edgetok.exporters.tokenizers._directions import Decode, Encode, square
from edgetok.modules.tokenflow import TokenFlow
from edgetok.tokenizer.family import Family, Parts
from edgetok.tokenizer.head import Layout
from edgetok.tokenizer.near_ties import Search
from edgetok.tokenizer.picture import Picture


def parts(model: TokenFlow, length: int | None, size: tuple[int, int] | None) -> Parts:
    """The two directions; pictures have one size."""
    config = model.config
    return Parts(
        encode=Encode(model),
        decode=Decode(model, "picture"),
        shape=(3, config.image, config.image),
        layout=Layout(config.semantic + config.pixel, (config.codes,)),
        signal=Picture(preprocess=square(config.image, 0.5, 0.5)),
        free_tokens=True,
        most_tokens=sum(side**2 for side in config.scales),
        keep="tokens",
    )


def searches(encode: Encode, signal: torch.Tensor, ids: torch.Tensor) -> Iterator[Search]:
    """Scale by scale, of what the ids before leave over."""
    model = encode.model
    left, sizes = model.features(signal), model.config.scales
    for k, found in enumerate(torch.split(ids, [size**2 for size in sizes], dim=1)):
        near = model.quantize.unit(model.coarser[k](left).flatten(2).mT)
        yield Search(near, model.quantize.rows(), found)
        left = left - model.finer[k](model.quantize(found).mT.unflatten(2, (sizes[k],) * 2))


FAMILY = Family("TokenFlow: one id for meaning and looks, scale after scale", ("TokenFlow",), parts, searches)
