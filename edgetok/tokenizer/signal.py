"""What a tokenizer turns into ids and back: the files it is read from and written to, and the pieces graphs take.

One kind per file: picture.py, waveform.py, video.py. A kind is a part of the manifest: it knows numbers and words only.
"""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from edgetok.errors import OutputError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Whole:
    """What a file holds, as a tokenizer sees it.

    Attributes:
        array: (1, ...) fp32, the whole signal.
        note: what was done to it that a user should know, such as another sampling rate; or nothing.
    """

    array: np.ndarray
    note: str = ""


class Signal(BaseModel, ABC):
    """One kind of signal; axis 0 of all arrays is the batch, and arrays are fp32.

    A graph may take pieces of one size only: `cut` makes them, filling the last one up, and `join` undoes both by the
    extent, the sizes of the whole signal's axes behind the channels: (height, width), (samples,).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    unit: ClassVar[str]  # what bits are counted per: "pixel", "second"
    suffixes: ClassVar[tuple[str, ...]]  # of files that can be written; the first is the usual one

    @abstractmethod
    def read(self, file: str) -> Whole:
        """Read a file.

        Raises:
            InputError: it is not of this kind, damaged, empty, or too large.
        """

    @abstractmethod
    def write(self, array: np.ndarray, file: Path) -> None:
        """Write a signal (1, ...) to a file of one of the suffixes."""

    def save(self, array: np.ndarray, file: Path) -> None:
        """Write a signal whole, or not at all.

        Raises:
            OutputError: a suffix that is not written, or the file cannot be.
        """
        if file.suffix.lower() not in self.suffixes:
            raise OutputError(f"{file}: it is written as {', '.join(self.suffixes)}; name the file by one of these")
        if not file.parent.is_dir():
            raise OutputError(f"{file} cannot be written: there is no folder {file.parent}")
        staging = file.with_name(f".tmp-{secrets.token_hex(4)}-{file.name}")  # the suffix says how it is written
        try:
            self.write(array, staging)
            os.replace(staging, file)
        except OSError as error:
            raise OutputError(f"{file} cannot be written: {error.strerror or error}") from error
        finally:
            staging.unlink(missing_ok=True)

    @abstractmethod
    def cut(self, array: np.ndarray) -> list[np.ndarray]:
        """The pieces (1, ...) that the encoder takes, one after the other."""

    @abstractmethod
    def join(self, pieces: list[np.ndarray], extent: tuple[int, ...]) -> np.ndarray:
        """The signal (1, ..., *extent) that decoded pieces make."""

    @abstractmethod
    def units(self, extent: tuple[int, ...]) -> float:
        """How many pixels or seconds such a signal has."""

    @abstractmethod
    def example(self, shape: tuple[int, ...]) -> np.ndarray:
        """A seeded signal of a shape, much like real ones: (B, ...) fp32."""
