"""flextok: registers of a picture, the first of which suffice.

FlexTok: Resampling Images into 1D Token Sequences of Flexible Length, https://arxiv.org/abs/2502.13967. The model is
edgetok/modules/flextok.py, whose docstring says what differs from the published code. Only one that codes pixels
(channels=3) is a tokenizer of files: the published ones code what a VAE makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch

from edgetok.errors import SourceError
from edgetok.exporters.tokenizers._directions import Decode, Encode, square
from edgetok.modules.flextok import FlexTok
from edgetok.tokenizer.family import Family, Parts
from edgetok.tokenizer.head import Layout
from edgetok.tokenizer.near_ties import Search, heard, levels, scalar
from edgetok.tokenizer.picture import Picture


def parts(model: FlexTok, length: int | None, size: tuple[int, int] | None) -> Parts:
    """The two directions; pictures have one size.

    Raises:
        SourceError: it codes something else than pixels.
    """
    config = model.config
    if config.channels != 3:
        raise SourceError(
            f"a FlexTok of {config.channels} channels codes a VAE's maps, not pixels: export its encode and decode as "
            "modules of your own, behind and before that VAE"
        )
    return Parts(
        encode=Encode(model),
        decode=Decode(model, "picture"),
        shape=(3, config.size, config.size),
        layout=Layout(len(config.levels), (prod(config.levels),)),
        signal=Picture(preprocess=square(config.size, 0.5, 0.5)),
        free_tokens=True,
        most_tokens=config.tokens,
        keep="tokens",
    )


def searches(encode: Encode, signal: torch.Tensor, ids: torch.Tensor) -> Iterator[Search]:
    """A level in each channel."""
    sizes = encode.model.regularizer.levels
    return levels(scalar(heard(encode, "model.encoder", signal), sizes), ids, sizes)


FAMILY = Family("FlexTok: registers of a picture, the first of which suffice", ("FlexTok",), parts, searches)
