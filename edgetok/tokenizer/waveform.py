"""Recordings: (1, channels, samples) fp32, from -1 to 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from edgetok.preprocess.audio import read_recording, synthetic_sounds
from edgetok.tokenizer.overlap import Chunks
from edgetok.tokenizer.signal import Signal, Whole

if TYPE_CHECKING:
    import numpy as np


class Waveform(Signal):
    """Recordings.

    Attributes:
        rate: samples a second.
        channels: 1: all channels of a file are averaged; 2: a mono file fills both.
        length: samples of a piece, where the graph takes no other; the last piece is filled up with silence.
        stride: samples from the start of a piece to the start of the next, where they overlap.
    """

    kind: Literal["waveform"] = "waveform"
    unit: ClassVar[str] = "second"
    suffixes: ClassVar[tuple[str, ...]] = (".wav", ".flac", ".ogg", ".mp3")
    rate: PositiveInt
    channels: PositiveInt
    length: PositiveInt | None = None
    stride: PositiveInt | None = None

    def read(self, file: str) -> Whole:
        """Read a recording, resampled by soxr where its rate is another."""
        sound, note = read_recording(file, self.rate, self.channels)
        return Whole(sound[None], note)

    def write(self, array: np.ndarray, file: Path) -> None:
        import numpy as np
        import soundfile

        try:
            soundfile.write(file, np.clip(array[0].T, -1, 1), self.rate)
        except soundfile.LibsndfileError as error:  # of a file that cannot be made it tells no reason
            raise OSError(error.error_string) from error

    def cut(self, array: np.ndarray) -> list[np.ndarray]:
        import numpy as np

        if self.length is None:
            return [array]
        pieces = list(Chunks(self.length, self.stride or self.length).cut(array))
        return [np.pad(piece, ((0, 0), (0, 0), (0, self.length - piece.shape[2]))) for piece in pieces]

    def join(self, pieces: list[np.ndarray], extent: tuple[int, ...]) -> np.ndarray:
        import numpy as np

        if self.length is None or self.stride in (None, self.length):
            # xcodec2 decodes a sample more than a piece has: the silence that it puts behind every piece
            return np.concatenate([piece[..., : self.length] for piece in pieces], axis=2)[..., : extent[0]]
        return Chunks(self.length, self.stride).join(pieces)[..., : extent[0]]

    def units(self, extent: tuple[int, ...]) -> float:
        return extent[0] / self.rate

    def example(self, shape: tuple[int, ...]) -> np.ndarray:
        import numpy as np

        batch, channels, samples = shape
        sounds = synthetic_sounds(self.rate, samples, batch * channels, 0)
        return np.stack([np.pad(sound, (0, samples - len(sound))) for sound in sounds]).reshape(shape)
