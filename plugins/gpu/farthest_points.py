"""FarthestPoints: distances tile by tile with the tensor cores, then GreedySelect's kernel on them.

In fp32 each factor is the sum of two TF32 numbers and each product that of three (`tf32x3`), which keeps fp32's
precision; compute capability 7.5 has no TF32 and multiplies beside its tensor cores.

The N x N distances of a sample are written, in fp32, and one row of them is read for each choice. Multiplying all
tokens by the last one at each step instead needs no N x N, and took 60 us a step on an H200 (576 tokens of 1024).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from edgetok.plugins.gpu import Launch, greedy_select, power_of_two, tiles

if TYPE_CHECKING:
    import torch

WIDEST = 64


@triton.jit
def distances(
    x, weight, bias, distance, nearest, N, D, weight_batch, weight_row, bias_batch, bias_row,
    TILE: tl.constexpr, TILE_D: tl.constexpr, NEVER: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Weighted distances (B, N, N) of one tile of rows, and to the nearest other token (B, N), fp32."""
    sample, rows = tl.program_id(1), tl.program_id(0) * TILE + tl.arange(0, TILE)
    parts = tl.arange(0, TILE_D)
    x += sample.to(tl.int64) * N * D
    distance += sample.to(tl.int64) * N * N
    weight += sample * weight_batch
    bias += sample * bias_batch
    closest = tl.full([TILE], float("-inf"), tl.float32)
    for first in range(0, N, TILE):
        column = first + tl.arange(0, TILE)
        inside = column < N
        cosine = tl.zeros([TILE, TILE], tl.float32)
        for start in range(0, D, TILE_D):
            part = start + parts
            mine = tl.load(x + rows[:, None] * D + part, (rows[:, None] < N) & (part < D), 0.0)
            other = tl.load(x + column[None, :] * D + part[:, None], inside[None, :] & (part[:, None] < D), 0.0)
            cosine = tl.dot(mine, other, cosine, input_precision="tf32x3" if PARTS else "ieee")
        worth = tl.load(weight + column * weight_row, inside, 0.0).to(tl.float32)
        shift = tl.load(bias + column * bias_row, inside, float("-inf")).to(tl.float32)
        far = (1.0 - cosine) * worth[None, :] + shift[None, :]
        tl.store(distance + rows[:, None] * N + column, far, (rows[:, None] < N) & inside)
        own = tl.where(column[None, :] == rows[:, None], NEVER, 0.0)
        closest = tl.maximum(closest, tl.max(cosine + shift[None, :] - own, axis=1))
    worth = tl.load(weight + rows * weight_row, rows < N, 0.0).to(tl.float32)
    shift = tl.load(bias + rows * bias_row, rows < N, 0.0).to(tl.float32)
    tl.store(nearest + sample * N + rows, (1.0 - closest) * worth + shift, rows < N)


def launches(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, count: int, sm: int = 80, **tuned: int
) -> tuple[list[Launch], tuple[torch.Tensor, ...]]:
    """What is launched, and the chosen tokens, which it fills in."""
    import torch

    from edgetok.plugins.greedy_select import NEVER

    batch, tokens, width = x.shape
    weight, bias = weight.expand(batch, tokens), bias.expand(batch, tokens)
    distance = x.new_empty(batch, tokens, tokens, dtype=torch.float32)
    nearest = distance.new_empty(batch, tokens)
    parts = x.dtype == torch.float32 and sm >= 80
    # 64 x 64 take 267 us on an H200 for 8 x 576 x 1024, 32 x 64 take 483; elsewhere 64 spill registers.
    sizes = {"TILE": 64 if parts and sm == 90 else 32, "TILE_D": min(WIDEST, power_of_two(width))} | tuned
    first = Launch(
        distances, (tiles(tokens, sizes["TILE"]), batch),
        {
            "x": x.contiguous(), "weight": weight, "bias": bias, "distance": distance, "nearest": nearest,
            "N": tokens, "D": width, "weight_batch": weight.stride(0), "weight_row": weight.stride(1),
            "bias_batch": bias.stride(0), "bias_row": bias.stride(1),
        },
        {**sizes, "NEVER": NEVER, "PARTS": int(parts)},
    )  # fmt: skip
    then, outputs = greedy_select.launches(distance, nearest, count, "max_min")
    return [first, *then], outputs
