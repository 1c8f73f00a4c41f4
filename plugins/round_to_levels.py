"""RoundToLevels: values rounded to the nearest of a few sizes, in a step of their own for each channel.

The activations of LLM-FP4 (LLM-FP4: 4-Bit Floating-Point Quantized Transformers, https://arxiv.org/abs/2310.16836,
section 4.2): 4-bit floats whose exponent bias is one real number for the tensor and an integer more for each channel.
So the steps are powers of two of one step, and a product may take them into the exponents of its weights: it then
multiplies plain 4-bit floats. Here they stand with the values: the same numbers, and weights that stay as they are.

A value halfway between two sizes takes the smaller one; what is beyond the last takes the last.
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
def RoundToLevels(x, steps, sizes):  # type: ignore[no-untyped-def]
    """x (..., K), steps (K,) fp32, sizes (S,) fp32, rising from 0 -> as x."""
    one, last, zero = op.Constant(value_ints=[1]), op.Constant(value_ints=[-1]), op.Constant(value_ints=[0])
    upper = op.Slice(sizes, one, op.Shape(sizes), zero)
    middles = op.Mul(op.Add(op.Slice(sizes, zero, last, zero), upper), op.Constant(value_float=0.5))
    values = op.Div(op.Cast(x, to=1), steps)
    beyond = op.Greater(op.Unsqueeze(op.Abs(values), last), middles)  # (..., K, S - 1)
    codes = op.ReduceSum(op.Cast(beyond, to=6), last, keepdims=0)
    rounded = op.Mul(op.Mul(op.Sign(values), op.Gather(sizes, codes)), steps)
    return op.CastLike(op.Where(op.IsNaN(values), values, rounded), x)


function = RoundToLevels


def reference(x: torch.Tensor, steps: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Round to the nearest size, and back.

    Args:
        x: (..., K)
        steps: (K,) fp32, positive: what a size of 1 is worth in each channel.
        sizes: (S,) fp32, rising from 0.

    Returns:
        As x. NaN stays NaN; infinities become the largest size.
    """
    import torch

    values = x.float() / steps
    codes = torch.bucketize(values.abs(), (sizes[:-1] + sizes[1:]) / 2)
    rounded = values.sign() * sizes[codes.clamp(max=len(sizes) - 1)] * steps
    return torch.where(values.isnan(), values, rounded).to(x.dtype)


def cases() -> Iterator[tuple[str, tuple[torch.Tensor, ...]]]:
    """Named inputs of the reference."""
    import torch

    seeded = torch.Generator().manual_seed(0)
    x = torch.randn(2, 17, 24, generator=seeded)
    steps = 0.2 * torch.exp2(torch.randint(-3, 1, (24,), generator=seeded).float())
    e2m1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    yield "e2m1", (x, steps, e2m1)
    yield "e1m2", (x, steps, torch.arange(8) / 2)
    yield "e3m0", (x, steps / 8, torch.tensor([0.0, 1, 2, 4, 8, 16, 32, 64]))
    yield "two_sizes", (x[0], steps, torch.tensor([0.0, 1]))
    yield "ties", (torch.tensor([[0.25, 0.75, -2.5, 5, 7, -7, 0]]), torch.ones(7), e2m1)
