"""A recording encoded or decoded chunk by chunk as it arrives, by a graph with its state in and out.

EnCodec, https://arxiv.org/abs/2210.13438, and Mimi, https://arxiv.org/abs/2410.00037, are causal: chunk after chunk
gives what the whole gives. The graphs are those of `edgetok.modules.memory.Stream`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgetok.errors import InputError

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


class Stream:
    """Streams of one batch, all of one age.

    Args:
        run: feeds -> outputs of the graph, by name.
        given: what goes in, "waveform" (B, channels, samples) or "ids" (B, N, L); the other comes out.
        chunk: samples or tokens that go in at once.
        first: of the first chunk, where it is larger.
        width: S, the numbers that a stream's state has.
    """

    def __init__(self, run: Run, given: str, chunk: int, width: int, first: int = 0):
        self._run, self._given, self._chunk, self._width = run, given, chunk, width
        self._made = "ids" if given == "waveform" else "waveform"
        self._axis = {"ids": 1, "waveform": 2}
        self._waiting: np.ndarray | None = None
        self._position = self._state = np.empty(0)
        self._ended = False
        self._next = max(first, chunk)

    def push(self, piece: np.ndarray) -> list[np.ndarray]:
        """Add a piece of any length.

        Returns:
            What comes out of each chunk that is now complete; nothing where none is.

        Raises:
            InputError: a piece of another batch or other channels than those before, or one behind the end.
        """
        if self._ended:
            raise InputError("the stream has ended: begin another for what comes behind `finish`")
        if self._waiting is None:
            self._position, self._waiting = np.zeros(len(piece), np.int64), piece
            self._state = np.zeros((len(piece), self._width), np.float32)
        else:
            axis = self._axis[self._given]
            before, new = (np.delete(array.shape, axis).tolist() for array in (self._waiting, piece))
            if before != new:
                raise InputError(
                    f"a piece of shape {piece.shape}: {self._waiting.shape} came before, only axis {axis} may differ"
                )
            self._waiting = np.concatenate([self._waiting, piece], axis=axis)
        made = []
        while self._waiting.shape[self._axis[self._given]] > self._next:  # the last one waits: it may be the end
            made.append(self._step(self._next))
            self._next = self._chunk
        return made

    def finish(self) -> np.ndarray:
        """End the streams.

        Returns:
            What comes out of the rest.

        Raises:
            InputError: nothing came at all.
        """
        if self._waiting is None or not self._waiting.shape[self._axis[self._given]]:
            raise InputError(f"the stream is empty: {self._given} of at least one sample or token is accepted")
        self._ended = True
        return self._step(self._next)

    def _step(self, count: int) -> np.ndarray:
        assert self._waiting is not None
        chunk, self._waiting = np.split(self._waiting, [count], axis=self._axis[self._given])
        outputs = self._run({self._given: chunk, "position": self._position, "state": self._state})
        self._position, self._state = outputs["next_position"], outputs["next_state"]
        return outputs[self._made]
