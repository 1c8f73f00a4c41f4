"""Snake: a periodic activation, x + sin(a x)^2 / a, with an a for each channel.

Neural Networks Fail to Learn Periodic Functions and How to Fix It, https://arxiv.org/abs/2006.08195, equation 3; the
activation of DAC, X-Codec and BigVGAN. The reciprocal is an input of its own: BigVGAN's SnakeBeta has another there.

Written out it is five nodes, and onnxruntime computes each in a pass over memory, Sin on one thread only.
plugins/native/snake.cpp is one pass on all threads. `edgetok/rewrite/snake.py` finds it in captured graphs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxscript import opset23 as op
from onnxscript import script
from onnxscript.values import Opset

if TYPE_CHECKING:
    import torch


@script(Opset("edgetok", 1), default_opset=op)
def Snake(x, alpha, inverse):  # type: ignore[no-untyped-def]
    """x (B, C, N), alpha (1, C, 1), inverse (1, C, 1) -> (B, C, N)"""
    wave = op.Sin(op.Mul(x, alpha))
    return op.Add(x, op.Mul(op.Mul(wave, wave), inverse))


function = Snake


def reference(x: torch.Tensor, alpha: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """Add the wave.

    Args:
        x: (B, C, N)
        alpha: (1, C, 1) the wave's frequency in each channel.
        inverse: (1, C, 1) its height; 1 / alpha in Snake.

    Returns:
        (B, C, N)
    """
    return x + (x * alpha).sin().square() * inverse


def cases() -> Iterator[tuple[str, tuple[torch.Tensor, ...]]]:
    """Named inputs of the reference."""
    import torch

    def drawn(batch: int, channels: int, samples: int, scale: float = 1) -> tuple[torch.Tensor, ...]:
        seeded = torch.Generator().manual_seed(samples)
        x = scale * torch.randn(batch, channels, samples, generator=seeded)
        alpha = 0.5 + torch.rand(1, channels, 1, generator=seeded)
        return x, alpha, (alpha + 1e-9).reciprocal()

    yield "dac", drawn(1, 64, 4032)
    yield "odd", drawn(3, 5, 37)
    yield "one_sample", drawn(2, 7, 1)
    x, alpha, _ = drawn(2, 6, 100, 30)
    yield "beta", (x, alpha, torch.linspace(-1, 1, 6)[None, :, None])
