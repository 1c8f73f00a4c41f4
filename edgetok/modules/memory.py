"""What layers remember of a stream, so that chunk after chunk gives what the whole recording gives.

SEANet's streaming in EnCodec, https://arxiv.org/abs/2210.13438, section 3.1; published code: the `streaming` package of
kyutai-labs/moshi (MIT). What differs: there each module holds its own state and each kind of state has a class. Here a
layer takes its tensors from a `Memory` and leaves in it those that the next chunk needs, always in the same order, and
all of them together are one tensor (B, S), so that a graph has one state in and one out.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

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
    """One chunk of a stream: signal or ids in, ids or signal out, with `position` and `state` beside it.

    Args:
        step: (chunk, memory) -> what comes out, with the layers' parameters below `owner`.
        owner: the module that `step` runs.
        given: how forward names the chunk, "waveform" or "ids"; ids have their tokens on axis 1, in or out.
    """

    def __init__(self, step: Callable[[torch.Tensor, Memory], torch.Tensor], owner: nn.Module, given: str):
        super().__init__()
        self.owner, self._step, self._given = owner, step, given

    def forward(self, chunk: torch.Tensor, position: torch.Tensor, state: torch.Tensor) -> dict[str, torch.Tensor]:
        memory = Memory(position, state)
        made = self._step(chunk, memory)
        ids = made if self._given == "waveform" else chunk
        name = "ids" if self._given == "waveform" else "waveform"
        return {name: made, "next_position": position + ids.shape[1], "next_state": memory.packed()}

    def width(self, chunk: torch.Tensor) -> int:
        """S, found by running a chunk."""
        memory = Memory(torch.zeros(len(chunk), dtype=torch.int64))
        with torch.no_grad():
            self._step(chunk, memory)
        return memory.packed().shape[1]
