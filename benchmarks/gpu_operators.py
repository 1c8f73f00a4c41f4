"""Every operator's kernels at sizes as models have them: one table.

A line has the largest error against the plain PyTorch reference in fp64, the time launched from Python and as a CUDA
graph, how many times as fast the graph is as the eager reference's graph, as torch.compile's, and as what one would use
in the operator's place (torch's fused dense attention, weights in fp16), and the share of what the card allows: bytes
that must be read and written, or multiplications, at the rates of the card's profile in devices/, whichever takes
longer. What cannot be had is empty, and said above the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.gpu_timing import DEVICE, Work, first_line, graphed, interleaved
from edgetok import devices, plugins
from edgetok.device import Device, Peak
from edgetok.plugins import gpu

CARD = DEVICE == "cuda"
HEAD = (
    "| operator | error | launched, us | graph, us | of eager | of torch.compile | of its rival | rival "
    "| share of the limit | limit |\n|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Sized:
    """An operator on inputs of a model's size.

    Attributes:
        title: what it is, in the table.
        name: the operator's file.
        inputs: of its reference, on the card.
        flops: multiplications and additions on the tensor cores or, in fp32, beside them.
        moved: bytes that must be read and written; None counts inputs and outputs once.
        eager: what stands for the reference where that does more than it must.
        rival: what one would use in its place, by its name.
        options: of the kernel's `launches`.
    """

    title: str
    name: str
    inputs: tuple[Any, ...]
    flops: float
    moved: float | None = None
    eager: Callable[..., object] | None = None
    rival: tuple[str, Work] | None = None
    options: dict[str, int] = field(default_factory=dict)


def on_card(call: Callable[..., Any]) -> Callable[..., Any]:
    """A reference whose own small tensors lie where its inputs do."""

    def moved(*arguments: Any) -> Any:
        with torch.device(DEVICE):
            return call(*arguments)

    return moved


def profile_of_card() -> Device | None:
    """The card's profile; None for a card that devices/ does not have."""
    name = torch.cuda.get_device_name() if CARD else ""
    return next((device for device in devices.load_all() if name in device.recognise.gpus), None)


def tensors(value: object) -> tuple[torch.Tensor, ...]:
    """The tensors among arguments or results."""
    several = value if isinstance(value, tuple) else (value,)
    return tuple(each for each in several if isinstance(each, torch.Tensor))


def error(sized: Sized) -> str:
    """The largest difference to the reference in fp64, of the largest value; how many choices differ."""
    exact = [each.double() if isinstance(each, torch.Tensor) and each.is_floating_point() else each
             for each in sized.inputs]  # fmt: skip
    wanted = on_card(plugins.load(sized.name).reference)(*exact)
    told = []
    for want, have in zip(tensors(wanted), tensors(kernels(sized)()), strict=True):
        if want.is_floating_point():
            told.append(f"{float((want - have.double()).abs().max() / want.abs().max().clamp_min(1e-30)):.0e}")
        else:
            told.append(f"{int((want != have).sum())} of {want.numel()} differ")
    return ", ".join(told)


def kernels(sized: Sized) -> Work:
    """The operator's kernels on its inputs."""
    run = gpu.run(sized.name)
    return lambda: run(*sized.inputs, **sized.options)


def least(sized: Sized, device: Device | None) -> tuple[float, str] | None:
    """Microseconds that the card allows at best, and by what."""
    if device is None:
        return None
    given = tensors(sized.inputs)
    moved = sized.moved
    if moved is None:
        moved = sum(each.numel() * each.element_size() for each in given + tensors(kernels(sized)()))
    kind: Peak = "fp16" if any(each.dtype == torch.float16 for each in given) else "fp32"
    reading = moved / device.mode().bandwidth_gbs * 1e-3
    computing = sized.flops / (device.peak(kind) or 1) * 1e6
    return (reading, "memory") if reading >= computing else (computing, f"{kind} arithmetic")


def row(sized: Sized, device: Device | None, deadline: float) -> dict[str, Any]:
    """A line of the table, by column; `deadline` is when torch.compile is no longer tried, as time.monotonic()."""
    reference = on_card(sized.eager or plugins.load(sized.name).reference)
    sides: dict[str, Work] = {"kernels": kernels(sized), "eager": lambda: reference(*sized.inputs)}
    if sized.rival:
        sides["rival"] = sized.rival[1]
    if CARD and time.monotonic() < deadline:
        compiled = torch.compile(reference, dynamic=False)
        sides["compiled"] = lambda: compiled(*sized.inputs)
    works: dict[str, Work] = {}
    for name, work in sides.items():
        try:
            work()
            works[name] = graphed(work) or work
        except Exception as failed:
            print(f"{sized.title}, {name}: {first_line(failed)}", flush=True)
    if works.get("kernels") is not sides["kernels"]:
        works["launched"] = sides["kernels"]
    times = {name: each[1] for name, each in interleaved(works, *((9, 5) if CARD else (2, 1))).items()}
    found: dict[str, Any] = {"operator": sized.title, "error": error(sized), "microseconds": times}
    for side in ("eager", "compiled", "rival"):
        if side in times:
            found[f"times as fast as {side}"] = times[side] / times["kernels"]
    if sized.rival:
        found["rival"] = sized.rival[0]
    if limit := least(sized, device):
        found |= {"limit, microseconds": limit[0], "limit": limit[1], "share": limit[0] / times["kernels"]}
    return found


def line(found: dict[str, Any]) -> str:
    """A row as text."""
    times = found["microseconds"]
    ratios = [found.get(f"times as fast as {side}") for side in ("eager", "compiled", "rival")]
    cells = [
        found["operator"], found["error"], f"{times.get('launched', times['kernels']):.0f}",
        f"{times['kernels']:.1f}" if "launched" in times else "",
        *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios), found.get("rival", ""),
        f"{found['share']:.0%}" if "share" in found else "", found.get("limit", ""),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def table(seconds: float = 300) -> list[dict[str, Any]]:
    """Print the table, and return its rows; torch.compile is tried for so many seconds."""
    from benchmarks.gpu_sizes import every

    device, deadline, found = profile_of_card(), time.monotonic() + seconds, []
    for sized in every():
        try:
            found.append(row(sized, device, deadline))
        except Exception as failed:  # the rest is to be seen all the same
            print(f"{sized.title}: {first_line(failed)}", flush=True)
    print(f"\n{HEAD}")
    for each in found:
        print(line(each), flush=True)
    return found
