"""Recordings: read as mono at a model's sampling rate, and made up from a seed."""

import math
from typing import TYPE_CHECKING

from edgetok.errors import InputError

if TYPE_CHECKING:
    import numpy as np


def read_audio(file: str, rate: int, samples: int) -> "np.ndarray":
    """Read the beginning of a recording.

    Args:
        file: whatever libsndfile reads: WAV, FLAC, Ogg, MP3.
        rate: sampling rate wanted, in Hz.
        samples: how many samples are wanted; nothing beyond them is read or kept.

    Returns:
        (at most `samples`,) float32, the mean of the channels.
    """
    import numpy as np
    import soundfile
    import soxr

    try:
        with soundfile.SoundFile(file) as recording:
            own_rate = recording.samplerate
            # A tenth of a second more, so that the resampler's window does not run off the end.
            frames = math.ceil(samples * own_rate / rate) + own_rate // 10
            sound = recording.read(frames, dtype="float32", always_2d=True)  # (frames, channels)
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{file} cannot be read as a recording: give WAV, FLAC, Ogg or MP3 ({error.error_string})"
        ) from error
    mono = sound.mean(axis=1)
    if own_rate != rate and len(mono):
        mono = soxr.resample(mono, own_rate, rate)
    if not len(mono):
        raise InputError(f"{file} holds no sound")
    if not np.isfinite(mono).all():
        raise InputError(f"{file} holds samples that are not finite")
    beginning: np.ndarray = mono[:samples]
    return beginning


def synthetic_sounds(rate: int, samples: int, batch: int, seed: int) -> "list[np.ndarray]":
    """Recordings of gliding syllables: the first is shorter than `samples`, the second full, and so on."""
    import numpy as np

    rng = np.random.default_rng(seed)
    sounds = []
    for sample in range(batch):
        length = samples if sample % 2 else max(1, int(samples * rng.uniform(0.5, 0.9)))
        time = np.arange(length) / rate
        pitch = 120 * 2 ** (0.5 * np.sin(2 * np.pi * rng.uniform(0.2, 0.6) * time + rng.uniform(0, 6)))
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        voice = sum(np.sin(k * phase) * rng.uniform(0.2, 1) / k for k in range(1, 20))
        syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * time), 0, 1)
        sounds.append((0.2 * voice * syllables + 0.003 * rng.standard_normal(length)).astype(np.float32))
    return sounds
