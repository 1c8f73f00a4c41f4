"""dart: behind the encoder keep a few pivots, and for each of them the tokens that resemble it least.

Stop Looking for Important Tokens in Multimodal Language Models: Duplication Matters More (DART, EMNLP 2025),
https://arxiv.org/abs/2502.11494, section 3; published code: get_retained_image_token (read in EPIC, of its authors).

Pivots are the tokens whose keys have the largest L1 norm (all heads together). One pivot after the other takes its
share of the tokens that are left, those of the lowest cosine to it; what stays stands in its places' order. No
attention is read, and no class token is needed.

What differs, because an encoder has no text: the paper prunes between two layers of the language model, with 4 pivots
among the image's tokens and 4 among the text's, which are not kept; here all `pivots` are image tokens, and stay. Keys
are those of one block of the encoder, the last by default, and the features are those given out. Pivots take turns by
falling norm, where the published code follows the order of a Python set. Exactly the tokens asked for stay: where they
cannot be shared evenly, the first pivots take one more (the code rounds down).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.errors import UsageError
from edgetok.technique import Observe, Selection, State, Technique

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site

TAKEN = 8.0  # added to a cosine: behind all that are free
PADDING = 4.0  # added to a cosine: behind all real ones
NO_PIVOT = 1e9  # taken off a norm


@dataclass(frozen=True)
class Config:
    """Options of dart.

    Attributes:
        pivots: how many there are; fewer where fewer tokens stay.
        block: the one whose keys say which they are; negative from the end.
    """

    pivots: int = 8
    block: int = -1

    def __post_init__(self) -> None:
        if self.pivots < 1:
            raise UsageError(f"option pivots={self.pivots}: accepted is a count from 1 on")

    def shares(self, kept: int) -> list[int]:
        """How many tokens each pivot takes, so that `kept` stay with the pivots."""
        pivots = min(self.pivots, kept)
        share, more = divmod(kept - pivots, pivots)
        return [share + (pivot < more) for pivot in range(pivots)]


def observe(site: Site, memory: ir.Value | None, config: Config) -> ir.Value | None:
    """The L1 norms of the keys."""
    import onnx_ir as ir

    if site.block != config.block % site.blocks:
        return memory
    key = site.op.Cast(site.key, to=ir.DataType.FLOAT)
    return site.op.Unsqueeze(site.op.ReduceL1(key, np.array([1, 3]), keepdims=0), np.array([2]))


def observed(state: State, memory: torch.Tensor | None, config: Config) -> torch.Tensor | None:
    """The same in PyTorch."""
    return memory if state.block != config.block % state.blocks else state.keys.abs().sum(dim=(1, 3))[..., None]


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """One TopK per pivot, over what those before it left."""
    assert site.memory is not None
    op = site.op
    shares = config.shares(site.tokens - site.prefix - site.count)
    unit = site.part(site.unit_hidden, site.prefix)  # (B, T, C)
    norm = op.Squeeze(site.part(site.memory, site.prefix), np.array([2]))
    padding = None if site.size is None else site.part(site.is_padding, site.prefix)
    if padding is not None:
        norm = op.Sub(norm, op.Mul(padding, np.float32(NO_PIVOT)))
    pivots = site.ranked(norm, len(shares))
    cosine = op.MatMul(site.gather(unit, pivots), op.Transpose(unit, perm=[0, 2, 1]))
    if padding is not None:
        cosine = op.Add(cosine, op.Unsqueeze(op.Mul(padding, np.float32(PADDING)), np.array([1])))
    rows = op.Split(cosine, axis=1, num_outputs=len(shares), outputs=len(shares))
    rows = rows if len(shares) > 1 else (rows,)  # (B, 1, T) each
    chosen = op.Unsqueeze(pivots, np.array([1]))
    barred = op.Unsqueeze(site.per_sample(np.full(len(shares), TAKEN, np.float32)), np.array([1]))
    taken = op.ScatterElements(op.Mul(rows[0], np.float32(0)), chosen, barred, axis=2)  # (B, 1, T)
    for row, share in zip(rows, shares, strict=True):
        if share:
            lowest, index = op.TopK(op.Add(row, taken), np.array([share]), axis=2, largest=0, outputs=2)
            taken = op.ScatterElements(taken, index, op.Add(lowest, np.float32(TAKEN)), axis=2)
            chosen = op.Concat(chosen, index, axis=2)
    return Selection(site.keep_chosen(op.Squeeze(chosen, np.array([1]))), None)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    assert state.memory is not None
    unit = torch.nn.functional.normalize(state.hidden[:, state.prefix :], dim=-1)
    padding = (state.size[:, state.prefix :, 0] == 0).to(unit.dtype)
    norm = state.memory[:, state.prefix :, 0] - NO_PIVOT * padding
    shares = config.shares(unit.shape[1] - count)
    pivots = norm.argsort(dim=1, descending=True, stable=True)[:, : len(shares)]
    rows = unit.gather(1, pivots[..., None].expand(-1, -1, unit.shape[2]))
    cosine = rows @ unit.mT + PADDING * padding[:, None]
    return Selection(state.keep_chosen(torch.cat([pivots, least_similar(cosine, pivots, shares)], dim=1)), None)


def least_similar(cosine: torch.Tensor, taken: torch.Tensor, shares: list[int]) -> torch.Tensor:
    """(B, P, T), (B, M) -> (B, sum of shares): what the pivots take, one after the other, of the tokens not taken."""
    import torch

    for pivot, share in enumerate(shares):
        free = cosine[:, pivot].scatter_add(1, taken, torch.full_like(taken, TAKEN, dtype=cosine.dtype))
        taken = torch.cat([taken, free.argsort(dim=1, stable=True)[:, :share]], dim=1)
    return taken[:, taken.shape[1] - sum(shares) :]


TECHNIQUE = Technique(
    summary="keep a few pivots, and for each the tokens that resemble it least",
    paper="Duplication Matters More (DART), https://arxiv.org/abs/2502.11494, section 3",
    examples=("dart:keep=0.5", "dart:keep=0.3,pivots=3,block=1"),
    config=Config,
    select=select,
    reference=reference,
    where="output",
    kind="prune",
    observe=Observe(observe, observed),
)
