"""Milliseconds by a card's own clock, through CUDA events: when the work between two of them began and ended.

CUDA Runtime API, section "Event Management",
https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__EVENT.html. Polygraphy loads the library and checks its
codes; it has no events of its own. Never run on a card here.
"""

from __future__ import annotations

import ctypes


class Stopwatch:
    """Two events on a stream, used again and again; they live as long as the process.

    Args:
        stream: the address of a CUDA stream.
    """

    def __init__(self, stream: int):
        from polygraphy.cuda import wrapper

        self._cuda, self._stream = wrapper(), ctypes.c_void_p(stream)
        self._began, self._ended = ctypes.c_void_p(), ctypes.c_void_p()
        for event in (self._began, self._ended):
            self._cuda.check(self._cuda.handle.cudaEventCreate(ctypes.byref(event)))

    def start(self) -> None:
        """Note the time when the stream gets here."""
        self._cuda.check(self._cuda.handle.cudaEventRecord(self._began, self._stream))

    def stop(self) -> None:
        """Note the time when the stream gets here."""
        self._cuda.check(self._cuda.handle.cudaEventRecord(self._ended, self._stream))

    def milliseconds(self) -> float:
        """Wait for the end; the time between the two, to half a microsecond."""
        took = ctypes.c_float()
        self._cuda.check(self._cuda.handle.cudaEventSynchronize(self._ended))
        self._cuda.check(self._cuda.handle.cudaEventElapsedTime(ctypes.byref(took), self._began, self._ended))
        return took.value
