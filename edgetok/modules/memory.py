"""What layers remember of a stream, so that chunk after chunk gives what the whole recording gives.

SEANet's streaming in EnCodec, https://arxiv.org/abs/2210.13438, section 3.1; published code: the `streaming` package of
kyutai-labs/moshi (MIT). What differs: there each module holds its own state and each kind of state has a class. Here a
layer takes its tensors from a `Memory` and leaves in it those that the next chunk needs, always in the same order, and
all of them together are one tensor (B, S), so that a graph has one state in and one out.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import nn


class Memory:
    """The tensors that layers kept of the chunks before, and those that they keep of this one.

    Args:
        position: (B,) int64, how many tokens of each stream went before; 0 at its start.
        kept: (B, S) fp32 as `packed` gave it; None at the start of all streams, when zeros of any size are given out.
    """

    def __init__(self, position: torch.Tensor, kept: torch.Tensor | None = None):
        self.position, self._kept, self._taken = position, kept, 0
        self._next: list[torch.Tensor] = []

    @property
    def first(self) -> torch.Tensor:
        """(B, 1, 1) bool: which streams begin with this chunk."""
        return (self.position == 0)[:, None, None]

    def take(self, *shape: int) -> torch.Tensor:
        """(B, *shape): what the layer kept last time."""
        if self._kept is None:
            return torch.zeros(len(self.position), *shape)
        start, self._taken = self._taken, self._taken + prod(shape)
        return self._kept[:, start : self._taken].reshape(-1, *shape)

    def keep(self, value: torch.Tensor) -> None:
        """Leave a tensor of the shape that was taken for the next chunk."""
        self._next.append(value.flatten(1))

    def packed(self) -> torch.Tensor:
        """(B, S): all that was kept."""
        return torch.cat(self._next, dim=1)


class Stream(nn.Module):
    """A codec's encoder or decoder for one chunk of each stream of a batch.

    Inputs are `waveform` (B, channels, samples) or `ids` (B, N, L), `position` (B,) int64, and `state` (B, S) fp32,
    which are zeros at the start of a stream. Outputs are the other of the first two, `next_position` and `next_state`.
    All chunks but the last are whole tokens.

    Args:
        part: has `step(chunk, memory)`, which gives ids of a waveform, or a waveform of ids.
    """

    def __init__(self, part: Any):
        super().__init__()
        self.part = part

    def forward(
        self,
        position: torch.Tensor,
        state: torch.Tensor | None,
        waveform: torch.Tensor | None = None,
        ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        memory = Memory(position, state)
        made = {"ids": self.part.step(waveform, memory)} if ids is None else {"waveform": self.part.step(ids, memory)}
        tokens = (made["ids"] if ids is None else ids).shape[1]
        return made | {"next_position": position + tokens, "next_state": memory.packed()}

    def start(self, chunk: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`position` and `state` at the start of streams, for a chunk as forward takes it."""
        (first,) = chunk.values()
        position = torch.zeros(len(first), dtype=torch.int64)
        with torch.no_grad():
            state = self(position, None, **chunk)["next_state"]
        return {"position": position, "state": torch.zeros_like(state)}
