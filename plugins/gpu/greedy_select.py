"""GreedySelect: one program per sample holds what each token is worth, and reads one row of gains per step.

What is NaN or -inf is worth LOWEST, above what lies beyond the tokens and what was taken. Triton's argmax compares, and
no comparison with NaN holds: it would give the number of a token that is not there, whose row is then read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from edgetok.plugins.gpu import Launch, power_of_two

if TYPE_CHECKING:
    import torch


LOWEST = tl.constexpr(-3.4e38)


@triton.jit
def most(worth, able):
    """The token that is worth most among those that can be taken; of equals the first."""
    known = tl.where(worth == worth, tl.maximum(worth, LOWEST), LOWEST)
    return tl.argmax(tl.where(able, known, float("-inf")), axis=0)


@triton.jit
def select(gain, start, index, N, COUNT, TILE: tl.constexpr, SUMMED: tl.constexpr, NEVER: tl.constexpr):
    """`index` (B, COUNT) int64 of one sample."""
    sample, tokens = tl.program_id(0), tl.arange(0, TILE)
    inside = tokens < N
    able = inside  # neither beyond the tokens nor taken
    gain += sample.to(tl.int64) * N * N
    first = tl.load(start + sample * N + tokens, inside, float("-inf")).to(tl.float32)
    chosen = most(first, able)
    tl.store(index + sample * COUNT, chosen.to(tl.int64))
    worth = tl.zeros([TILE], tl.float32) + (0.0 if SUMMED else NEVER)
    for step in range(1, COUNT):
        row = tl.load(gain + chosen.to(tl.int64) * N + tokens, inside, float("-inf")).to(tl.float32)
        worth = worth + row if SUMMED else tl.minimum(worth, row)
        able &= tokens != chosen
        chosen = most(worth, able)
        tl.store(index + sample * COUNT + step, chosen.to(tl.int64))


def launches(
    gain: torch.Tensor, start: torch.Tensor, count: int, objective: str
) -> tuple[list[Launch], tuple[torch.Tensor, ...]]:
    """What is launched, and the chosen tokens, which it fills in."""
    import torch

    from edgetok.plugins.greedy_select import NEVER

    batch, tokens = start.shape
    index = start.new_empty(batch, count, dtype=torch.int64)
    arguments = {"gain": gain.contiguous(), "start": start.contiguous(), "index": index, "N": tokens, "COUNT": count}
    constants = {"TILE": power_of_two(tokens), "SUMMED": int(objective == "max_sum"), "NEVER": NEVER}
    return [Launch(select, (batch,), arguments, constants)], (index,)
