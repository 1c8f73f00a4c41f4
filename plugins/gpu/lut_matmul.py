"""LutMatMul: codes stay packed in memory; a tile of them becomes a tile of weights in registers, for the tensor cores.

A unit is the fewest bytes that hold whole codes: one, or three for codes of 3 bits. The first codes of a tile's units
are multiplied with their columns of x, then the second ones, so that no code changes its place. Products are of x's
type, sums in fp32. On an H200 that keeps memory small but is slow: 98 us for one row of 4096 by 4096 (fp16 11), 717 for
197 (20).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from edgetok.plugins.gpu import Launch, tiles

if TYPE_CHECKING:
    import torch


@triton.jit
def product(
    x, codes, codebook, scales, y, M, N, K, BYTES, GROUPS, BLOCK, OUTPUTS_PER_TABLE,
    BITS: tl.constexpr, UNIT: tl.constexpr, PLANES: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_U: tl.constexpr,
):  # fmt: skip
    """y (M, N) of one tile."""
    rows = tl.program_id(1) * TILE_M + tl.arange(0, TILE_M)
    outputs = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N)
    inside = outputs < N
    table = codebook + (outputs // OUTPUTS_PER_TABLE) * (PLANES << BITS)
    x += rows[:, None].to(tl.int64) * K
    codes += outputs[None, :].to(tl.int64) * BYTES
    scales += outputs[None, :].to(tl.int64) * GROUPS * PLANES
    total = tl.zeros([TILE_M, TILE_N], tl.float32)
    for start in range(0, K, TILE_U * (8 * UNIT // BITS)):
        unit = start // (8 * UNIT // BITS) + tl.arange(0, TILE_U)
        first = unit * (8 * UNIT // BITS)
        known = (first < K)[:, None] & inside[None, :]
        word = tl.load(codes + (unit * UNIT)[:, None], known, 0).to(tl.int32)
        for byte in tl.static_range(1, UNIT):
            word |= tl.load(codes + (unit * UNIT + byte)[:, None], known, 0).to(tl.int32) << (8 * byte)
        group = (first // BLOCK * PLANES)[:, None]
        for number in tl.static_range(8 * UNIT // BITS):
            code = (word >> (number * BITS)) & ((1 << BITS) - 1)
            weight = tl.zeros([TILE_U, TILE_N], tl.float32)
            for plane in tl.static_range(PLANES):
                level = tl.load(table[None, :] + (plane << BITS) + code, inside[None, :], 0.0).to(tl.float32)
                weight += level * tl.load(scales + group + plane, known, 0.0).to(tl.float32)
            inner = first + number
            part = tl.load(x + inner[None, :], (rows < M)[:, None] & (inner < K)[None, :], 0.0)
            total = tl.dot(part, weight.to(x.dtype.element_ty), total, input_precision="ieee")
    at = y + rows[:, None].to(tl.int64) * N + outputs
    tl.store(at, total.to(y.dtype.element_ty), (rows < M)[:, None] & inside[None, :])


def launches(
    x: torch.Tensor, codes: torch.Tensor, codebook: torch.Tensor, scales: torch.Tensor, bits: int, inner: int,
    **tuned: int,
) -> tuple[list[Launch], tuple[torch.Tensor, ...]]:  # fmt: skip
    """What is launched, and y (..., N), which it fills in.

    Raises:
        ValueError: a block that ends within a unit: it would need two scales.
    """
    (outputs, groups, planes), rows = scales.shape, x.numel() // inner
    unit = 3 if bits == 3 else 1
    held, block = 8 * unit // bits, codes.shape[1] * 8 // bits // groups
    if block % held:
        raise ValueError(f"blocks of {block} weights: the kernel takes multiples of {held} at {bits} bits")
    y = x.new_empty(*x.shape[:-1], outputs)
    sizes = {"TILE_M": 16, "TILE_N": 16} if rows <= 16 else {"TILE_M": 64, "TILE_N": 64}
    sizes |= {"TILE_U": max(16, (256 if rows <= 16 else 64) // held)} | tuned
    launch = Launch(
        product, (tiles(outputs, sizes["TILE_N"]), tiles(rows, sizes["TILE_M"])),
        {
            "x": x.contiguous(), "codes": codes.contiguous(), "codebook": codebook.contiguous(),
            "scales": scales.contiguous(), "y": y, "M": rows, "N": outputs, "K": inner, "BYTES": codes.shape[1],
            "GROUPS": groups, "BLOCK": block, "OUTPUTS_PER_TABLE": outputs // len(codebook),
        },
        {"BITS": bits, "UNIT": unit, "PLANES": planes, **sizes},
    )  # fmt: skip
    return [launch], (y,)
