"""titok: a picture in 32 to 256 tokens that have no place in it.

An Image is Worth 32 Tokens for Reconstruction and Generation, https://arxiv.org/abs/2406.07550. The model is
edgetok/modules/titok.py, whose docstring says what differs from the published code.
"""

from __future__ import annotations

from edgetok.exporters.tokenizers._directions import Decode, Encode, nearest, square
from edgetok.modules.titok import TiTok
from edgetok.tokenizer.family import Family, Parts
from edgetok.tokenizer.head import Layout
from edgetok.tokenizer.picture import Picture


def parts(model: TiTok, length: int | None, size: tuple[int, int] | None) -> Parts:
    """The two directions; pictures have one size."""
    config = model.config
    return Parts(
        encode=Encode(model),
        decode=Decode(model, "picture"),
        shape=(3, config.image, config.image),
        layout=Layout(config.token_width, (config.codes,)),
        signal=Picture(preprocess=square(config.image)),
    )


searches = nearest("model.encoder", "model.quantize")

FAMILY = Family("TiTok: a picture in 32 to 256 tokens without a grid", ("TiTok",), parts, searches)
