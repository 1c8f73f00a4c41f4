"""What every way of turning files into one graph input has in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np

Medium = Literal["image", "text", "audio"]


class FilePreprocess(BaseModel, ABC):
    """How files become one input of the graph: frozen, and part of the manifest.

    A text model has several inputs, made from the same text: each has a preprocess of its own, which says what it
    `yields`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    medium: ClassVar[Medium]

    @abstractmethod
    def load(self, sources: Sequence[str], folder: Path) -> "np.ndarray":
        """Read one source per sample.

        Args:
            sources: files; for text, also the texts themselves.
            folder: where the files lie that the preprocessing itself needs, such as the tokenizer's.

        Returns:
            (batch, ...) in the preprocess's own type; the caller casts it to the graph's.
        """

    @abstractmethod
    def example(self, batch: int, seed: int, folder: Path) -> "np.ndarray":
        """Make a valid batch out of nothing but a seed; inputs that belong together agree when the seed is the same."""
