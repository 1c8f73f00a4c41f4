"""Trains the tokenizers that edgetok ships, on one thread of a CPU.

    pip install edgetok[export] av scikit-image && python benchmarks/tokenizer_data.py data
    PYTHONPATH=. python benchmarks/train_tokenizers.py photo-fsq data

The graphs go to edgetok/zoo/NAME/. The seed is fixed; another version of PyTorch, or another processor, rounds in other
ways and ends at other weights. What came out is measured by benchmarks/tokenizer_quality.py.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional

from benchmarks.tokenizer_data import fashion, photographs, speech
from edgetok import zoo
from edgetok.modules.audio_tokenizer import (
    CHANNELS,
    HOP,
    NOISY,
    SHAPED,
    SHAPED_WIDTH,
    SILENCE,
    AudioDecoder,
    AudioEncoder,
)
from edgetok.modules.image_tokenizer import PATCH, PIXELS, ImageDecoder, ImageEncoder
from edgetok.tokenizer import head as heads
from edgetok.tokenizer.joined import Quantiser, read_ids, write_ids

CROP = 128  # pixels
PICTURES = 8  # of a step
WIDTH = 80
DEPTH = (2, 4)  # blocks of the encoder and of the decoder
RATE = 1.5e-3  # of learning
STEPS = 1600
FRAMES, CODES = 40_000, 256  # of speech


class Training(Protocol):
    """What stands between encoder and decoder while they are trained."""

    channels: int

    def start(self, components: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
        """Principal components (pixels, pixels), the largest first -> the encoder's first linear map, (D, pixels)."""

    def __call__(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """z (M, D) -> what the decoder sees, with a gradient to z, and what is added to the loss."""


class Fsq:
    """Groups of channels, each rounded by `fsq`; the first channels of all groups carry most."""

    def __init__(self, levels: tuple[int, ...], groups: int):
        self.head, self.config, self.groups = heads.load("fsq"), heads.load("fsq").config(levels=levels), groups
        self.channels = groups * len(levels)
        bounds = (torch.from_numpy(each).float() for each in self.config.bounds)
        self.half, self.offset, self.shift = bounds
        self.parameters: dict[str, torch.Tensor] = {}

    def start(self, components: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
        rows = (components[:, : self.channels] / variances[: self.channels].sqrt()).mT * 0.7
        return rows.reshape(len(self.config.levels), self.groups, -1).transpose(0, 1).flatten(0, 1)

    def __call__(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = z.reshape(1, -1, len(self.config.levels))
        levels = torch.tensor(self.config.levels)
        smooth = ((z + self.shift).tanh() * self.half - self.offset) / (levels // 2)
        with torch.no_grad():
            rounded = self.head.reference_decode(self.head.reference_encode(z, {}, self.config), {}, self.config)
        return (smooth + (rounded - smooth).detach()).reshape(-1, self.channels), z.new_zeros(())


class Rvq:
    """Codebooks one behind the other, each moved to the mean of what chose a row (as VQ-VAE's appendix A.1)."""

    def __init__(self, levels: int, codes: int, channels: int):
        self.head = heads.load("rvq")
        self.config = self.head.config(levels=levels, codes=codes, width=channels)
        self.channels, self.groups = channels, 1
        self.books, self.counts = torch.zeros(levels, codes, channels), torch.zeros(levels, codes)
        self.sums = torch.zeros_like(self.books)
        self.filled = self.moving = False

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        return {"codebooks": self.books}

    def start(self, components: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
        return components[:, : self.channels].mT

    def __call__(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.filled:
            self.settle(z.detach())
            self.moving = True
        left = z.detach()
        for level, book in enumerate(self.books):
            ids = nearest(left, book)
            if self.moving:
                self._move(level, left, ids)
            left = left - book[ids]
        found = z.detach() - left
        return z + (found - z).detach(), 0.25 * (z - found).square().sum(dim=1).mean() / PIXELS

    def settle(self, z: torch.Tensor) -> None:
        """Codebooks by k-means; from now on they stay."""
        self.moving, self.filled, left = False, True, z
        for level, book in enumerate(self.books):
            book.copy_(kmeans(left, len(book)))
            ids = nearest(left, book)
            self.counts[level] = torch.bincount(ids, minlength=len(book)) * (CROP // PATCH) ** 2 * PICTURES / len(z)
            self.sums[level] = book * self.counts[level][:, None]
            left = left - book[ids]

    def _move(self, level: int, x: torch.Tensor, ids: torch.Tensor) -> None:
        """The means follow; a row that hardly anything chooses begins anew at one of the vectors."""
        book, keep = self.books[level], 0.99
        chosen = torch.bincount(ids, minlength=len(book)).float()
        self.counts[level].mul_(keep).add_(chosen, alpha=1 - keep)
        self.sums[level].mul_(keep).index_add_(0, ids, x, alpha=1 - keep)
        dead = self.counts[level] < 0.01 * len(x) / len(book)
        if dead.any():
            self.sums[level][dead] = x[torch.randint(0, len(x), (int(dead.sum()),))]
            self.counts[level][dead] = 1.0
        book.copy_(self.sums[level] / self.counts[level][:, None])


def nearest(x: torch.Tensor, book: torch.Tensor) -> torch.Tensor:
    """x (M, D), book (K, D) -> (M,)"""
    bias = book.square().sum(dim=1) / 2
    return torch.cat([(part @ book.mT - bias).argmax(dim=1) for part in x.split(8192)])


def kmeans(x: torch.Tensor, codes: int, rounds: int = 20) -> torch.Tensor:
    """x (M, D) -> (codes, D); a code that nothing chose begins anew at one of the vectors."""
    book = x[torch.randperm(len(x))[:codes]].clone()
    for _ in range(rounds):
        ids = nearest(x, book)
        count = torch.bincount(ids, minlength=codes)[:, None]
        total = torch.zeros_like(book).index_add_(0, ids, x)
        book = torch.where(count > 0, total / count.clamp(min=1), x[torch.randint(0, len(x), (codes,))])
    return book


class Crops:
    """Crops of photographs, mirrored, turned, and with other colours; one in eight is a wall of clothes."""

    def __init__(self, folder: Path, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.photographs = [each for each in photographs(folder) if min(each.shape[:2]) >= CROP]
        self.area = np.array([each.shape[0] * each.shape[1] for each in self.photographs], np.float64)
        self.clothes = fashion(folder)

    def __call__(self, count: int) -> torch.Tensor:
        """(count, 3, CROP, CROP) of 0 to 1."""
        crops = [self._clothes() if i % 8 == 7 else self._photograph() for i in range(count)]
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)

    def _clothes(self) -> np.ndarray:
        side = CROP // 28 + 1
        chosen = self.clothes[self.rng.integers(0, len(self.clothes), side * side)]
        wall = chosen.reshape(side, side, 28, 28).transpose(0, 2, 1, 3).reshape(side * 28, side * 28)
        down, right = self.rng.integers(0, side * 28 - CROP + 1, 2)
        grey = wall[down : down + CROP, right : right + CROP].astype(np.float32) / 255
        return np.repeat(grey[..., None], 3, axis=2)

    def _photograph(self) -> np.ndarray:
        whole = self.photographs[self.rng.choice(len(self.area), p=self.area**0.5 / (self.area**0.5).sum())]
        down, right = (self.rng.integers(0, side - CROP + 1) for side in whole.shape[:2])
        turns = int(self.rng.integers(0, 4))
        crop = np.rot90(whole[down : down + CROP, right : right + CROP], turns).astype(np.float32)
        if self.rng.random() < 0.5:
            crop = crop[:, ::-1]
        crop = crop[..., self.rng.permutation(3)] if self.rng.random() < 0.5 else crop
        grey, strength = crop.mean(axis=2, keepdims=True), self.rng.uniform(0.5, 1.8)
        light, middle = self.rng.uniform(0.7, 1.3), self.rng.uniform(-20, 20)
        return np.clip(((grey + (crop - grey) * strength) * light + middle) / 255, 0, 1)


def begin(encoder: ImageEncoder, decoder: ImageDecoder, quantiser: Training, pixels: torch.Tensor) -> None:
    """The linear maps: principal components in, and out what gives the patches back with the least square error."""
    patches = functional.pixel_unshuffle(pixels, PATCH).permute(0, 2, 3, 1).reshape(-1, PIXELS) - 0.5
    variances, components = torch.linalg.eigh(patches.mT @ patches / len(patches))
    with torch.no_grad():
        first = quantiser.start(components.flip(1), variances.flip(0))
        into, out = encoder.network.linear, decoder.network.linear
        assert into.bias is not None and out.bias is not None
        into.weight.copy_(first.unflatten(1, (-1, PATCH, PATCH)))
        into.bias.zero_()
        seen, _ = quantiser(patches @ first.mT)
        ones = torch.ones(len(seen), 1)
        back = torch.linalg.lstsq(torch.cat((seen, ones), dim=1), patches).solution
        out.weight.copy_(back[:-1].mT[..., None, None])
        out.bias.copy_(back[-1])


def train(quantiser: Training, crops: Crops, steps: int) -> tuple[ImageEncoder, ImageDecoder]:
    """Encoder and decoder for the quantiser, by square error; codebooks stay as they are for the last 60 percent."""
    torch.manual_seed(0)
    encoder = ImageEncoder(quantiser.channels, WIDTH, DEPTH[0])
    decoder = ImageDecoder(quantiser.channels, WIDTH, DEPTH[1])
    begin(encoder, decoder, quantiser, crops(256))
    for network in (encoder, decoder):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own types lack it
    weights = [*encoder.parameters(), *decoder.parameters()]
    adam, started, mean = torch.optim.AdamW(weights, betas=(0.9, 0.95)), time.monotonic(), 0.0
    for step in range(steps):
        adam.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        if isinstance(quantiser, Rvq) and step == int(0.4 * steps):
            encoder.requires_grad_(False)
            with torch.no_grad():
                quantiser.settle(encoder(crops(128))["vectors"].flatten(0, 1))
        pixels = crops(PICTURES)
        seen, added = quantiser(encoder(pixels)["vectors"].flatten(0, 1))
        side = CROP // PATCH
        back = decoder(seen.reshape(len(pixels), side, side, -1).permute(0, 3, 1, 2))
        error = (back - pixels).square().mean()
        adam.zero_grad()
        (error + added).backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.1)
        adam.step()
        mean = 0.98 * mean + 0.02 * error.item() if step else error.item()
        if step % 100 == 99:
            spent = (time.monotonic() - started) / 60
            print(f"{step + 1} steps, {spent:.1f} minutes: {-10 * math.log10(mean):.2f} dB on crops", flush=True)
    return encoder.eval(), decoder.eval()


def train_speech(folder: Path) -> dict[str, np.ndarray]:
    """Codebooks by k-means, of speech as it is, quieter, faster and slower; row 0 of those of gains is silence."""
    import soxr

    torch.manual_seed(0)
    waves = []
    for wave in speech(folder):
        waves += [wave * np.float32(gain) for gain in (0.03, 0.3, 1.0)]
        waves += [soxr.resample(wave, 16_000, 16_000 * speed) for speed in (0.87, 1.13)]
    encoder, vectors = AudioEncoder(), []
    with torch.no_grad():
        for wave in waves:
            vectors.append(encoder(torch.from_numpy(wave)[None, None])["vectors"][0])
    x = torch.cat(vectors)
    x = x[torch.randperm(len(x))[:FRAMES]]
    books = torch.stack([kmeans(part, CODES) for part in x.split(SHAPED_WIDTH, dim=1)])
    books[: (SHAPED + NOISY) // SHAPED_WIDTH, 0] = math.log2(SILENCE) / 2
    return {"codebooks": books.numpy()}


def write(
    encoder: torch.nn.Module, decoder: torch.nn.Module, quantiser: Quantiser, given: torch.Tensor, folder: Path
) -> None:
    """encode.onnx and decode.onnx, for any size and any batch."""
    import onnx_ir as ir

    from edgetok.exporters.sources.pytorch import capture_module
    from edgetok.model import Origin

    picture, origin = given.ndim == 4, Origin("zoo", folder.name)
    signal = "pixels" if picture else "waveform"
    axes = {2: "height", 3: "width"} if picture else {2: "samples"}
    first = capture_module(encoder, {signal: given}, origin, free={signal: axes})
    write_ids(first.model, quantiser)
    width = quantiser.layout.width
    vectors = torch.rand(2, width, 3, 5) if picture else torch.rand(2, 7, width)
    axes = {2: "rows", 3: "columns"} if picture else {1: "tokens"}
    second = capture_module(decoder, {"vectors": vectors}, origin, free={"vectors": axes})
    read_ids(second.model, quantiser)
    second.model.graph.outputs[0].name = signal
    folder.mkdir(exist_ok=True)
    for name, captured in (("encode", first), ("decode", second)):
        ir.save(captured.model, folder / f"{name}.onnx")
        print(f"{folder.name}/{name}.onnx: {(folder / f'{name}.onnx').stat().st_size} bytes")


def main() -> None:
    """Train one, write it, say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("photo-fsq", "photo-vq", "speech-pq"))
    parser.add_argument("data", type=Path, help="what benchmarks/tokenizer_data.py fetched")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder, started = Path(zoo.__file__).parent / options.name, time.monotonic()
    if options.name == "speech-pq":
        head = heads.load("product")
        config = head.config(groups=CHANNELS // SHAPED_WIDTH, codes=CODES, width=CHANNELS)
        quantiser = Quantiser(head, config, train_speech(options.data))
        write(AudioEncoder(), AudioDecoder(), quantiser, torch.rand(2, 1, 10 * HOP + 7), folder)
    else:
        training: Fsq | Rvq = Fsq((24, 7), groups=5) if options.name == "photo-fsq" else Rvq(6, 64, channels=24)
        encoder, decoder = train(training, Crops(options.data), STEPS)
        weights = {name: tensor.numpy() for name, tensor in training.parameters.items()}
        quantiser = Quantiser(training.head, training.config, weights, training.groups)
        write(encoder, decoder, quantiser, torch.rand(2, 3, 5 * PATCH + 1, 7 * PATCH), folder)
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
