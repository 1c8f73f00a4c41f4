"""Encoders and decoders of discrete tokenizers against PyTorch eager and torch.compile, in turns.

    PYTHONPATH=. python benchmarks/tokenizer_speed.py [FAMILY ...] [--threads 2] [--rounds 15] [--no-compile]

Models have published sizes and drawn weights; a sample is two seconds of sound, or a picture. One process, all sides
with the same number of threads, ONNX Runtime's not spinning; a ratio is that of a round, given with its median's
95 % interval. Above 1 is faster than PyTorch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from edgetok.exporters.sources import CaptureOptions
from edgetok.exporters.sources.tokenizer import capture_tokenizer
from edgetok.model import Captured, Origin
from edgetok.plugins import add_functions
from edgetok.runtimes.ort import session
from edgetok.serialize import write_model
from edgetok.statistics import ratio
from edgetok.tokenizer.family import family_of


def models() -> dict[str, tuple[Callable[[], torch.nn.Module], CaptureOptions]]:
    """A model of each family, and what its sample is."""
    import transformers as tf
    from transformers.models.janus.modeling_janus import JanusVQVAE

    from edgetok.modules import titok, wavtokenizer

    small = titok.TiTokConfig(tokens=128, encoder=titok.SMALL, decoder=titok.SMALL)
    return {
        "dac": (lambda: tf.DacModel(tf.DacConfig()), CaptureOptions(length=2 * 16_000)),
        "encodec": (lambda: tf.EncodecModel(tf.EncodecConfig()), CaptureOptions(length=2 * 24_000)),
        "mimi": (lambda: tf.MimiModel(tf.MimiConfig()), CaptureOptions(length=2 * 24_000)),
        "wavtokenizer": (
            lambda: wavtokenizer.WavTokenizer(wavtokenizer.Config()), CaptureOptions(length=2 * 24_000)),
        "titok": (lambda: titok.TiTok(small), CaptureOptions()),
        "vq_image": (lambda: JanusVQVAE(tf.JanusVQVAEConfig(num_patches=16)), CaptureOptions()),
    }  # fmt: skip


def onnx_side(captured: Captured, feeds: dict[str, np.ndarray], threads: int, folder: Path) -> Callable[[], object]:
    add_functions(captured.model)
    folder.mkdir()
    write_model(captured.model, folder)
    running = session(folder / "model.onnx", threads=threads)
    return partial(running.run, None, feeds)


def torch_side(module: Any, feeds: dict[str, np.ndarray]) -> Callable[[], object]:
    given = {name: torch.from_numpy(array) for name, array in feeds.items()}

    def run() -> object:
        with torch.inference_mode():
            return module(**given)

    return run


def turns(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run(), run()
    for number in range(rounds):
        for name in sides if number % 2 else reversed(sides):
            start = time.perf_counter()
            sides[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def measure(name: str, arguments: argparse.Namespace) -> None:
    build, options = models()[name]
    torch.manual_seed(0)
    model = build().eval().requires_grad_(False)
    family = family_of(model)
    assert family is not None
    from edgetok.tokenizer.family import load

    parts = load(family).parts(model, options.length, None)
    captured = capture_tokenizer(model, family, Origin("callable", name), options)
    ways = [("encode", captured, parts.encode)]
    if captured.decoder is not None:
        ways.append(("decode", captured.decoder, parts.decode))
    for way, graph, module in ways:
        feeds = {key: array[:1] for key, array in graph.example.items()}
        with TemporaryDirectory() as folder:
            sides = {"edgetok": onnx_side(graph, feeds, arguments.threads, Path(folder) / way)}
            sides["eager"] = torch_side(module, feeds)
            if not arguments.no_compile:
                torch.compiler.reset()
                sides["compile"] = torch_side(torch.compile(module), feeds)
            times = turns(sides, arguments.rounds)
        cells = [f"{median(times['edgetok']):.1f}"]
        for other in [side for side in sides if side != "edgetok"]:
            found = ratio(list(zip(times[other], times["edgetok"], strict=True)))
            cells.append(f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})")
        print(f"| {name} | {way} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help=", ".join(models()))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| family | direction | edgetok, ms | against eager | against torch.compile |\n|---|---|---|---|---|")
    for name in arguments.families or models():
        measure(name, arguments)


if __name__ == "__main__":
    main()
