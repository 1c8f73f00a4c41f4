"""A card's first hour in one command: what the kernels give and how fast they are, printed and kept as JSON.

    PYTHONPATH=. python benchmarks/gpu_kernels.py --json card.json     # torch with CUDA and Triton; about 4 minutes

First every operator on every case of its plugin, in fp32 and fp16, against the plain PyTorch reference in fp64. Then
merging beside ViT-B (gpu_merging.py), and one table of all operators at models' sizes (gpu_operators.py). `--launches`
runs what TensorRT is told to launch as well, as plugin_launch.py recorded it. Times are those of CUDA events, medians
of interleaved rounds. Without a card all of it runs small in Triton's interpreter (TRITON_INTERPRET=1), to be tried.

tests/test_on_a_card.py asks the same and fails where a result is wrong.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_merging, gpu_operators, plugin_launch
from benchmarks.gpu_operators import on_card, tensors
from benchmarks.gpu_timing import DEVICE, first_line
from edgetok import plugins
from edgetok.plugins import gpu

FP32, FP16 = 2e-6, 1e-3  # what the interpreter's tests allow, of the largest value


def to_card(value: object, half: bool) -> object:
    """A tensor on the card, floating ones in fp16 where that is asked."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(DEVICE).half() if half and value.is_floating_point() else value.to(DEVICE)


def errors(name: str, arguments: tuple[object, ...], half: bool) -> list[float]:
    """For each output of a case: the largest error, of the largest value; for choices, how many differ."""
    inputs = [to_card(value, half) for value in arguments]
    exact = [
        value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value for value in inputs
    ]
    wanted, got = on_card(plugins.load(name).reference)(*exact), gpu.run(name)(*inputs)
    found = []
    for want, have in zip(tensors(wanted), tensors(got), strict=True):
        if want.is_floating_point():
            far = (want - have.double()).abs().max() / want.abs().max().clamp_min(1e-30)
            found.append(float(far) if far.isfinite() else float("inf"))
        else:
            found.append(float((want != have).sum()))
    return found


def wrong(found: list[float], half: bool) -> bool:
    """Whether an error is more than rounding, or a choice another: those are whole numbers, and errors are not."""
    return any(not each <= (FP16 if half else FP32) for each in found)


def cases() -> Iterator[dict[str, Any]]:
    """Run each operator on each case in each type, and print it."""
    print("| operator | case | type | error |\n|---|---|---|---|")
    for name in gpu.names():
        for case, arguments in plugins.load(name).cases():
            for half in (False, True):
                kind = "fp16" if half else "fp32"
                found: dict[str, Any] = {"operator": name, "case": case, "type": kind}
                try:
                    found["errors"] = errors(name, arguments, half)
                    told = ", ".join(f"{each:.1e}" for each in found["errors"])
                    found["wrong"] = wrong(found["errors"], half)
                except Exception as failed:  # the rest is to be seen all the same
                    told, found["wrong"] = first_line(failed), True
                print(f"| {name} | {case} | {kind} | {told}{' WRONG' if found['wrong'] else ''} |", flush=True)
                yield found


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-cases", action="store_true")
    parser.add_argument("--compile-seconds", type=float, default=300, help="torch.compile is tried for so long")
    parser.add_argument("--tune", action="store_true", help="only print the fastest tiles of match and merge")
    parser.add_argument("--json", type=Path, help="keep everything here")
    parser.add_argument("--launches", type=Path, help="what plugin_launch.py --record wrote")
    chosen = parser.parse_args()
    import triton

    card = torch.cuda.get_device_name() if DEVICE == "cuda" else "no card: Triton's interpreter, times say nothing"
    print(f"{card}, torch {torch.__version__}, triton {triton.__version__}\n")
    if chosen.tune:
        gpu_merging.tuned(*(gpu.run(name) for name in ("bipartite_match", "merge_tokens")))
        return
    kept: dict[str, Any] = {"card": card, "torch": torch.__version__, "triton": triton.__version__}
    steps: dict[str, Callable[[], object]] = {
        "cases": lambda: [] if chosen.no_cases else list(cases()),
        "merging": lambda: gpu_merging.target(glue=False),
        "merging with ToMe's order": lambda: gpu_merging.target(glue=True),
        "operators": lambda: gpu_operators.table(chosen.compile_seconds),
    }
    for name, step in steps.items():
        kept[name] = step()
        if chosen.json:  # after each step: what was measured outlives what fails
            chosen.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    if chosen.launches:
        plugin_launch.play(chosen.launches)


if __name__ == "__main__":
    main()
