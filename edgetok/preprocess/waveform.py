"""A recording as Wav2Vec2 eats it: its samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from edgetok.preprocess.audio import read_audio, synthetic_sounds
from edgetok.preprocess.base import FilePreprocess, Medium

if TYPE_CHECKING:
    import numpy as np


class WaveformPreprocess(FilePreprocess):
    """Samples of a recording, cut or padded with zeros to a fixed length.

    Attributes:
        rate: sampling rate in Hz.
        length: samples.
        normalise: bring the recording, without the padding, to mean 0 and variance 1.
        yields: which of the model's inputs this is.
    """

    kind: Literal["waveform"] = "waveform"
    medium: ClassVar[Medium] = "audio"
    rate: PositiveInt = 16000
    length: PositiveInt
    normalise: bool = True
    yields: Literal["input_values", "attention_mask"] = "input_values"

    def load(self, sources: Sequence[str], folder: Path) -> "np.ndarray":
        """Read recordings, resampled where needed."""
        return self._convert([read_audio(source, self.rate, self.length) for source in sources])

    def example(self, batch: int, seed: int, folder: Path) -> "np.ndarray":
        """Synthetic syllables."""
        return self._convert(synthetic_sounds(self.rate, self.length, batch, seed))

    def _convert(self, sounds: "list[np.ndarray]") -> "np.ndarray":
        import numpy as np

        if self.yields == "attention_mask":
            lengths = np.array([[len(sound)] for sound in sounds])  # (batch, 1)
            return (np.arange(self.length) < lengths).astype(np.int64)
        values = np.zeros((len(sounds), self.length), np.float32)
        for row, sound in zip(values, sounds, strict=True):
            row[: len(sound)] = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7) if self.normalise else sound
        return values
