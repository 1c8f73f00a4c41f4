"""Runs as a Chrome trace, for ui.perfetto.dev or chrome://tracing: run > block > part > node.

Perfetto wants the spans of one track to nest. A block that the runtime leaves and comes back to is two spans.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import median_low
from typing import Any

from edgetok.layers import ProfiledRun, places

Span = tuple[str, str, float, float]  # name, category, start, end


def chrome_trace(runs: Mapping[str, Sequence[ProfiledRun]]) -> dict[str, Any]:
    """The run of median length of each model, each as a process of its own.

    Args:
        runs: the model's label and its profiled runs.
    """
    events: list[dict[str, Any]] = []
    for pid, (label, profiled) in enumerate(runs.items(), start=1):
        events.append({"ph": "M", "name": "process_name", "pid": pid, "tid": 1, "args": {"name": label}})
        middle = median_low(run.duration for run in profiled)
        run = next(run for run in profiled if run.duration == middle)
        for name, category, start, end in _spans(run):
            span = {"ts": start - run.start, "dur": end - start}
            events.append({"ph": "X", "name": name, "cat": category, "pid": pid, "tid": 1, **span})
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _spans(run: ProfiledRun) -> list[Span]:
    """Every span before those inside it."""
    nodes: list[tuple[tuple[str, str], Span]] = []
    ends = [node.start for node in run.nodes[1:]] + [run.start + run.duration]
    for node, (place, _), limit in zip(run.nodes, places(run.nodes), ends, strict=True):
        # The profiler rounds to microseconds, so that a node may seem to end after the next one began.
        nodes.append((place, (node.name, node.op, node.start, max(node.start, min(node.start + node.duration, limit)))))
    spans: list[Span] = [("run", "run", run.start, run.start + run.duration)]
    for block, in_block in groupby(nodes, key=lambda item: item[0][0]):
        inside = list(in_block)
        spans.append((block, "block", inside[0][1][2], inside[-1][1][3]))
        for (_, part), in_part in groupby(inside, key=lambda item: item[0]):
            within = [span for _, span in in_part]
            if part:
                spans.append((part, "part", within[0][2], within[-1][3]))
            spans += within
    return spans
