"""Ids held to PyTorch's by `edgetok.tokenizer.near_ties`: those of families of tokenizers, and of quantiser heads."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from edgetok.tokenizer.family import load
from edgetok.tokenizer.near_ties import Search, channels, judge, levels, residual, scalar


def differing(
    got: torch.Tensor,
    wanted: torch.Tensor,
    family: str,
    part: nn.Module,
    signal: torch.Tensor,
    exact: nn.Module | None = None,
) -> int:
    """How many of a graph's ids are not PyTorch's; where there are any, both sides' must be best or near-ties.

    Args:
        got: (B, N) or (B, N, L), the graph's.
        wanted: PyTorch's.
        family: of exporters/tokenizers/.
        part: the encoder that the family makes, in fp32.
        signal: what the ids were made of.
        exact: the encoder of the model in fp64, where more than its type is another one: of `part`, weights may have
            been made in fp32.

    Raises:
        ParityError: an id is no near-tie.
    """
    assert got.shape == wanted.shape, f"ids of shape {tuple(got.shape)}, wanted {tuple(wanted.shape)}"
    if torch.equal(got, wanted):
        return 0
    exact, searches = deepcopy(part).double() if exact is None else exact, load(family).searches
    for ids in (got, wanted):
        judge(searches(exact, signal.double(), ids), searches(part, signal, ids)).check()
    return int((got != wanted).sum())


def of_head(
    name: str, config: Any, arrays: dict[str, torch.Tensor], x: torch.Tensor, ids: torch.Tensor
) -> list[Search]:
    """The searches of a quantiser head, exporters/heads/, for x (B, N, D), in its type."""
    held = {key: array.to(x.dtype) for key, array in arrays.items()}
    if name == "fsq":
        sizes = torch.tensor(config.levels)
        half = (sizes - 1).to(x.dtype) / 2
        return list(levels(x.tanh() * half + half if config.symmetric else scalar(x, sizes), ids, sizes))
    if name in ("lfq", "bsq", "gq"):
        bits = (ids.reshape(*x.shape[:2], -1, 1) & torch.from_numpy(config.values)) != 0
        return list(channels(x, torch.tensor([-1.0, 1.0]), bits.flatten(2).long()))
    if name == "dimwise":
        scaled = (x - config.low) / (config.high - config.low) * 6 - 3
        return list(channels(scaled, torch.from_numpy(config.normal_values), ids))
    if name == "dmel":
        return list(channels(x, torch.from_numpy(config.values), ids))
    if name == "dual":
        unit = [normalize(half, dim=-1) for half in x.split([config.semantic, config.pixel], dim=-1)]
        rows = [normalize(held[half], dim=-1) for half in ("semantic", "pixel")]
        return [Search(torch.cat(unit, dim=-1), torch.cat(rows, dim=-1), ids)]
    if name == "rvq":
        return list(residual(x, held["codebooks"][: config.used], ids.reshape(*x.shape[:2], -1)))
    if name == "product":
        apart = x.chunk(config.groups, dim=-1), held["codebooks"], ids.reshape(*x.shape[:2], -1).unbind(dim=-1)
        return [Search(*each) for each in zip(*apart, strict=True)]
    (rows,) = held.values()  # vq, kmeans-units
    if getattr(config, "metric", "euclidean") == "cosine":
        x, rows = normalize(x, dim=-1), normalize(rows, dim=-1)
    return [Search(x, rows, ids)]
