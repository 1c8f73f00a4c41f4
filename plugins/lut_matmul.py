"""LutMatMul: a product with a matrix whose entries are looked up in a small table.

Every weight format of at most 256 levels is this operator (`edgetok/lowbit/weight.py` says how): FP4, NF4, integers,
learnt codebooks, sums of scaled bits. The codes of an output channel are one stream of bits, the lowest first, and the
blocks of weights that share a scale follow from the shapes: (bytes of a row) * 8 / bits / G weights each.

The body scales the tables, not the weights: each block gets the 2^bits values that its codes stand for, the planes
added, and the matrix is one lookup. None of that depends on x, so a runtime that folds constants does it once, at
loading, and then holds the matrix in fp32. Forms that never expand the weights are in edgetok/lowering/. native/ holds
the operator in C++, with two attributes more: `alpha`, a number that multiplies all scales, and `mode`, "a32" for
activations in fp32 (`reference`) or "a8" for activations rounded to int8 (`reference_a8`).

ONNX Runtime folds constants in passes and frees only between them what nothing needs any more. So the body is in three
parts, for three passes: codes of a byte, entries, matrix. What parts them is an If with two equal branches. It is
inlined as soon as its condition is folded, but the shape behind it, which the next part needs, is known one pass later.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxscript import graph, script
from onnxscript import opset23 as op
from onnxscript.values import Opset

if TYPE_CHECKING:
    import torch


@script(Opset("edgetok", 1), default_opset=op)
def LutMatMul(x, codes, codebook, scales, bits: int, inner: int):  # type: ignore[no-untyped-def]
    """x (..., K), codes (N, bytes) uint8, codebook (C, P, 2^bits) fp32, scales (N, G, P) fp32 -> (..., N)."""
    zero, one, rest = op.Constant(value_ints=[0]), op.Constant(value_ints=[1]), op.Constant(value_ints=[-1])
    each, start, step = op.Constant(value_int=bits), op.Constant(value_int=0), op.Constant(value_int=1)
    eight = op.Constant(value_int=8)
    groups, planes = op.Shape(scales, start=1, end=2), op.Shape(scales, start=2, end=3)
    tables, outputs = op.Shape(codebook, start=0, end=1), op.Shape(codes, start=0, end=1)
    levels = op.Unsqueeze(op.Transpose(codebook, perm=[1, 2, 0]), op.Constant(value_ints=[1, 4]))
    # (P, 1, 2^bits, C, 1) times (P, G, 1, C, N / C)
    factors = op.Reshape(op.Transpose(scales, perm=[2, 1, 0]), op.Concat(planes, groups, one, tables, rest, axis=0))
    values = op.ReduceSum(op.Mul(levels, factors), zero, keepdims=0)  # (G, 2^bits, C, N / C)
    # 2, 4, 8: a byte is a word of 4, 2 or 1 codes; 3: three bytes hold 8. A code may lie in two bytes of its word.
    width = op.Add(op.Mul(op.Mod(each, op.Constant(value_int=2)), op.Constant(value_int=2)), step)
    bit = op.Mul(op.Range(start, op.Div(op.Mul(width, eight), each), step), each)
    shift = op.Unsqueeze(op.Mod(bit, eight), rest)
    words = op.Reshape(op.Transpose(codes, perm=[1, 0]), op.Concat(rest, op.Reshape(width, rest), outputs, axis=0))
    first = op.Gather(words, op.Div(bit, eight), axis=1)  # (words, codes of a word, N)
    last = op.Gather(words, op.Div(op.Add(bit, op.Sub(each, step)), eight), axis=1)
    first = op.BitShift(first, op.Cast(shift, to=2), direction="RIGHT")
    last = op.BitShift(last, op.Cast(op.Mod(op.Sub(eight, shift), eight), to=2), direction="LEFT")
    mask = op.Cast(op.Sub(op.Shape(codebook, start=2, end=3), one), to=2)
    index = op.BitwiseAnd(op.BitwiseOr(first, last), mask)

    @graph()
    def unpacked():  # type: ignore[no-untyped-def]
        return op.Expand(op.Size(x), op.Shape(index, start=2))

    known = op.If(op.Cast(op.ReduceMax(index, keepdims=0), to=9), then_branch=unpacked, else_branch=unpacked)
    split = op.Concat(groups, rest, tables, op.Div(op.Shape(known), tables), axis=0)
    entries = op.GatherElements(values, op.Cast(op.Reshape(index, split), to=6), axis=1)  # (G, block, C, N / C)

    @graph()
    def looked_up():  # type: ignore[no-untyped-def]
        return op.Expand(op.Size(x), op.Shape(entries, start=3))

    known = op.If(op.Cast(op.ReduceMax(entries, keepdims=0), to=9), then_branch=looked_up, else_branch=looked_up)
    matrix = op.Reshape(entries, op.Concat(rest, op.Mul(op.Shape(known), tables), axis=0))
    matrix = op.Slice(matrix, zero, op.Reshape(op.Constant(value_int=inner), one), zero)  # (K, N)
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
    yield "codebook_per_outputs", random(4, 12, 64, 16, tables=3, planes=2)
