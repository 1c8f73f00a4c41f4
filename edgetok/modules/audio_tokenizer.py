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


class Transform(nn.Module):
    """What both directions share."""

    cosines: torch.Tensor
    window: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        middle = np.arange(HOP) + 0.5
        cosines = np.cos(np.pi / HOP * np.outer(middle, middle)) * np.sqrt(2 / HOP)
        window = np.sin(np.pi / (2 * HOP) * (np.arange(2 * HOP) + 0.5))
        self.register_buffer("cosines", torch.from_numpy(cosines).float())  # (HOP, HOP), its own inverse
        self.register_buffer("window", torch.from_numpy(window).float().reshape(2, HOP))


class AudioEncoder(Transform):
    """A waveform (B, 1, samples) of -1 to 1 -> vectors (B, N, 224); N is ceil(samples / 320) + 1."""

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


class AudioDecoder(Transform):
    """Vectors (B, N, 224) -> a waveform (B, 1, (N - 1) 320)."""

    noise: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        noise = np.random.default_rng(0).standard_normal((64, NOISY, NOISY_WIDTH)) * NOISE
        self.register_buffer("noise", torch.from_numpy(noise).float())

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = vectors.shape
        gains = vectors[..., : SHAPED + NOISY].exp2()[..., None]
        shapes = vectors[..., SHAPED + NOISY :].reshape(batch, tokens, SHAPED, SHAPED_WIDTH)
        noise = self.noise[torch.arange(tokens) % len(self.noise)]
        shaped, noisy = shapes * gains[:, :, :SHAPED], noise * gains[:, :, SHAPED:]
        u, v = (torch.cat((shaped.flatten(2), noisy.flatten(2)), dim=2) @ self.cosines).chunk(2, dim=2)
        before = torch.cat((v, -v.flip(2)), dim=2) * self.window[0]
        behind = torch.cat((-u.flip(2), -u), dim=2) * self.window[1]
        return (behind[:, :-1] + before[:, 1:]).reshape(batch, 1, (tokens - 1) * HOP)
