"""LutMatMul: codes stay packed in memory; a tile of them becomes a tile of weights in registers.

Eight codes are a unit, BITS bytes that one load reads. A thread looks up all codes of its units, so that neither codes
nor levels pass through shared memory, and holds eight neighbouring weights, which are stored together for the tensor
cores. One row of x is multiplied in fp32 where the weights are; more rows read their tile of x, and the next units,
while the tile before is multiplied. Products are of x's type, sums in fp32. On an H200 looking up takes most of the
time, whatever the tiles: docs/gpu.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from edgetok.plugins.gpu import Launch, tiles

if TYPE_CHECKING:
    import torch

EIGHT = 8  # codes in a unit; blocks of weights are multiples of it


@triton.jit
def unit_of(codes, units, known, BITS: tl.constexpr):
    """Units as numbers, the first code in the lowest bits; three bits have no type of their size."""
    if BITS == 3:
        low = tl.load(codes + units * 3, known, 0).to(tl.int32)
        middle = tl.load(codes + units * 3 + 1, known, 0).to(tl.int32)
        unit = low | (middle << 8) | (tl.load(codes + units * 3 + 2, known, 0).to(tl.int32) << 16)
    else:  # a second return would have another type
        unit = tl.load(codes + units, known, 0)
    return unit


@triton.jit
def weight_of(unit, number: tl.constexpr, table, scale, BITS: tl.constexpr, kind: tl.constexpr):
    """One weight of each unit."""
    code = (unit >> (number * BITS)) & ((1 << BITS) - 1)
    return (tl.load(table + code.to(tl.int32)) * scale.to(tl.float32)).to(kind)


@triton.jit
def weights_of(unit, table, scale, BITS: tl.constexpr, kind: tl.constexpr):
    """The weights of units (N, U), in their order: (N, 8 U)."""
    fours = tl.join(weight_of(unit, 0, table, scale, BITS, kind), weight_of(unit, 4, table, scale, BITS, kind))
    fives = tl.join(weight_of(unit, 1, table, scale, BITS, kind), weight_of(unit, 5, table, scale, BITS, kind))
    sixes = tl.join(weight_of(unit, 2, table, scale, BITS, kind), weight_of(unit, 6, table, scale, BITS, kind))
    sevens = tl.join(weight_of(unit, 3, table, scale, BITS, kind), weight_of(unit, 7, table, scale, BITS, kind))
    return tl.reshape(tl.join(tl.join(fours, sixes), tl.join(fives, sevens)), [unit.shape[0], unit.shape[1] * 8])


@triton.jit
def product(
    x, codes, codebook, scales, y, M, N, K, UNITS, GROUPS, OUTPUTS_PER_TABLE,
    BITS: tl.constexpr, PLANES: tl.constexpr, EIGHTHS: tl.constexpr, EVEN: tl.constexpr, NARROW: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_U: tl.constexpr,
):  # fmt: skip
    """y (M, N) of one tile; EIGHTHS units share a scale."""
    if EVEN:  # x has whole units: its rows begin where 16 bytes can be read at once
        K = tl.multiple_of(K, 8)
    rows = tl.program_id(1) * TILE_M + tl.arange(0, TILE_M)
    outputs = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N)
    own, inside = (rows < M)[:, None], (outputs < N)[:, None]
    of_table = tl.minimum(outputs, N - 1) // OUTPUTS_PER_TABLE  # what is no output looks up too, and is not stored
    table = (codebook + of_table * (PLANES << BITS))[:, None]
    codes += outputs[:, None].to(tl.int64) * UNITS * (3 if BITS == 3 else 1)
    scales += outputs[:, None].to(tl.int64) * GROUPS * PLANES
    x += rows[:, None].to(tl.int64) * K
    inner, units = tl.arange(0, TILE_U * 8)[None, :], tl.arange(0, TILE_U)[None, :]
    part = tl.load(x + inner, own & (inner < K), 0.0)
    known = inside & (units * 8 < K)
    unit = unit_of(codes, units, known, BITS)
    scale = tl.load(scales + units // EIGHTHS * PLANES, known, 0.0)
    kind: tl.constexpr = x.dtype.element_ty if NARROW else tl.float32  # rounded before they leave their thread
    sums = tl.zeros([TILE_N, TILE_U * 8], tl.float32)
    total = tl.zeros([TILE_M, TILE_N], tl.float32)
    for _ in tl.range(0, K, TILE_U * 8, num_stages=1):  # the next tile is read here, before this one is multiplied
        now, weight = part, weights_of(unit, table, scale, BITS, kind)
        for plane in tl.static_range(1, PLANES):
            more = tl.load(scales + units // EIGHTHS * PLANES + plane, known, 0.0)
            weight += weights_of(unit, table + (plane << BITS), more, BITS, kind)
        inner += TILE_U * 8
        units += TILE_U
        part = tl.load(x + inner, own & (inner < K), 0.0)
        known = inside & (units * 8 < K)
        unit = unit_of(codes, units, known, BITS)
        scale = tl.load(scales + units // EIGHTHS * PLANES, known, 0.0)
        if TILE_M == 1:
            sums += weight * now.to(tl.float32)
        else:
            total = tl.dot(now, tl.trans(weight.to(x.dtype.element_ty)), total, input_precision="ieee")
    if TILE_M == 1:
        total = tl.sum(sums, axis=1)[None, :]
    at = y + rows[:, None].to(tl.int64) * N + outputs
    tl.store(at, total.to(y.dtype.element_ty), own & (outputs < N)[None, :])


def tiles_for(rows: int, half: bool, sm: int) -> dict[str, int]:
    """What is fast; `half` of x in 16 bits: fp32 is multiplied beside the tensor cores, with less room in registers."""
    if rows == 1:
        return {"TILE_M": 1, "TILE_N": 4, "TILE_U": 128, "warps": 4}
    if half and sm < 80:  # Triton has no tensor cores there, and larger tiles spill registers
        few = rows <= 16
        return {"TILE_M": 16 if few else 64, "TILE_N": 16 if few else 32, "TILE_U": 4, "warps": 8}
    if rows <= 16:
        return {"TILE_M": 16, "TILE_N": 16, "TILE_U": 32, "warps": 4}
    if half and sm == 90:  # of 15 settings for 197 rows and 10 for 1576 the fastest that plugins have memory for
        few = rows <= 512
        return {"TILE_M": 128 if few else 256, "TILE_N": 32 if few else 64, "TILE_U": 16 if few else 8,
                "warps": 4 if few else 8}  # fmt: skip
    return {"TILE_M": 128 if half else 64, "TILE_N": 64, "TILE_U": 8, "warps": 4}


def launches(
    x: torch.Tensor, codes: torch.Tensor, codebook: torch.Tensor, scales: torch.Tensor, bits: int, inner: int,
    sm: int = 80, **tuned: int,
) -> tuple[list[Launch], tuple[torch.Tensor, ...]]:  # fmt: skip
    """What is launched, and y (..., N), which it fills in.

    Raises:
        ValueError: a block that ends within a unit: it would need two scales.
    """
    import torch

    (outputs, groups, planes), rows = scales.shape, x.numel() // inner
    block = codes.shape[1] * 8 // bits // groups
    if block % EIGHT:
        raise ValueError(f"blocks of {block} weights: the kernel takes multiples of {EIGHT}")
    y = x.new_empty(*x.shape[:-1], outputs)
    words = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # a unit each
    read = codes.contiguous().view(words[bits]) if bits in words else codes.contiguous()
    sizes = tiles_for(rows, x.element_size() == 2, sm) | tuned
    warps = sizes.pop("warps")
    # What is added to others stays in fp32; and for Hopper's tensor cores Triton 3.6 fails at what is not rounded last.
    narrow = planes == 1 and sizes["TILE_M"] > 1 and not (sm == 90 and sizes["TILE_M"] > 16)
    launch = Launch(
        product, (tiles(outputs, sizes["TILE_N"]), tiles(rows, sizes["TILE_M"])),
        {
            "x": x.contiguous(), "codes": read, "codebook": codebook.contiguous(), "scales": scales.contiguous(),
            "y": y, "M": rows, "N": outputs, "K": inner, "UNITS": codes.shape[1] // bits, "GROUPS": groups,
            "OUTPUTS_PER_TABLE": outputs // len(codebook),
        },
        {
            "BITS": bits, "PLANES": planes, "EIGHTHS": block // EIGHT, "EVEN": int(inner % EIGHT == 0),
            "NARROW": int(narrow), **sizes,
        },
        warps=warps, stages=1,
    )  # fmt: skip
    return [launch], (y,)
