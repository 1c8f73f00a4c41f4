"""MergeTokens: every row that is left gathers its own token and those that go into it; nothing else is written.

The tokens that go are multiplied by the 0 and 1 of "goes into this row" in fp32, a tile of them at a time, which is
exact but for the order in which they are added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from edgetok.plugins.gpu import Launch, power_of_two, tiles

if TYPE_CHECKING:
    import torch

ROWS, GONE = 32, 16


@triton.jit
def merge(
    x, size, order, destination, merged, merged_size, N, C, KEPT, x_batch, x_row,
    TILE_ROWS: tl.constexpr, TILE_GONE: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    """Rows of one tile, channels of one tile, of one sample."""
    sample = tl.program_id(2)
    rows = tl.program_id(0) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    channels = tl.program_id(1) * TILE_C + tl.arange(0, TILE_C)
    left, inside, gone = rows < KEPT, channels < C, tl.arange(0, TILE_GONE)
    x += sample.to(tl.int64) * x_batch
    token = tl.load(order + sample * N + rows, left, 0)
    weight = tl.load(size + sample * N + token, left, 0.0).to(tl.float32)
    own = tl.load(x + token[:, None] * x_row + channels, left[:, None] & inside, 0.0).to(tl.float32)
    total, sizes = own * weight[:, None], weight
    for first in range(0, N - KEPT, TILE_GONE):
        number = first + gone
        known = number < N - KEPT
        goes = tl.load(order + sample * N + KEPT + number, known, 0)
        into = tl.load(destination + sample * (N - KEPT) + number, known, -1)
        worth = tl.load(size + sample * N + goes, known, 0.0).to(tl.float32)
        moved = tl.load(x + goes[:, None] * x_row + channels, known[:, None] & inside, 0.0).to(tl.float32)
        hit = (into[None, :] == rows[:, None]).to(tl.float32)
        total = tl.dot(hit, moved * worth[:, None], total, input_precision="ieee")
        sizes += tl.sum(hit * worth[None, :], axis=1)
    mean = total / tl.maximum(sizes, 1e-4)[:, None]
    at = (sample.to(tl.int64) * KEPT + rows[:, None]) * C + channels
    tl.store(merged + at, mean.to(merged.dtype.element_ty), left[:, None] & inside)
    if tl.program_id(1) == 0:
        tl.store(merged_size + sample * KEPT + rows, sizes.to(merged_size.dtype.element_ty), left)


def launches(
    x: torch.Tensor, size: torch.Tensor, order: torch.Tensor, destination: torch.Tensor,
    kept: torch.Tensor | int, *,
    rows: int = ROWS, channels: int = 128, warps: int = 8,
) -> tuple[list[Launch], tuple[torch.Tensor, ...]]:  # fmt: skip
    """What is launched, and the merged tokens and their sizes; a `kept` that is a number is not waited for."""
    (batch, tokens, width), kept = x.shape, int(kept)
    x = x if x.stride(2) == 1 else x.contiguous()
    merged, merged_size = x.new_empty(batch, kept, width), size.new_empty(batch, kept, 1)
    tile = min(channels, power_of_two(width))
    launch = Launch(
        merge, (tiles(kept, rows), tiles(width, tile), batch),
        {
            "x": x, "size": size.contiguous(), "order": order.contiguous(), "destination": destination.contiguous(),
            "merged": merged, "merged_size": merged_size, "N": tokens, "C": width, "KEPT": kept,
            "x_batch": x.stride(0), "x_row": x.stride(1),
        },
        {"TILE_ROWS": rows, "TILE_GONE": GONE, "TILE_C": tile}, warps=warps,
    )  # fmt: skip
    return [launch], (merged, merged_size)
