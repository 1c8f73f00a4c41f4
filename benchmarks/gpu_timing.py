"""How work on a card is timed: by its own events, in turns, launched one by one or replayed as a CUDA graph.

Without a card the same functions run on the processor, so that what uses them can be tried out; its times say nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median, quantiles

import torch

Work = Callable[[], object]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def graphed(work: Work) -> Work | None:
    """The work as a CUDA graph; None where it cannot be one."""
    if DEVICE == "cpu":
        return None
    try:
        return _graphed(work)
    except Exception as error:
        print(f"no CUDA graph: {first_line(error)}")
        return None


def first_line(error: Exception) -> str:
    """What an error is and how its message begins."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"


def _graphed(work: Work) -> Work:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()

    def replay(_of: Work = work) -> None:  # whose tensors the graph reads
        graph.replay()

    return replay


def interleaved(sides: dict[str, Work], rounds: int = 15, runs: int = 20) -> dict[str, tuple[float, float, float]]:
    """Microseconds of each side: quartiles of the rounds, in each of which every side runs in a row."""
    for work in sides.values():
        for _ in range(3 if DEVICE == "cuda" else 0):
            work()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            times[name].append(_microseconds(work, runs))
    return {name: (quantiles(each, n=4)[0], median(each), quantiles(each, n=4)[2]) for name, each in times.items()}


def _microseconds(work: Work, runs: int) -> float:
    if DEVICE == "cpu":
        begun = time.perf_counter()
        for _ in range(runs):
            work()
        return 1e6 * (time.perf_counter() - begun) / runs
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(runs):
        work()
    end.record()
    torch.cuda.synchronize()
    return 1e3 * start.elapsed_time(end) / runs
