"""Encoders and decoders of discrete tokenizers against PyTorch eager and torch.compile, in turns.

    PYTHONPATH=. python benchmarks/tokenizer_speed.py [MODEL ...] [--way encode] [--threads 2] [--no-compile]

Models have published sizes and drawn weights, but where `models` says otherwise; those of the zoo are as they ship. A
sample is two seconds of sound, a picture, or a video. One process, all sides with the same number of threads, ONNX
Runtime's not spinning; a ratio is that of a round, given with its median's 95 % interval. Above 1 is faster than
PyTorch. One thread is measured in processor time, which other work on the machine does not stretch; more threads by the
clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isqrt
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
from edgetok.tokenizer.family import family_of, load
from edgetok.tokenizer.joined import Quantiser

TURN = 0.1  # seconds
ZOO = ("photo-fsq", "photo-vq", "speech-pq")
Build = Callable[[], torch.nn.Module]


def codecs() -> dict[str, tuple[Build, CaptureOptions]]:
    """Of sound, and how long a sample is."""
    import transformers as tf

    from edgetok.modules import wavtokenizer

    at_16k, at_24k = (CaptureOptions(length=2 * rate) for rate in (16_000, 24_000))
    return {
        "dac": (lambda: tf.DacModel(tf.DacConfig()), at_16k),
        "encodec": (lambda: tf.EncodecModel(tf.EncodecConfig()), at_24k),
        "mimi": (lambda: tf.MimiModel(tf.MimiConfig()), at_24k),
        "wavtokenizer": (lambda: wavtokenizer.WavTokenizer(wavtokenizer.Config()), at_24k),
        "xcodec": (lambda: tf.XcodecModel(tf.XcodecConfig()), at_16k),
        "xcodec2": (lambda: tf.Xcodec2Model(tf.Xcodec2Config()), at_16k),
    }


def pictures() -> dict[str, tuple[Build, CaptureOptions]]:
    """Of pictures and videos.

    Smaller than published: TiTok and One-D-Piece in their size S, pictures of Chameleon and Emu3 (256 and 128 pixels),
    FlexTok (of pixels, 12 layers, 2 steps in place of 25), TokenFlow (a base SigLIP at 224 pixels), LARP (6 layers).
    """
    import transformers as tf
    from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE
    from transformers.models.janus.modeling_janus import JanusVQVAE

    from edgetok.modules import flextok, larp, one_d_piece, titok, tokenflow

    latent = partial(titok.TiTokConfig, encoder=titok.SMALL, decoder=titok.SMALL)
    registers = flextok.FlexTokConfig(
        channels=3, size=256, patch=16, encoder_width=768, encoder_layers=12, decoder_width=768, decoder_layers=12,
        steps=2,
    )  # fmt: skip
    scales = tokenflow.TokenFlowConfig(
        image=224, patch=16, scales=(1, 2, 3, 4, 5, 6, 8, 10, 12, 14), width=768, layers=12, heads=12, hidden=3072
    )
    plain = CaptureOptions()
    return {
        "titok": (lambda: titok.TiTok(latent(tokens=128)), plain),
        "one-d-piece": (lambda: one_d_piece.OneDPiece(latent(tokens=256, legacy=False)), plain),
        "flextok": (lambda: flextok.FlexTok(registers), plain),
        "larp": (lambda: larp.Larp(larp.LarpConfig(layers=6)), plain),
        "tokenflow": (lambda: tokenflow.TokenFlow(scales), plain),
        "janus": (lambda: JanusVQVAE(tf.JanusVQVAEConfig(num_patches=16)), plain),
        "chameleon": (lambda: ChameleonVQVAE(tf.ChameleonVQVAEConfig()), CaptureOptions(size=256)),
        "emu3": (lambda: tf.Emu3VQVAE(tf.Emu3VQVAEConfig()), CaptureOptions(size=128)),
    }


def models() -> dict[str, tuple[Build, CaptureOptions]]:
    """A model of each family by name, and what its sample is."""
    return codecs() | pictures()


@dataclass(frozen=True)
class Loaded(Quantiser):
    """With its weights as tensors from the start: torch.compile does not take arrays in inference mode."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", super()._tensors())

    def _tensors(self) -> dict[str, torch.Tensor]:
        return self.tensors  # type: ignore[attr-defined]


