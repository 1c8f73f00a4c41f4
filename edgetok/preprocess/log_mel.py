"""A recording as Whisper eats it: its log-mel spectrogram.

The steps are those of section 2.2 of Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision",
https://arxiv.org/abs/2212.04356: 25 ms windows every 10 ms, Slaney's mel filters, eight decades of range, scaled to
about -1..1.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from edgetok.preprocess.audio import read_audio, synthetic_sounds
from edgetok.preprocess.base import FilePreprocess, Medium

if TYPE_CHECKING:
    import numpy as np


class LogMelPreprocess(FilePreprocess):
    """Log-mel spectrogram of a recording that is cut or padded with silence to a fixed length.

    Attributes:
        rate: sampling rate in Hz.
        length: samples; there are length / hop frames.
        mels: mel bands.
        window: samples in a window.
        hop: samples between windows.
    """

    kind: Literal["log-mel"] = "log-mel"
    medium: ClassVar[Medium] = "audio"
    rate: PositiveInt = 16000
    length: PositiveInt = 480000
    mels: PositiveInt = 80
    window: PositiveInt = 400
    hop: PositiveInt = 160

    def load(self, sources: Sequence[str], folder: Path) -> "np.ndarray":
        """Read recordings, resampled where needed."""
        return self._convert([read_audio(source, self.rate, self.length) for source in sources])

    def example(self, batch: int, seed: int, folder: Path) -> "np.ndarray":
        """Synthetic syllables."""
        return self._convert(synthetic_sounds(self.rate, self.length, batch, seed))

    def _convert(self, sounds: "list[np.ndarray]") -> "np.ndarray":
        import numpy as np

        return np.stack([self._spectrogram(np.pad(sound, (0, self.length - len(sound)))) for sound in sounds])

    def _spectrogram(self, sound: "np.ndarray") -> "np.ndarray":
        import numpy as np

        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)
        mirrored = np.pad(sound, self.window // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(mirrored, self.window)[:: self.hop][:-1]  # (frames, window)
        power = np.abs(np.fft.rfft(frames * hann)) ** 2  # (frames, frequencies)
        mel = mel_filters(self.mels, self.window, self.rate) @ power.T  # (mels, frames)
        log = np.log10(np.maximum(mel, 1e-10))
        scaled: np.ndarray = (np.maximum(log, log.max() - 8) + 4) / 4
        return scaled.astype(np.float32)


@lru_cache(maxsize=4)
def mel_filters(mels: int, window: int, rate: int) -> "np.ndarray":
    """Slaney's filters, (mels, frequencies): triangles of area 1 on a scale linear to 1 kHz and logarithmic above."""
    import numpy as np

    step = np.log(6.4) / 27  # above 1 kHz, which is mel 15
    top = 15 + np.log(rate / 2 / 1000) / step
    mel = np.linspace(0, top, mels + 2)
    corners = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(step * (mel - 15)))  # Hz
    frequencies = np.linspace(0, rate / 2, window // 2 + 1)
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising = (frequencies - left) / (centre - left)
    falling = (right - frequencies) / (right - centre)
    filters: np.ndarray = np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left)
    return filters
