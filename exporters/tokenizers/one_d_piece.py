"""one_d_piece: a picture in 256 tokens, of which the first ones suffice.

One-D-Piece: Image Tokenizer Meets Quality-Controllable Compression, https://arxiv.org/abs/2501.10064. The model is
edgetok/modules/one_d_piece.py.
"""

from __future__ import annotations

from edgetok.exporters.tokenizers._directions import Decode, Encode, nearest, square
from edgetok.modules.one_d_piece import OneDPiece
from edgetok.tokenizer.family import Family, Parts
from edgetok.tokenizer.head import Layout
from edgetok.tokenizer.picture import Picture


def parts(model: OneDPiece, length: int | None, size: tuple[int, int] | None) -> Parts:
    """The two directions; pictures have one size."""
    config = model.config
    return Parts(
        encode=Encode(model),
        decode=Decode(model, "picture"),
        shape=(3, config.image, config.image),
        layout=Layout(config.token_width, (config.codes,)),
        signal=Picture(preprocess=square(config.image)),
        free_tokens=True,
        most_tokens=config.tokens,
        keep="tokens",
    )


searches = nearest("model.encoder", "model.quantize")

FAMILY = Family(
    "One-D-Piece: 256 tokens of a picture, of which the first ones suffice", ("OneDPiece",), parts, searches
)