class ToIds(torch.nn.Module):
    """A network of the zoo and its quantiser behind it, in PyTorch."""

    def __init__(self, network: torch.nn.Module, quantiser: Quantiser):
        super().__init__()
        self.network, self.quantiser = network, quantiser

    def forward(self, **signal: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = self.network(**signal)
        return outputs | {"ids": self.quantiser.ids(outputs.pop("vectors"))}


class FromIds(ToIds):
    """The quantiser in front of the network that gives the signal back; a picture's vectors are a square map."""

    def forward(self, ids: torch.Tensor, grid: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
        vectors = self.quantiser.vectors(ids)
        return self.network(vectors if grid is None else vectors.mT.unflatten(2, (isqrt(ids.shape[1]), -1)))


def shipped(name: str) -> dict[str, tuple[Captured, torch.nn.Module]]:
    """A tokenizer of the zoo: its graphs, and the same weights in PyTorch."""
    from edgetok.exporters.sources.zoo import capture_zoo
    from tests.test_shipped_tokenizers import network, quantiser

    captured = capture_zoo(name, CaptureOptions(batch=1))
    assert captured.decoder is not None
    signal = {"pixels": (1, 3, 512, 512)} if name.startswith("photo") else {"waveform": (1, 1, 32_000)}
    ((key, shape),) = signal.items()
    captured.example = {key: np.random.default_rng(0).random(shape, np.float32)}
    captured.decoder.example = captured.reference(captured.example)
    made = quantiser(name)
    made = Loaded(made.head, made.config, made.parameters, made.groups)
    encode, decode = ToIds(network(name, "encode"), made), FromIds(network(name, "decode"), made)
    return {"encode": (captured, encode), "decode": (captured.decoder, decode)}


def exported(name: str) -> dict[str, tuple[Captured, Any]]:
    """One of `models`, its graphs and what they were captured from."""
    build, options = models()[name]
    torch.manual_seed(0)
    model = build().eval().requires_grad_(False)
    family = family_of(model)
    assert family is not None
    size = (options.size, options.size) if isinstance(options.size, int) else options.size
    parts = load(family).parts(model, options.length, size)
    captured = capture_tokenizer(model, family, Origin("callable", name), options)
    graphs = {"encode": (captured, parts.encode)}
    return graphs if captured.decoder is None else graphs | {"decode": (captured.decoder, parts.decode)}


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


def turns(sides: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Milliseconds of a run of each side, by round.

    A turn is TURN seconds or one run, behind a run that is not timed: PyTorch's other thread spins for a while after
    its last loop, on the processor that ONNX Runtime's next needs, and caches hold the weights of the side before.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run(), run()
    for number in range(rounds):
        for name in sides if number % 2 else reversed(sides):
            sides[name]()
            start, runs = clock(), 0
            while not runs or clock() - start < TURN:
                sides[name]()
                runs += 1
            times[name].append(1e3 * (clock() - start) / runs)
    return times


def measure(name: str, arguments: argparse.Namespace) -> None:
    """Print a model's lines."""
    graphs = shipped(name) if name in ZOO else exported(name)
    for way in graphs if arguments.way is None else {arguments.way} & graphs.keys():
        graph, module = graphs[way]
        feeds = {key: array[:1] for key, array in graph.example.items()}
        with TemporaryDirectory() as folder:
            sides = {"edgetok": onnx_side(graph, feeds, arguments.threads, Path(folder) / way)}
            sides["eager"] = torch_side(module, feeds)
            if not arguments.no_compile:
                torch.compiler.reset()
                sides["compile"] = torch_side(torch.compile(module), feeds)
            times = turns(sides, arguments.rounds, time.process_time if arguments.threads == 1 else time.perf_counter)
        cells = [f"{median(times['edgetok']):.1f}"]
        others = [side for side in sides if side != "edgetok"]
        cells += [str(ratio(list(zip(times[other], times["edgetok"], strict=True)))) for other in others]
        print(f"| {name} | {way} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help=", ".join((*models(), *ZOO)))
    parser.add_argument("--way", choices=("encode", "decode"), help="one direction only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| model | direction | edgetok, ms | against eager | against torch.compile |\n|---|---|---|---|---|")
    for name in arguments.models or (*models(), *ZOO):
        measure(name, arguments)


if __name__ == "__main__":
    main()
