"""How fast ViT-S/16 is exported by edgetok, and with tokens merged: the figures of benchmarks/README.md.

    pip install edgetok[cpu,export] && python benchmarks/token_merging.py --batch 1 8

Every side runs in a process of its own, in turns (edgetok/comparison.py), and every figure is a ratio of medians of
turns with its 95 % interval. `free selection` removes as many tokens by a bare Slice, which costs nothing and needs no
bias in attention: the ceiling of any technique with that schedule. Weights are seeded; timing does not depend on them.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np

SHAPE = (3, 224, 224)
TOME, FREE = "tome:r=13", "random:r=13"


def vit_s() -> Any:
    """ViT-S/16 at 224 pixels: 197 tokens."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)
    return ViTForImageClassification(config).eval()


def images(batch: int) -> np.ndarray:
    """(batch, 3, 224, 224)"""
    return np.random.default_rng(0).standard_normal((batch, *SHAPE), dtype=np.float32)


def export_all(folder: Path) -> None:
    """plain.onnx by torch alone; unreduced, tome and free by edgetok."""
    import onnx_ir as ir
    import torch

    from edgetok import technique
    from edgetok.exporters.sources import CaptureOptions, capture
    from edgetok.plugins import add_functions
    from edgetok.transform import transform

    model = vit_s()
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    example = (torch.from_numpy(images(2)),)
    torch.onnx.export(model, example, folder / "plain.onnx", dynamo=True, dynamic_shapes=dynamic, verbose=False)
    model.save_pretrained(folder / "huggingface")
    ir.save(capture(str(folder / "huggingface"), CaptureOptions()).model, folder / "captured.onnx")
    for name, spec in {"unreduced": None, "tome": TOME, "free": FREE}.items():
        graph = ir.load(folder / "captured.onnx")
        transform(graph, [technique.parse(spec)] if spec else [], dtype="fp32", emit="full")
        if name == "free":
            select_for_free(graph)
        add_functions(graph)
        ir.save(graph, folder / f"{name}.onnx")


def select_for_free(model: Any) -> None:
    """Keep the first tokens, whichever they are."""
    from edgetok import graph as g

    for node in [node for node in model.graph if node.op_type == "KeepTokens"]:
        x, kept = node.inputs[0], node.outputs[0]
        op = g.Emitter(model.graph, before=node)
        g.take_place(kept, op.Slice(x, np.array([0]), np.array([kept.shape[1]]), np.array([1])))
        model.graph.remove(node, safe=True)
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)


class Compiled:
    """torch.compile in a process of its own; takes the place of an `edgetok.worker.Worker`."""

    def __init__(self, batch: int):
        self.side = SimpleNamespace(label="torch.compile")
        command = [sys.executable, __file__, "--compiled", str(batch)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Compiled":
        self.sample(3)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def sample(self, runs: int) -> list[float]:
        """Milliseconds of some runs in a row."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{runs}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def serve_compiled(batch: int) -> None:
    """The other end of `Compiled`."""
    import torch

    from edgetok.timing import sample

    model: Callable[..., Any] = torch.compile(vit_s())
    x = torch.from_numpy(images(batch))
    with torch.inference_mode():
        for line in sys.stdin:
            print(json.dumps(sample(lambda: model(x).logits, int(line))), flush=True)


@contextmanager
def workers(folder: Path, names: list[str], batch: int) -> Iterator[list[Any]]:
    """One process a side."""
    from edgetok.model import TensorSpec
    from edgetok.worker import Side, Worker

    spec = (TensorSpec("pixel_values", "float32", ("batch", *SHAPE), None),)
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Compiled(batch)
                if name == "torch.compile"
                else Worker(Side(name, folder / f"{name}.onnx", spec, {"pixel_values": images(batch)}))
            )
            for name in names
        ]


def main() -> None:
    """Export, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15, help="pairs of turns, at least 9")
    parser.add_argument("--compiled", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.compiled:
        return serve_compiled(args.compiled)

    from edgetok.comparison import compare
    from edgetok.fingerprint import cpu_model, tool_versions

    versions = tool_versions()
    print(cpu_model(), {key: versions[key] for key in ("onnxruntime", "torch", "transformers")}, flush=True)
    print("| batch | side | median ms | times as fast as unreduced | 95 % interval |\n|---|---|---|---|---|")
    with TemporaryDirectory() as name:
        folder = Path(name)
        export_all(folder)
        for batch in args.batch:
            names = ["plain", "torch.compile", "tome", "free", "unreduced"]
            with workers(folder, names, batch) as sides:
                for c in compare(sides, rounds=args.rounds):
                    own, unreduced = np.median(c.rounds, axis=0)
                    speedup = f"{c.speedup.value:.2f} | {c.speedup.low:.2f} to {c.speedup.high:.2f}"
                    print(f"| {batch} | {c.label} | {own:.1f} | {speedup} |", flush=True)
                print(f"| {batch} | unreduced | {unreduced:.1f} | 1 | |", flush=True)


if __name__ == "__main__":
    main()
