"""The two directions of a module that has `encode` and `decode`, as modules; its square pictures and its search."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgetok.modules.codebook import Codebook
from edgetok.preprocess.image import ImagePreprocess
from edgetok.tokenizer.near_ties import Search, Searches, heard


class Encode(nn.Module):
    """picture or video -> ids"""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(
        self, picture: torch.Tensor | None = None, video: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        return {"ids": self.model.encode(video if picture is None else picture)}


class Decode(nn.Module):
    """ids -> picture or video"""

    def __init__(self, model: Any, kind: str):
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {self.kind: self.model.decode(ids)}


def square(side: int, middle: float = 0.0, scale: float = 1.0) -> ImagePreprocess:
    """Pictures of `side` x `side`; a pixel of 0 to 1 becomes (pixel - middle) / scale."""
    return ImagePreprocess(
        size=(side, side), box=(side, side), fit="cover", resample="bicubic", mean=(middle,) * 3, std=(scale,) * 3
    )


def nearest(vectors: str, codebook: str) -> Searches:
    """The search of an encoder: for what one of its submodules gives out, in another, a `Codebook`."""

    def searches(encode: Encode, signal: torch.Tensor, ids: torch.Tensor) -> Iterator[Search]:
        x, book = heard(encode, vectors, signal), encode.get_submodule(codebook)
        assert isinstance(book, Codebook)
        yield Search(functional.normalize(x, dim=-1) if book.unit else x, book.rows(), ids)

    return searches
