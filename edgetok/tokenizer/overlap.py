"""A recording in chunks that overlap, and chunks faded into each other: how EnCodec treats long music.

High Fidelity Neural Audio Compression, https://arxiv.org/abs/2210.13438, section 4.1 (non-streamable); published
code: facebookresearch/encodec (MIT), model.py and utils.py; transformers' EncodecModel. Chunks are cut and joined
here, on the host, because the last one is shorter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Chunks:
    """How a recording is cut.

    Attributes:
        length: samples of a chunk.
        stride: samples from the start of a chunk to the start of the next.
    """

    length: int
    stride: int

    def __post_init__(self) -> None:
        assert 0 < self.stride <= self.length, f"chunks of {self.length} samples every {self.stride}"

    def cut(self, waveform: np.ndarray) -> Iterator[np.ndarray]:
        """(B, C, samples) -> chunks (B, C, length), the last one or two of them shorter."""
        for start in range(0, waveform.shape[2], self.stride):
            yield waveform[..., start : start + self.length]

    def join(self, chunks: Sequence[np.ndarray]) -> np.ndarray:
        """Chunks (B, C, length), the last maybe shorter -> (B, C, samples), faded by a triangle where they overlap."""
        time = np.linspace(0, 1, chunks[0].shape[2] + 2, dtype=np.float32)[1:-1]
        fade = np.float32(0.5) - np.abs(time - np.float32(0.5))
        ends = [k * self.stride + chunk.shape[2] for k, chunk in enumerate(chunks)]
        total = np.zeros((*chunks[0].shape[:2], max(ends)), np.float32)
        weight = np.zeros(max(ends), np.float32)
        for end, chunk in zip(ends, chunks, strict=True):
            own = fade[: chunk.shape[2]]
            total[..., end - len(own) : end] += own * chunk
            weight[end - len(own) : end] += own
        return total / weight
