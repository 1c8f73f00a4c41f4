"""Trains the picture tokenizers that edgetok ships, on two threads of a CPU.

    python benchmarks/tokenizer_data.py data && python benchmarks/train_tokenizers.py photo-fsq data

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
from tokenizer_data import fashion, photographs
from torch.nn import functional

from edgetok.modules.image_tokenizer import PATCH, PIXELS, ImageDecoder, ImageEncoder
from edgetok.tokenizer import head as heads

CROP = 128  # pixels
PICTURES = 8  # of a step
WIDTH = 80
DEPTH = (2, 4)  # blocks of the encoder and of the decoder
RATE = 2e-3


class Quantiser(Protocol):
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
        self.filled = False

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        return {"codebooks": self.books}

    def start(self, components: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
        return components[:, : self.channels].mT

    def __call__(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            left, fill = z.detach().float(), not self.filled
            for level, book in enumerate(self.books):
                if fill:
                    book.copy_(kmeans(left, len(book)))
                ids = nearest(left, book)
                if torch.is_grad_enabled() or fill or self.training:
                    self._move(level, left, ids)
                left = left - book[ids]
            self.filled = True
        found = z.detach() - left
        return z + (found - z).detach(), 0.25 * (z - found).square().sum(dim=1).mean() / PIXELS

    training = True

    def _move(self, level: int, x: torch.Tensor, ids: torch.Tensor) -> None:
        """The means follow; a row that hardly anything chooses begins anew at one of the vectors."""
        book, keep = self.books[level], 0.99 if self.filled else 0.0
        chosen = torch.bincount(ids, minlength=len(book)).float()
        self.counts[level].mul_(keep).add_(chosen, alpha=1 - keep)
        self.sums[level].mul_(keep).index_add_(0, ids, x, alpha=1 - keep)
        dead = self.counts[level] < 0.1 * len(x) / len(book) / 10
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
        crop = np.rot90(whole[down : down + CROP, right : right + CROP], self.rng.integers(0, 4)).astype(np.float32)
        if self.rng.random() < 0.5:
            crop = crop[:, ::-1]
        crop = crop[..., self.rng.permutation(3)] if self.rng.random() < 0.5 else crop
        grey, strength = crop.mean(axis=2, keepdims=True), self.rng.uniform(0.5, 1.8)
        light, middle = self.rng.uniform(0.7, 1.3), self.rng.uniform(-20, 20)
        return np.clip(((grey + (crop - grey) * strength) * light + middle) / 255, 0, 1)


def begin(encoder: ImageEncoder, decoder: ImageDecoder, quantiser: Quantiser, pixels: torch.Tensor) -> None:
    """The linear maps: principal components in, and out what gives the patches back with the least square error."""
    patches = functional.pixel_unshuffle(pixels, PATCH).permute(0, 2, 3, 1).reshape(-1, PIXELS) - 0.5
    variances, components = torch.linalg.eigh(patches.mT @ patches / len(patches))
    with torch.no_grad():
        first = quantiser.start(components.flip(1), variances.flip(0))
        encoder.network.linear.weight.copy_(first[..., None, None])
        encoder.network.linear.bias.zero_()
        seen, _ = quantiser(patches @ first.mT)
        ones = torch.ones(len(seen), 1)
        back = torch.linalg.lstsq(torch.cat((seen, ones), dim=1), patches).solution
        decoder.network.linear.weight.copy_(back[:-1].mT[..., None, None])
        decoder.network.linear.bias.copy_(back[-1])


def train(quantiser: Quantiser, crops: Crops, steps: int) -> tuple[ImageEncoder, ImageDecoder]:
    """Encoder and decoder for the quantiser, by square error."""
    torch.manual_seed(0)
    encoder = ImageEncoder(quantiser.channels, WIDTH, DEPTH[0])
    decoder = ImageDecoder(quantiser.channels, WIDTH, DEPTH[1])
    begin(encoder, decoder, quantiser, crops(256))
    weights = [*encoder.parameters(), *decoder.parameters()]
    adam, started = torch.optim.AdamW(weights, lr=RATE, betas=(0.9, 0.95), weight_decay=0.01), time.monotonic()
    encoder.to(memory_format=torch.channels_last)
    decoder.to(memory_format=torch.channels_last)
    loss, step = 0.0, 0
    while step < steps:
        for group in adam.param_groups:
            warm, rest = min(1, (step + 1) / 100), step / steps
            group["lr"] = RATE * warm * 0.5 * (1 + math.cos(math.pi * rest))
        pixels = crops(PICTURES)
        z = encoder(pixels)["vectors"]
        seen, added = quantiser(z.reshape(-1, quantiser.channels))
        side = CROP // PATCH
        back = decoder(seen.reshape(len(pixels), side, side, -1).permute(0, 3, 1, 2))
        error = (back - pixels).square().mean()
        adam.zero_grad()
        (error + added).backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.1)
        adam.step()
        loss, step = 0.98 * loss + 0.02 * error.item() if step else error.item(), step + 1
        if step % 100 == 0:
            spent = (time.monotonic() - started) / 60
            print(f"{step} steps, {spent:.1f} minutes: {-10 * math.log10(loss):.2f} dB on crops", flush=True)
    return encoder.eval(), decoder.eval()
