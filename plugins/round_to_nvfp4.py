"""RoundToNVFP4: values rounded to NVFP4, with the scales of the blocks found as the graph runs.

The activations of a product of 4-bit floats: E2M1 in blocks of 16 along the last axis, an E4M3 scale for each block,
and one fp32 scale g for the tensor, which is known beforehand. A block's scale is max|x| / (6 g), to E4M3, at most 448;
a value is x / (scale g) to E2M1, to nearest, ties to even, at most 6. NVIDIA's format for Blackwell, as in TensorRT's
IDynamicQuantizeLayer; Pretraining Large Language Models with NVFP4, https://arxiv.org/abs/2509.25149, section 2.

The body computes in fp32, whatever x's type, and is exact: bit for bit what exporters/quantisers/nvfp4.py makes of a
matrix with the same g. It writes E2M1 out, because onnxruntime 1.23 has no FLOAT4E2M1 on a CPU: below 2 the levels are
0.5 apart, below 4 they are 1 apart, above 2. For TensorRT edgetok/lowering/activations.py puts the real types in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxscript import opset23 as op
from onnxscript import script
from onnxscript.values import Opset

if TYPE_CHECKING:
    import torch

BLOCK = 16
LARGEST, LARGEST_SCALE = 6.0, 448.0  # of E2M1, of E4M3


@script(Opset("edgetok", 1), default_opset=op)
def RoundToNVFP4(x, scale):  # type: ignore[no-untyped-def]
    """x (..., K), scale () fp32 -> as x."""
    last, size, zero = op.Constant(value_ints=[-1]), op.Constant(value_ints=[16]), op.Constant(value_ints=[0])
    inner, rows = op.Shape(x, start=-1), op.Shape(x, end=-1)
    short = op.Mod(op.Neg(inner), size)  # what the last block lacks
    whole = op.Pad(op.Cast(x, to=1), op.Concat(zero, short, axis=0), None, last)
    blocks = op.Reshape(whole, op.Concat(rows, last, size, axis=0))  # (..., G, 16)
    largest, most = op.Constant(value_float=6.0), op.Constant(value_float=448.0)
    numbers = op.Where(op.IsNaN(blocks), op.Constant(value_float=0.0), blocks)  # runtimes disagree on a maximum of NaN
    wanted = op.Div(op.ReduceMax(op.Abs(numbers), last), op.Mul(largest, scale))
    unit = op.Mul(op.Cast(op.Cast(op.Min(wanted, most), to=17), to=1), scale)  # 17 is E4M3
    one, two, half = op.Constant(value_float=1.0), op.Constant(value_float=2.0), op.Constant(value_float=0.5)
    values = op.Div(blocks, op.Where(op.Greater(unit, op.Constant(value_float=0.0)), unit, one))
    sizes = op.Min(op.Abs(values), largest)
    step = op.Where(op.Less(sizes, two), half, op.Where(op.Less(sizes, op.Constant(value_float=4.0)), one, two))
    rounded = op.Mul(op.Mul(op.Sign(values), op.Mul(op.Round(op.Div(sizes, step)), step)), unit)
    joined = op.Reshape(op.Where(op.IsNaN(blocks), blocks, rounded), op.Concat(rows, last, axis=0))
    return op.CastLike(op.Slice(joined, zero, inner, last), x)


function = RoundToNVFP4


def reference(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Round to NVFP4 and back.

    Args:
        x: (..., K), K any; a short last block counts as filled up with zeros.
        scale: () g, that of the tensor: max|x| / (6 448) reaches all of it; what is beyond becomes 6 448 g.

    Returns:
        As x. NaN stays NaN, and counts for nothing in its block; infinities become the largest value.
    """
    import torch

    inner = x.shape[-1]
    blocks = torch.nn.functional.pad(x.float(), (0, -inner % BLOCK)).reshape(*x.shape[:-1], -1, BLOCK)
    wanted = blocks.abs().nan_to_num(0.0, torch.inf).amax(dim=-1, keepdim=True) / (LARGEST * scale.float())
    unit = wanted.clamp(max=LARGEST_SCALE).to(torch.float8_e4m3fn).float() * scale.float()
    values = blocks / torch.where(unit > 0, unit, 1.0)
    sizes = values.abs().clamp(max=LARGEST)  # NaN stays
    step = torch.where(sizes < 2, 0.5, torch.where(sizes < 4, 1.0, 2.0))
    rounded = (sizes / step).round() * step  # half to even, as the codes are
    return (values.sign() * rounded * unit).flatten(-2)[..., :inner].to(x.dtype)


def cases() -> Iterator[tuple[str, tuple[torch.Tensor, ...]]]:
    """Named inputs of the reference."""
    import torch

    seeded = torch.Generator().manual_seed(0)
    x = torch.randn(2, 17, 96, generator=seeded)
    whole = x.abs().max() / (LARGEST * LARGEST_SCALE)
    yield "tokens", (x, whole)
    yield "short_block", (x[..., :37], whole)
    yield "less_than_a_block", (x[..., :5], whole)
    yield "four_axes", (x.reshape(2, 17, 3, 32), whole)
    yield "beyond_the_scale", (x * 3, whole)
    grown = x.clone()
    grown[0] *= torch.logspace(-9, 0, 17)[:, None]  # scales below the normal numbers of E4M3, and below all of them
    grown[1, 3] = 0
    yield "silence", (grown, whole)
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0])
    yield "ties", (torch.cat([ties, -ties])[None] * torch.tensor([[1.0], [448.0]]), torch.tensor(1.0))
