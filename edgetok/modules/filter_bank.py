"""Kaldi's log mel filter bank, which Wav2Vec2-BERT hears with, as one convolution and one product.

Kaldi, `compute-fbank-feats`; https://kaldi-asr.org/doc/feat.html. The values are those of transformers'
SeamlessM4TFeatureExtractor. What differs: removing a frame's mean, the preemphasis, the window and the Fourier
transform are linear, so they are one matrix, made in fp64.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edgetok.modules.stft import basis

FLOOR = 1.192092955078125e-07  # below which a band counts as silent: the smallest step of fp32 at 1


class FilterBank(nn.Module):
    """x (B, N), samples times 32768 -> (B, frames, bands), no frame beyond the signal.

    Args:
        bands: (F, bands) filters of the n_fft / 2 + 1 frequencies.
        n_fft: samples of a frame filled up with zeros.
        width: samples of a frame.
        hop: samples from frame to frame.
        preemphasis: how much of the sample before is taken away.
    """

    def __init__(
        self, bands: torch.Tensor, n_fft: int = 512, width: int = 400, hop: int = 160, preemphasis: float = 0.97
    ):
        super().__init__()
        self.hop = hop
        cosine, sine, _ = basis(n_fft, hop, None)
        povey = torch.hann_window(width, periodic=False, dtype=torch.float64) ** 0.85
        before = torch.diag(torch.full((width - 1,), preemphasis, dtype=torch.float64), -1)
        before[0, 0] = preemphasis  # the first sample stands before itself
        mean = torch.full((width, width), 1 / width, dtype=torch.float64)
        identity = torch.eye(width, dtype=torch.float64)
        frame = povey[:, None] * ((identity - before) @ (identity - mean))
        self.basis = nn.Parameter((torch.cat([cosine, sine])[:, :width] @ frame)[:, None].float())  # (2 F, 1, width)
        self.bands = nn.Parameter(bands.float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        real, imaginary = functional.conv1d(x[:, None], self.basis, stride=self.hop).chunk(2, dim=1)
        power = real * real + imaginary * imaginary  # (B, F, frames)
        return (power.mT @ self.bands).clamp(min=FLOOR).log()
