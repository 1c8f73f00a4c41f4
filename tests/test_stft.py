"""STFT and its inverse: against torch's, against the authors' head, and exported with a free time axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgetok.errors import UsageError
from edgetok.exporters.sources.pytorch import capture_module
from edgetok.model import Origin
from edgetok.modules.stft import ISTFT, STFT
from tests import codecs
from tests.comparison import run, session

GOLDEN = Path(__file__).parent / "golden" / "tokenizers"
SIZES = [(64, 16, None), (400, 160, None), (512, 128, 400), (63, 20, None), (64, 64, 64)]


def window_of(length: int | None) -> torch.Tensor | None:
    return None if length is None else torch.hamming_window(length)


class Both(torch.nn.Module):
    """There and back again."""

    def __init__(self) -> None:
        super().__init__()
        self.there, self.back = STFT(64, 16), ISTFT(64, 16)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        real, imaginary = self.there(x)
        return real, imaginary, self.back(real, imaginary)


@pytest.mark.parametrize(("n_fft", "hop", "width"), SIZES)
@pytest.mark.parametrize("center", [True, False])
def test_as_torch(n_fft: int, hop: int, width: int | None, center: bool) -> None:
    window = window_of(width)
    given = torch.hann_window(n_fft) if window is None else window
    for samples in (n_fft, n_fft + 1, 5 * n_fft - 3):
        x = codecs.speech(16000, samples, 2)[:, 0]
        wanted = torch.stft(
            x.double(), n_fft, hop, len(given), given.double(), center=center, pad_mode="reflect", return_complex=True
        )
        got = torch.complex(*STFT(n_fft, hop, window, center)(x))
        assert got.shape == wanted.shape
        torch.testing.assert_close(got, wanted.to(got.dtype), rtol=0, atol=2e-6 * float(wanted.abs().max()))


@pytest.mark.parametrize(("n_fft", "hop", "width"), [size for size in SIZES if size[0] % 2 == 0 and size[1] < size[0]])
def test_inverse_as_torch(n_fft: int, hop: int, width: int | None) -> None:
    """Of spectra that no signal has too, with imaginary parts where a real signal has none."""
    window = window_of(width)
    given = torch.hann_window(n_fft) if window is None else window
    spectrum = torch.randn(3, n_fft // 2 + 1, 21, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    wanted = torch.istft(spectrum, n_fft, hop, len(given), given.double())
    got = ISTFT(n_fft, hop, window)(spectrum.real.float(), spectrum.imag.float())
    assert got.shape == wanted.shape
    torch.testing.assert_close(got, wanted.float(), rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_head_of_the_authors() -> None:
    golden = np.load(GOLDEN / "wavtok_istft_64_16.npz")
    magnitude, phase = torch.from_numpy(golden["linear_out"]).mT.chunk(2, dim=1)
    magnitude = magnitude.exp().clamp(max=100)
    of = ISTFT(int(golden["n_fft"]), int(golden["hop"]), ends="same")
    audio = torch.from_numpy(golden["audio"])
    torch.testing.assert_close(of(magnitude * phase.cos(), magnitude * phase.sin()), audio, rtol=0, atol=1e-6)


def test_exported() -> None:
    of = Both()
    captured = capture_module(of, {"x": torch.randn(2, 320)}, Origin("callable", "x"), free={"x": {1: "samples"}})
    assert {node.op_type for node in captured.model.graph}.isdisjoint({"DFT", "STFT", "Loop", "Scan"})
    opened = session(captured.model)
    for batch, samples in ((1, 65), (3, 500), (1, 3333)):
        x = codecs.speech(16000, samples, batch)[:, 0]
        for got, wanted in zip(run(opened, {"x": x}).values(), of(x), strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
        torch.testing.assert_close(got, x[:, : got.shape[1]], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: STFT(64, 0), "n_fft=64, hop=0: accepted are whole numbers with 0 < hop <= n_fft"),
        (lambda: STFT(64, 16, torch.ones(65)), "window of shape (65,): accepted is one axis of at most n_fft=64"),
        (lambda: ISTFT(63, 16), "n_fft=63, hop=16: accepted are even n_fft"),
        (lambda: ISTFT(64, 15, ends="same"), "n_fft=64, hop=15: accepted are even n_fft, and with ends='same'"),
    ],
)
def test_bad_sizes(build: object, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        build()  # type: ignore[operator]
    assert said in str(caught.value)
