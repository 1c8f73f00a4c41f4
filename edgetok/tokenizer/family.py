"""What a family of discrete tokenizers is: it makes two modules of a model, one for each direction.

A family is a file of exporters/tokenizers/, found by its name, that ends with `FAMILY = Family(...)`. Inputs of the
encoder are `signal`, (B, channels, ...) fp32; it gives out `ids` (B, N) or (B, N, L) int64, and what else the decoder
needs of a piece, such as a scale. The decoder takes those and gives out `signal`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from edgetok import discovery
from edgetok.tokenizer.head import Layout
from edgetok.tokenizer.picture import Picture
from edgetok.tokenizer.video import Video
from edgetok.tokenizer.waveform import Waveform

if TYPE_CHECKING:
    import torch

    from edgetok.tokenizer.near_ties import Searches

PACKAGE = "edgetok.exporters.tokenizers"
Keep = Literal["tokens", "levels"]


@dataclass(frozen=True)
class Streams:
    """How a causal codec is cut; `encode` and `decode` have `step(chunk, memory)` then.

    Attributes:
        hop: samples of a token.
        least: tokens that the first chunk holds at least, because its start is reflected.
    """

    hop: int
    least: int = 1


@dataclass(frozen=True)
class Parts:
    """The two directions of one model.

    Attributes:
        encode: (signal) -> {"ids", ...}
        decode: (ids, ...) -> {"signal"}; None where the model has no decoder.
        shape: of the signal that the graphs are made with, behind the batch: (channels, ...).
        layout: of the ids.
        signal: what is turned into ids.
        free: axes of the signal that stay free, with their names: {2: "samples"}.
        free_tokens: whether any number of tokens can be decoded.
        most_tokens: the most of them; None where there is no bound.
        keep: what may be left out at the end; None where nothing may.
        streams: how a causal codec is cut into chunks; None where the whole has to be there.
    """

    encode: torch.nn.Module
    decode: torch.nn.Module | None
    shape: tuple[int, ...]
    layout: Layout
    signal: Picture | Waveform | Video
    free: dict[int, str] = field(default_factory=dict)
    free_tokens: bool = False
    most_tokens: int | None = None
    keep: Keep | None = None
    streams: Streams | None = None


@dataclass(frozen=True)
class Family:
    """Models of one kind.

    Attributes:
        summary: one line.
        classes: names of the classes, of transformers or of edgetok.modules, whose models these are.
        parts: (model, length, size) -> its two directions; length in samples and size (height, width) where they were
            asked for.
    """

    summary: str
    classes: tuple[str, ...]
    parts: Callable[[Any, int | None, tuple[int, int] | None], Parts]
    searches: Searches


def names() -> list[str]:
    """The families' names; nothing is imported."""
    return discovery.names(PACKAGE)


def load(name: str) -> Family:
    """The family of a name.

    Raises:
        UnknownName: there is none.
    """
    return discovery.load(PACKAGE, "family", name, Family)


def family_of(model: object) -> str | None:
    """The name of the family that a model belongs to; None where it is no tokenizer that is known."""
    kinds = {kind.__name__ for kind in type(model).__mro__}
    return next((name for name in names() if kinds & set(load(name).classes)), None)
