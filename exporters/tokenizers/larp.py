"""larp: a video in 1024 answers to learnt questions.

LARP: Tokenizing Videos with a Learned Autoregressive Generative Prior, https://arxiv.org/abs/2410.21264. The model is
edgetok/modules/larp.py, whose docstring says what differs from the published code.
"""

from __future__ import annotations

from edgetok.exporters.tokenizers._directions import Decode, Encode, nearest, square
from edgetok.modules.larp import Larp
from edgetok.tokenizer.family import Family, Parts
from edgetok.tokenizer.head import Layout
from edgetok.tokenizer.video import Video


def parts(model: Larp, length: int | None, size: tuple[int, int] | None) -> Parts:
    """The two directions; videos are cut into pieces of as many frames as the model takes."""
    config = model.config
    return Parts(
        encode=Encode(model),
        decode=Decode(model, "video"),
        shape=(3, config.frames, config.image, config.image),
        layout=Layout(config.token_width, (config.codes,)),
        signal=Video(preprocess=square(config.image), frames=config.frames),
    )


searches = nearest("model.bottleneck.in_linear", "model.bottleneck.regularizer")

FAMILY = Family("LARP: a video in answers to learnt questions", ("Larp",), parts, searches)
