"""LutMatMul: a product with a matrix whose entries are looked up in a small table.

Every weight format of at most 256 levels is this operator (`edgetok/lowbit/weight.py` says how): FP4, NF4, integers,
learnt codebooks, sums of scaled bits. The codes of an output channel are one stream of bits, the lowest first, and the
blocks of weights that share a scale follow from the shapes: (bytes of a row) * 8 / bits / G weights each.

The body unpacks, looks up and scales; none of that depends on x, so a runtime that folds constants does it once, at
loading, and then holds the matrix in fp32. It keeps every array between codes and matrix until all is folded, so the
body widens late and in few steps; benchmarks/README.md says what it takes, here and in other bodies. Forms
that never expand the weights are in edgetok/lowering/. native/ holds the operator in C++, with two attributes more:
`alpha`, a number that multiplies all scales, and `mode`, "a32" for activations in fp32 (`reference`) or "a8" for
activations rounded to int8 (`reference_a8`).
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
def LutMatMul(x, codes, codebook, scales, bits: int, inner: int):  # type: ignore[no-untyped-def]
    """x (..., K), codes (N, bytes) uint8, codebook (C, P, 2^bits) fp32, scales (N, G, P) fp32 -> (..., N)."""
    one, rest, two = op.Constant(value_ints=[1]), op.Constant(value_ints=[-1]), op.Constant(value_ints=[2])
    start, step, base = op.Constant(value_int=0), op.Constant(value_int=1), op.Constant(value_float=2.0)
    # A word of one byte is a unit; of 3 bits, a word has three bytes and four units of 6 bits, two codes each.
    each = op.Reshape(op.Constant(value_int=bits), one)
    odd = op.Mod(each, two)
    width, units = op.Add(one, op.Mul(odd, two)), op.Add(one, op.Mul(odd, op.Constant(value_ints=[3])))
    held = op.Div(op.Mul(width, op.Constant(value_ints=[8])), units)
    count, patterns = op.Div(held, each), op.Pow(base, op.Cast(held, to=1))
    levels = op.Cast(op.Pow(base, op.Cast(each, to=1)), to=6)

    # What each pattern of a unit stands for: (C patterns, codes, P).
    pattern = op.Unsqueeze(op.Range(op.Constant(value_int=0), op.Cast(op.Squeeze(patterns), to=7), step), rest)
    place = op.Cast(op.Pow(op.Cast(levels, to=1), op.Cast(op.Range(start, op.Squeeze(count), step), to=1)), to=6)
    code = op.Mod(op.Div(op.Cast(pattern, to=6), place), levels)
    looked_up = op.Gather(op.Transpose(codebook, perm=[0, 2, 1]), code, axis=1)
    table = op.Reshape(looked_up, op.Concat(rest, count, op.Shape(codebook, start=1, end=2), axis=0))

    # Units as indices, (N, G, words, units) int32: the array that may not have a step too many.
    shape = op.Concat(op.Shape(scales, start=0, end=2), rest, width, axis=0)
    bytes_ = op.Cast(op.Reshape(codes, shape), to=6)
    worth = op.Pow(op.Constant(value_float=256.0), op.Cast(op.Range(start, op.Squeeze(width), step), to=1))
    words = op.MatMul(bytes_, op.Unsqueeze(op.Cast(worth, to=6), rest))
    power = op.Cast(op.Pow(patterns, op.Cast(op.Range(start, op.Squeeze(units), step), to=1)), to=6)
    index = op.Mod(op.Div(words, power), op.Cast(patterns, to=6))
    outputs = op.Shape(scales, start=0, end=1)
    output = op.Range(start, op.Squeeze(outputs), step)
    first = op.Mul(op.Div(output, op.Div(outputs, op.Shape(codebook, start=0, end=1))), op.Cast(patterns, to=7))
    index = op.Add(index, op.Unsqueeze(op.Cast(first, to=6), op.Constant(value_ints=[1, 2, 3])))

    blocks = op.Gather(table, index)  # (N, G, words, units, codes, P)
    scaled = op.Einsum(blocks, scales, equation="ngwucp,ngp->gwucn")
    number = op.Unsqueeze(op.Range(start, op.Constant(value_int=inner), step), rest)  # of a row: (K, 1)
    sizes = op.Shape(scaled, start=0, end=4)
    strides = op.Concat(
        op.ReduceProd(op.Shape(scaled, start=1, end=4)), op.Mul(units, count), count, one, axis=0
    )
    matrix = op.GatherND(scaled, op.Mod(op.Div(number, strides), sizes))  # (K, N)
    return op.MatMul(x, op.CastLike(matrix, x))


function = LutMatMul


def reference(
    x: torch.Tensor, codes: torch.Tensor, codebook: torch.Tensor, scales: torch.Tensor, bits: int, inner: int
) -> torch.Tensor:
    """Multiply by a matrix of looked-up entries.

    Args:
        x: (..., K).
        codes: (N, bytes) uint8: each output's codes of `bits` bits, the lowest bit first.
        codebook: (C, P, 2^bits): P planes of levels, one table for each N / C outputs.
        scales: (N, G, P): one for each block of weights and plane.
        bits: 2, 3, 4 or 8.
        inner: K; the bytes may hold more codes, which count for nothing.

    Returns:
        (..., N)
    """
    import torch

    outputs, groups, planes = scales.shape
    stream = codes[..., None].int() >> torch.arange(8) & 1
    index = (stream.reshape(outputs, -1, bits) << torch.arange(bits)).sum(dim=-1)  # (N, G block)
    table = torch.arange(outputs) // (outputs // len(codebook))
    looked_up = codebook[table[:, None], :, index]  # (N, G block, P)
    matrix = (looked_up.reshape(outputs, groups, -1, planes) * scales[:, :, None]).sum(dim=-1)
    return x @ matrix.reshape(outputs, -1)[:, :inner].mT


def activation_block(block: int) -> int:
    """How many activations share a scale in a8: the most, up to 128, that divide a block of weights into eights."""
    return next(size for size in range(min(block, 128), 0, -1) if block % size == 0 and size % 8 == 0)


def reference_a8(
    x: torch.Tensor, codes: torch.Tensor, codebook: torch.Tensor, scales: torch.Tensor, bits: int, inner: int
) -> torch.Tensor:
    """The same product with activations rounded to int8, in fp32, per row and block.

    s = max |x| / 127 and x becomes s * (x / s rounded half to even). A block with s below the smallest normal number
    counts as zeros, and one that holds anything not finite makes its row NaN.
    """
    import torch

    held = codes.shape[1] * 8 // bits
    block = activation_block(held // scales.shape[1])
    blocks = torch.nn.functional.pad(x.float(), (0, held - inner)).reshape(*x.shape[:-1], held // block, block)
    s = blocks.abs().amax(dim=-1, keepdim=True) / 127
    s = torch.where(s.isfinite(), s, torch.nan)
    whole = torch.where(s < torch.finfo(s.dtype).tiny, 0.0, torch.round(blocks / s))
    rounded = (whole.double() * s.double()).flatten(-2)[..., :inner]
    return reference(rounded, codes, codebook.double(), scales.double(), bits, inner)


def cases() -> Iterator[tuple[str, tuple[object, ...]]]:
    """Named inputs of the reference."""
    import torch

    def random(
        bits: int, outputs: int, inner: int, block: int, tables: int = 1, planes: int = 1, rows: tuple[int, ...] = (5,)
    ) -> tuple[object, ...]:
        seeded = torch.Generator().manual_seed(bits + outputs)
        groups = -(-inner // block)
        codes = torch.randint(0, 256, (outputs, groups * block * bits // 8), dtype=torch.uint8, generator=seeded)
        codebook = torch.randn(tables, planes, 2**bits, generator=seeded)
        scales = torch.rand(outputs, groups, planes, generator=seeded) + 0.5
        return torch.randn(*rows, inner, generator=seeded), codes, codebook, scales, bits, inner

    yield "four_bits", random(4, 48, 64, 16, rows=(2, 7))
    yield "three_bits", random(3, 6, 48, 24)
    yield "two_bits", random(2, 10, 64, 32, rows=(1,))
    yield "short_block", random(4, 5, 100, 32)
    yield "planes", random(2, 12, 64, 32, planes=3)
    yield "codebook_per_output", random(3, 9, 40, 40, tables=9)
    yield "one_row", random(4, 21, 52, 16, rows=(1,))
    yield "one_row_of_planes", random(3, 7, 64, 16, planes=2, rows=(1,))
    yield "many_rows", random(4, 70, 136, 24, tables=7, rows=(3, 50))
    yield "more_rows", random(4, 140, 72, 24, rows=(600,))
    yield "many_rows_of_planes", random(4, 12, 64, 16, planes=2, rows=(40,))
    yield "codebook_per_outputs", random(4, 12, 64, 16, tables=3, planes=2)
