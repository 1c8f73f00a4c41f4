"""Whether ids that are not PyTorch's are near-ties: the two nearest codes within rounding, given the ids before.

Every quantiser is a search for the nearest code: of a codebook's rows, of unit vectors where cosines count, and in one
channel where there are levels, buckets or signs. A search is computed in fp64, from the model's own signal, and its
score, x . c - |c|^2 / 2, is the larger the nearer a code is. An id is a near-tie where its score is short of the best
one by no more than rounding makes of the two: by the tolerance rule, twice what PyTorch's own fp32 is off by, which is
measured over all tokens and codes of the sample. It holds what the network rounds and what the search rounds. An id of
a later level or scale is judged by what the ids before it leave over, whichever they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgetok.errors import ParityError


@dataclass(frozen=True)
class Search:
    """One search, in the type of what it computes.

    Attributes:
        x: (B, N, D) what is quantised.
        codes: (K, D).
        ids: (B, N), what was found.
    """

    x: torch.Tensor
    codes: torch.Tensor
    ids: torch.Tensor

    def scores(self) -> torch.Tensor:
        """(B, N, K)"""
        return self.x @ self.codes.mT - self.codes.square().sum(dim=-1) / 2


Searches = Callable[[Any, torch.Tensor, torch.Tensor], Iterator[Search]]  # (encoder, signal, ids)


@dataclass(frozen=True)
class Judged:
    """Ids (B, ...), search after search.

    Attributes:
        short: by how much an id's score in fp64 is less than the best.
        room: by how much rounding may move the two against each other.
    """

    short: torch.Tensor
    room: torch.Tensor

    @property
    def turned(self) -> torch.Tensor:
        """Which ids are not the best in fp64."""
        return self.short > 0

    def check(self) -> int:
        """Make sure that each id that is not the best is a near-tie; how many there are.

        Raises:
            ParityError: one is not.
        """
        far = ~(self.short <= self.room)  # a NaN must not pass
        if far.any():
            raise ParityError(
                f"{int(far.sum())} of {far.numel()} ids are no near-ties: the first one's score is short of the best "
                f"by {float(self.short[far][0]):.3g}, and rounding makes at most {float(self.room[far][0]):.3g} of it"
            )
        return int(self.turned.sum())


@torch.no_grad()
def judge(exact: Iterable[Search], plain: Iterable[Search]) -> Judged:
    """Judge ids by the same searches in fp64 and in PyTorch's own type."""
    short, room = [], []
    for right, rounded in zip(exact, plain, strict=True):
        scores = right.scores()
        best, at = scores.max(dim=-1, keepdim=True)
        short.append((best - scores.gather(2, right.ids[..., None]))[..., 0])
        off = rounded.scores().double() - scores
        off -= off.gather(2, at)  # of two codes' scores, the best one's and another's, against each other
        room.append(2 * off.abs().amax(dim=(1, 2))[:, None].expand_as(short[-1]))
    return Judged(torch.cat(short, dim=1), torch.cat(room, dim=1))


def check(searches: Searches, encode: nn.Module, signal: torch.Tensor, ids: torch.Tensor) -> None:
    """Make sure that each id of an encoder is the best in fp64, or a near-tie with the best.

    Args:
        searches: of the encoder's family.
        encode: in fp32.
        signal: what the ids were made of.
        ids: (B, N) or (B, N, L), by whatever ran the encoder.

    Raises:
        ParityError: an id is neither.
    """
    exact = searches(deepcopy(encode).double(), signal.double(), ids)
    judge(exact, searches(encode, signal, ids)).check()


@torch.no_grad()
def heard(part: nn.Module, path: str, signal: torch.Tensor) -> torch.Tensor:
    """What a submodule gives out while an encoder runs."""
    seen: list[torch.Tensor] = []
    handle = part.get_submodule(path).register_forward_hook(lambda module, given, made: seen.append(made))
    try:
        part(signal)
    finally:
        handle.remove()
    return seen[-1]


def residual(x: torch.Tensor, codebooks: Iterable[torch.Tensor], ids: torch.Tensor) -> Iterator[Search]:
    """x (B, N, D), codebooks (K, D), ids (B, N, L)"""
    for codes, found in zip(codebooks, ids.unbind(dim=-1), strict=True):
        yield Search(x, codes.to(x.dtype), found)
        x = x - codes.to(x.dtype)[found]


def levels(x: torch.Tensor, ids: torch.Tensor, sizes: torch.Tensor) -> Iterator[Search]:
    """x (B, N, D) of which the nearest whole numbers, from 0 up, are the digits of ids (B, N), the lowest one first."""
    worth = torch.cumprod(torch.cat([torch.ones_like(sizes[:1]), sizes[:-1]]), dim=0)
    return channels(x, torch.arange(int(sizes.max())), ids[..., None] // worth % sizes)


def channels(x: torch.Tensor, values: torch.Tensor, ids: torch.Tensor) -> Iterator[Search]:
    """x (B, N, D), each channel with an id (B, N, D) of one of the values (K,)"""
    yield Search(x.flatten(1)[..., None], values[:, None].to(x.dtype), ids.flatten(1))


def scalar(x: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """x (B, N, D) as FSQ squeezes it (section 3.1 of its paper), moved so that the lowest level is 0."""
    half, offset = (sizes - 1) * 1.001 / 2, torch.where(sizes % 2 == 0, 0.5, 0.0).double()
    half = half.double()
    squeezed = (x + (offset / half).atanh().to(x.dtype)).tanh() * half.to(x.dtype) - offset.to(x.dtype)
    return squeezed + sizes // 2
