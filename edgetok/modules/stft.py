"""The short-time Fourier transform and its inverse in real arithmetic: convolutions, which every runtime has.

Signal estimation from modified short-time Fourier transform (IEEE TASSP 1984),
https://doi.org/10.1109/TASSP.1984.1164317; the steps are those of torch.stft and torch.istft. `same` is the inverse of
Vocos and WavTokenizer, https://arxiv.org/abs/2306.00814: its ISTFTHead trims so that N frames give N hops of samples.

What differs: complex numbers are pairs (real, imaginary), since torch.onnx.export refuses the authors' heads (a complex
constant) and TensorRT has no DFT. A frame's transform is a row of a convolution whose kernel is the windowed basis, and
frames are added up by a transposed one. That is n_fft products for each sample where an FFT has about 5 log2(n_fft).
"""

from __future__ import annotations

from math import pi
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from edgetok.errors import UsageError


class STFT(nn.Module):
    """x (B, N) -> real and imaginary part, (B, n_fft // 2 + 1, frames) each, as torch.stft has them.

    Args:
        n_fft: samples of a frame.
        hop: samples from frame to frame.
        window: of at most n_fft samples, in the middle of a frame; None: a periodic Hann window.
        center: whether the signal is reflected at its ends by half a frame; it must be longer than that.
    """

    def __init__(self, n_fft: int, hop: int, window: torch.Tensor | None = None, center: bool = True):
        super().__init__()
        self.hop, self.reach = hop, n_fft // 2 if center else 0
        cosine, sine, whole = basis(n_fft, hop, window)
        self.basis = nn.Parameter((torch.cat([cosine, -sine]) * whole)[:, None].float())  # (2 F, 1, n_fft)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x[:, None]
        if self.reach:
            x = functional.pad(x, (self.reach, self.reach), "reflect")
        real, imaginary = functional.conv1d(x, self.basis, stride=self.hop).chunk(2, dim=1)
        return real, imaginary


class ISTFT(nn.Module):
    """Real and imaginary part, (B, n_fft // 2 + 1, frames) each -> x (B, N).

    Args:
        n_fft: samples of a frame, an even number.
        hop: samples from frame to frame.
        window: of at most n_fft samples, in the middle of a frame; None: a periodic Hann window.
        ends: "center" cuts half a frame from both ends, as torch.istft does, and leaves (frames - 1) hop samples;
            "same" cuts (n_fft - hop) / 2, and leaves frames hop.
    """

    def __init__(
        self, n_fft: int, hop: int, window: torch.Tensor | None = None, ends: Literal["center", "same"] = "center"
    ):
        super().__init__()
        if n_fft % 2 or (ends == "same" and (n_fft - hop) % 2):
            raise UsageError(f"n_fft={n_fft}, hop={hop}: accepted are even n_fft, and with ends='same' even hop too")
        self.hop = hop
        self.cut = n_fft // 2 if ends == "center" else (n_fft - hop) // 2
        cosine, sine, whole = basis(n_fft, hop, window)
        share = torch.full((len(cosine), 1), 2.0, dtype=torch.float64)
        share[0] = share[-1] = 1.0  # all other frequencies stand for their conjugates too
        sine[0] = sine[-1] = 0.0  # exactly: whatever is imaginary there is not read
        rows = torch.cat([cosine * share, -sine * share]) * whole / n_fft
        self.basis = nn.Parameter(rows[:, None].float())  # (2 F, 1, n_fft)
        self.squares = nn.Parameter(whole.square()[None, None].float())  # (1, 1, n_fft)

    def forward(self, real: torch.Tensor, imaginary: torch.Tensor) -> torch.Tensor:
        x = functional.conv_transpose1d(torch.cat([real, imaginary], dim=1), self.basis, stride=self.hop)
        overlap = functional.conv_transpose1d(torch.ones_like(real[:1, :1]), self.squares, stride=self.hop)
        kept = slice(self.cut, -self.cut or None)
        return (x[..., kept] / overlap[..., kept]).squeeze(1)


def basis(n_fft: int, hop: int, window: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """cos and sin (F, n_fft), and the window (n_fft,), in fp64."""
    if n_fft < 1 or not 0 < hop <= n_fft:
        raise UsageError(f"n_fft={n_fft}, hop={hop}: accepted are whole numbers with 0 < hop <= n_fft")
    if window is None:
        window = torch.hann_window(n_fft, dtype=torch.float64)
    if window.dim() != 1 or len(window) > n_fft:
        raise UsageError(f"window of shape {tuple(window.shape)}: accepted is one axis of at most n_fft={n_fft}")
    before = (n_fft - len(window)) // 2
    whole = functional.pad(window.double(), (before, n_fft - len(window) - before))
    turns = torch.outer(torch.arange(n_fft // 2 + 1), torch.arange(n_fft)) % n_fft  # whole numbers stay exact
    angle = turns.double() * (2 * pi / n_fft)
    return angle.cos(), angle.sin(), whole
