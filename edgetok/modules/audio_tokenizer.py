"""The transform of a small speech tokenizer at 16 kHz: 20 ms become a vector of loudness and spectral shape, and back.

Nothing here is learnt; the codebooks of the head between the two modules are (`product`, by k-means). A modified
discrete cosine transform (Princen and Bradley, https://doi.org/10.1109/TASSP.1986.1164954) with a sine window gives 320
coefficients, 25 Hz apart. Up to 4.8 kHz bands of eight are a gain and a shape, as in gain-shape vector quantisation
(Opus' CELT, https://www.rfc-editor.org/rfc/rfc6716, section 4.3); above only the gain of bands of sixteen is kept, and
the decoder fills them with noise. What differs from CELT: gains are vectors of eight neighbours with a codebook each,
shapes have codebooks learnt from speech in place of pulses, and the noise is a fixed table.

A vector (224,) is 32 gains, log2 of the bands' root mean square, and 24 x 8 values of shape with a mean square of one.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

RATE = 16_000  # samples a second
HOP = 320  # samples, of a token
SHAPED, SHAPED_WIDTH = 24, 8  # bands with a shape, and their coefficients
NOISY, NOISY_WIDTH = 8, 16  # bands of noise
SHAPE = SHAPED * SHAPED_WIDTH
CHANNELS = SHAPED + NOISY + SHAPE
SILENCE = 1e-8  # mean square at which gains end: -80 dB
NOISE = 0.7  # root mean square of the noise, of the band's: as loud as decoded shapes are, about


def cosines() -> np.ndarray:
    """(HOP, HOP) fp64: the transform between coefficients and samples, its own inverse."""
    middle = np.arange(HOP) + 0.5
    return np.cos(np.pi / HOP * np.outer(middle, middle)) * np.sqrt(2 / HOP)


def window() -> np.ndarray:
    """(2 HOP,) fp64, a sine."""
    return np.sin(np.pi / (2 * HOP) * (np.arange(2 * HOP) + 0.5))


class AudioEncoder(nn.Module):
    """A waveform (B, 1, samples) of -1 to 1 -> vectors (B, N, 224); N is ceil(samples / 320) + 1."""

    cosines: torch.Tensor
    window: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cosines", torch.from_numpy(cosines()).float())
        self.register_buffer("window", torch.from_numpy(window()).float().reshape(2, HOP))

    def forward(self, waveform: torch.Tensor) -> dict[str, torch.Tensor]:
        batch, _, samples = waveform.shape
        whole = (samples + HOP - 1) // HOP
        padded = functional.pad(waveform, (HOP, (whole + 1) * HOP - samples))
        pieces = padded.reshape(batch, whole + 2, HOP)
        a, b = (pieces[:, :-1] * self.window[0]).chunk(2, dim=2)
        c, d = (pieces[:, 1:] * self.window[1]).chunk(2, dim=2)
        x = torch.cat((-c.flip(2) - d, a - b.flip(2)), dim=2) @ self.cosines
        shaped = x[..., :SHAPE].reshape(batch, -1, SHAPED, SHAPED_WIDTH)
        noisy = x[..., SHAPE:].reshape(batch, -1, NOISY, NOISY_WIDTH)
        loud = shaped.square().mean(dim=3).clamp(min=SILENCE)  # torch.onnx.export would leave an addition of 1e-8 out
        gains = torch.cat((loud, noisy.square().mean(dim=3).clamp(min=SILENCE)), dim=2).log2() / 2
        return {"vectors": torch.cat((gains, (shaped / loud.sqrt()[..., None]).flatten(2)), dim=2)}


class AudioDecoder(nn.Module):
    """Vectors (B, N, 224) -> a waveform (B, 1, (N - 1) 320).

    Of the 320 values (u, v) that the cosines give for a token, windowed, (v, -flip v) overlaps with what comes before
    it and (-flip u, -u) with what comes behind. The window is symmetric, so the first half of what two tokens share is
    (-flip u) w1 + v w0, and the second half, from the end, (-flip u) w0 - v w1: `basis` gives -flip u in u's place.
    The bands' gains are spread over their coefficients by a matrix of ones and zeros.
    """

    spread: torch.Tensor
    noise: torch.Tensor
    basis: torch.Tensor
    rising: torch.Tensor
    falling: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        spread = np.repeat(np.eye(SHAPED + NOISY), [SHAPED_WIDTH] * SHAPED + [NOISY_WIDTH] * NOISY, axis=1)
        noise = np.random.default_rng(0).standard_normal((64, NOISY * NOISY_WIDTH)) * NOISE
        u, v = np.split(cosines(), 2, axis=1)
        rising, falling = window()[: HOP // 2], window()[HOP : HOP + HOP // 2]
        basis = np.concatenate((-u[:, ::-1], v), axis=1)
        made = {"spread": spread, "noise": noise, "basis": basis, "rising": rising, "falling": falling}
        for name, array in made.items():
            self.register_buffer(name, torch.from_numpy(array.copy()).float())

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = vectors.shape
        gains, shapes = vectors.split((SHAPED + NOISY, SHAPE), dim=2)
        shaped, noisy = ((gains * math.log(2)).exp() @ self.spread).split((SHAPE, HOP - SHAPE), dim=2)
        noise = self.noise.index_select(0, torch.arange(tokens) % len(self.noise))
        u, v = (torch.cat((shapes * shaped, noise * noisy), dim=2) @ self.basis).chunk(2, dim=2)
        u, v = u[:, :-1], v[:, 1:]
        first, second = u * self.falling + v * self.rising, u * self.rising - v * self.falling
        return torch.cat((first, second.flip(2)), dim=2).reshape(batch, 1, (tokens - 1) * HOP)
