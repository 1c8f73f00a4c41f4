"""Recordings: read as mono at a model's sampling rate, and made up from a seed."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.errors import InputError

if TYPE_CHECKING:
    import numpy as np

OPEN_END = 2**32 - 2**16  # bytes from which on a WAV header means: to the end, as those who write to a pipe say it
MOST_SAMPLES = 2**28  # 1 GiB in fp32: 93 minutes at 48 kHz


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
        raise InputError(_unreadable(file, error.error_string)) from error
    mono = sound.mean(axis=1)
    if own_rate != rate and len(mono):
        mono = soxr.resample(mono, own_rate, rate)
    if not len(mono):
        raise InputError(f"{file} holds no sound: give a recording of at least one sample")
    if not np.isfinite(mono).all():
        raise InputError(f"{file} holds samples that are not finite: save it with 16 or 24 bits a sample")
    beginning: np.ndarray = mono[:samples]
    return beginning


def read_recording(file: str, rate: int, channels: int) -> "tuple[np.ndarray, str]":
    """Read a whole recording.

    Args:
        file: whatever libsndfile reads: WAV, FLAC, Ogg, MP3.
        rate: sampling rate wanted, in Hz.
        channels: 1: the mean of the file's; 2: those of a stereo file, or a mono file's twice.

    Returns:
        (channels, samples) float32, and what was done to it: "mean of 2 channels, resampled from 44100 to 16000 Hz".

    Raises:
        InputError: it is no recording, holds no sound, more than MOST_SAMPLES numbers or channels than are wanted.
    """
    import numpy as np
    import soundfile
    import soxr

    try:
        with soundfile.SoundFile(file) as recording:
            own, own_rate = recording.channels, recording.samplerate
            if recording.frames * own > MOST_SAMPLES:
                raise InputError(f"{file} holds {recording.frames} samples of {own} channels: cut it into pieces")
            if own > channels > 1:
                raise InputError(f"{file} has {own} channels, the model takes {channels}: mix them down first")
            _check_whole(file, recording.extra_info)
            sound = recording.read(dtype="float32", always_2d=True).T  # (own, frames)
    except soundfile.LibsndfileError as error:
        raise InputError(_unreadable(file, error.error_string)) from error
    if not sound.shape[1]:
        raise InputError(f"{file} holds no sound: give a recording of at least one sample")
    if not np.isfinite(sound).all():
        raise InputError(f"{file} holds samples that are not finite: save it with 16 or 24 bits a sample")
    done = [f"mean of {own} channels"] if own > channels else []
    sound = sound.mean(axis=0, keepdims=True) if channels == 1 else np.broadcast_to(sound, (channels, sound.shape[1]))
    if own_rate != rate:
        done.append(f"resampled from {own_rate} to {rate} Hz")
        sound = soxr.resample(sound.T, own_rate, rate).T
    if not sound.shape[1]:
        raise InputError(f"{file} is shorter than one sample at {rate} Hz")
    return np.ascontiguousarray(sound, dtype=np.float32), ", ".join(done)


def _unreadable(file: str, reason: str) -> str:
    if not Path(file).is_file():
        return f"{file}: there is no such file"
    return f"{file} cannot be read as a recording: give WAV, FLAC, Ogg or MP3 ({reason})"


def _check_whole(file: str, log: str) -> None:
    """Refuse a WAV file whose end is missing: libsndfile reads what is there, and says in its log what should be."""
    said = re.search(r"^data\s*: (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if said and int(said[2]) < int(said[1]) < OPEN_END:
        raise InputError(f"{file} is cut off: {said[2]} of {said[1]} bytes of sound are there")


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
