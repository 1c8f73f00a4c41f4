"""What profiling itself costs: runs of a model with the recorder beside them, and without, in turns.

    pip install edgetok[cpu]
    PYTHONPATH=. python benchmarks/profiling_overhead.py [--bundle DIR] [--rounds 40]

Without --bundle a model of some 20 ms is exported: two linear layers over 1024 rows. The recorder reads the machine's
sensors and the process's memory ten times a second, as `edgetok profile` does while it measures.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np


def layers(path: Path, width: int = 1024, count: int = 2) -> None:
    """Write an .onnx file with linear layers."""
    import onnx_ir as ir

    from edgetok import graph as g

    rng = np.random.default_rng(0)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([width, width]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": g.OPSET}, name="layers")
    op, y = g.Emitter(graph), x
    for _ in range(count):
        y = op.Tanh(op.MatMul(y, rng.standard_normal((width, width), np.float32) / np.float32(width**0.5)))
    y.name = "y"
    graph.outputs.append(g.typed(y, ir.DataType.FLOAT, [width, width]))
    ir.save(ir.Model(graph, ir_version=g.IR_VERSION), path)


def processor_time(seconds: float) -> float:
    """The share of one core that the recorder takes while nothing else runs in this process."""
    from edgetok import sensors
    from edgetok.recorder import Recorder

    with sensors.opened() as found, Recorder(found) as recorder:
        recorder.watch(os.getpid())
        start = time.process_time()
        time.sleep(seconds)
        return (time.process_time() - start) / seconds


def main() -> None:
    """Print both medians and their ratio."""
    from edgetok import api, sensors
    from edgetok.bundle import open_bundle
    from edgetok.recorder import Recorder
    from edgetok.statistics import ratio
    from edgetok.worker import Worker

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    chosen = parser.parse_args()
    with TemporaryDirectory() as folder:
        if (bundle := chosen.bundle) is None:
            layers(Path(folder) / "layers.onnx")
            bundle = Path(folder) / "bundle"
            api.export(str(Path(folder) / "layers.onnx"), out=bundle)
        opened = open_bundle(bundle)
        pairs = []
        spent = processor_time(seconds=10)
        with Worker(api.side(opened, opened.samples("inputs"))) as worker, sensors.opened() as found:
            worker.sample(20)

            def bare() -> float:
                return median(worker.sample(25))

            def recorded() -> float:
                with Recorder(found) as recorder:
                    recorder.watch(worker.pid)
                    return median(worker.sample(25))

            for turn in range(chosen.rounds):
                first, second = (bare, recorded) if turn % 2 else (recorded, bare)
                one, other = first(), second()
                pairs.append((other, one) if turn % 2 else (one, other))  # (recorded, bare)
    print(f"sensors: {', '.join(sensor.name for sensor in found) or 'none but memory'}")
    print(f"alone {median(b for _, b in pairs):.2f} ms, recorded {median(r for r, _ in pairs):.2f} ms")
    longer = ratio(pairs)
    told = f"{longer.value:.4f} times as long, 95 % interval {longer.low:.4f} to {longer.high:.4f}"
    print(f"recorded takes {told}, {len(pairs)} rounds of 25 runs")
    print(f"the recorder takes {spent:.3%} of one core")


if __name__ == "__main__":
    main()
