"""sepllm: each token of a causal text model sees the first tokens, all separators before it, and its neighbours.

SepLLM: Accelerate Large Language Models by Compressing One Segment into One Separator,
https://arxiv.org/abs/2412.12094, section 3, its mask for training-free prefilling; published code: HKUDS/SepLLM.

A separator's key stands for the segment that it ends. Each `block` of tokens hands its separators, the last `most` of
them, to a compact list of keys in front of the others; a block of queries attends to that list for what lies before its
window, and to all tokens inside. Always kept: the `init` first tokens, and the token itself. Token ids come from the
graph's input `input_ids`; which of them are separators the user says (`ids=13/11/30`: those of full stop, comma and
question mark in the model's vocabulary, as `edgetok tokenize` shows them).

What differs: the window is `size` tokens at least and is rounded up to whole blocks, so it sees a superset of the
published mask (tests); and more than `most` separators within a block are cut, the earliest first. Separators hold for
all heads, as published. The published cache and its new places of keys have no meaning in one pass over a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.attention import Attention, AttentionState, Lists, check_block, check_range
from edgetok.errors import Refusal, UsageError
from edgetok.graph import constant

if TYPE_CHECKING:
    import torch

    from edgetok.view.sparse import AttentionSite

BARRED = np.float32(-1e4)  # is added to the scores of places in the list that hold no separator
FIRST = 1000.0  # the first tokens go into the list before any separator


@dataclass(frozen=True)
class Config:
    """Options of sepllm.

    Attributes:
        ids: the separators' token ids, as 13/11/30; there is no default, for vocabularies differ.
        init: how many first tokens all see.
        size: how many of the last tokens a token sees at least, itself among them.
        most: how many separators of a block are kept: 16, 32 or 64.
        block: tokens of a block: 16, 32, 64 or 128.
    """

    ids: str = ""
    init: int = 3
    size: int = 256
    most: int = 16
    block: int = 64

    def __post_init__(self) -> None:
        check_block(self.block)
        check_range(self, "size", 1, 2**24)
        check_range(self, "init", 0, self.most)
        if self.most not in (16, 32, 64) or self.most > self.block:
            raise UsageError(f"option most={self.most}: accepted are 16, 32 and 64, block={self.block} at most")
        if not all(part.isdecimal() for part in self.ids.split("/") if self.ids):
            raise UsageError(f"option ids={self.ids!r}: accepted are token ids, such as 13/11/30")

    def separators(self) -> list[int]:
        """The ids."""
        return [int(part) for part in self.ids.split("/")]

    def begins(self, row: int) -> int:
        """The block in which the window of a block of queries begins."""
        return max(0, row * self.block - self.size + 1) // self.block


def lists(site: AttentionSite, config: Config) -> Lists:
    """Put the separators in front of the keys; which blocks are listed is the same for all inputs."""
    op, blocks, most = site.op, site.blocks(config.block), config.most
    if site.ids is None or not config.ids:
        raise Refusal(
            "sepllm has to know which tokens are separators, "
            + ("and this graph has no input_ids" if site.ids is None else "and no ids are given"),
            way_out="ids=13/11/30 names them, for a model that reads token ids; streaming needs none",
        )
    place, there = _separators(site, config)
    key, value = (op.Concat(_taken(site, each, place), each, axis=2) for each in (site.key, site.value))
    bias = op.Mul(op.Sub(np.float32(1), there), BARRED)  # (B, blocks most)
    ours = op.Expand(site.bias_row(), op.Concat(op.Shape(site.key, start=0, end=1), np.array([site.tokens]), axis=0))
    bias = op.Concat(bias, ours, axis=1)
    each, rows = config.block // most, []
    for row in range(blocks):
        first = config.begins(row)
        last = min((row + 1) * each, -(-site.tokens // most))
        rows.append([*range(first), *range(blocks + first * each, blocks + last)])
    index = np.full((1, 1, blocks, max(map(len, rows))), -1, np.int32)
    for row, listed in enumerate(rows):
        index[0, 0, row, : len(listed)] = listed
    count = (index >= 0).sum(axis=-1).astype(np.int32)
    density = int(count.sum()) / (each * blocks * (blocks + 1) // 2)
    graph = site.op.graph
    return Lists(
        constant(graph, index), constant(graph, count), 0, density=min(density, 1), block_k=most, key=key, value=value,
        bias=bias,
    )  # fmt: skip


def _separators(site: AttentionSite, config: Config) -> tuple[ir.Value, ir.Value]:
    """(B, blocks most) int64, fp32: where the separators of each block stand, and whether there is one."""
    op, blocks = site.op, site.blocks(config.block)
    fill = blocks * config.block - site.tokens
    is_one = op.Equal(op.Unsqueeze(site.ids, np.array([2])), np.array(config.separators()))
    mark = op.ReduceMax(op.Cast(is_one, to=ir.DataType.FLOAT), np.array([2]), keepdims=0)  # (B, N)
    first = (np.arange(site.tokens) < config.init).astype(np.float32) * np.float32(FIRST)
    order = (np.arange(site.tokens) % config.block + 1).astype(np.float32)
    rank = op.Add(op.Mul(mark, order), first)  # later ones before earlier ones
    if site.size is not None:
        real = op.Greater(op.Squeeze(site.size, np.array([2])), np.float32(0))
        rank = op.Mul(rank, op.Cast(real, to=ir.DataType.FLOAT))
    rank = op.Pad(rank, np.array([0, 0, 0, fill])) if fill else rank
    rank = op.Reshape(rank, np.array([0, blocks, config.block]))
    found, at = op.TopK(rank, np.array([config.most]), axis=2, outputs=2)
    place = op.Add(at, (np.arange(blocks) * config.block)[:, None])
    there = op.Cast(op.Greater(found, np.float32(0)), to=ir.DataType.FLOAT)
    flat = np.array([0, -1])
    return op.Min(op.Reshape(place, flat), np.array(site.tokens - 1)), op.Reshape(there, flat)


def _taken(site: AttentionSite, value: ir.Value, place: ir.Value) -> ir.Value:
    """(B, g, N, d), (B, S) -> (B, g, S, d)."""
    op = site.op
    rows = op.Reshape(op.Transpose(value, perm=[0, 2, 1, 3]), np.array([0, site.tokens, -1]))
    kept = op.Reshape(op.KeepTokens(rows, place, domain="edgetok"), np.array([0, 0, site.groups, -1]))
    out: ir.Value = op.Transpose(kept, perm=[0, 2, 1, 3])
    return out


def reference(state: AttentionState, config: Config) -> torch.Tensor:
    """Who sees whom, by a loop over the blocks of queries."""
    import torch

    assert state.ids is not None
    tokens, block = state.keys.shape[2], config.block
    place = torch.arange(tokens)
    marked = torch.isin(state.ids, torch.tensor(config.separators())) & (state.size[..., 0] > 0)
    kept = torch.zeros_like(marked)
    for sample in range(len(kept)):
        for start in range(0, tokens, block):
            own = [i for i in range(start, min(start + block, tokens)) if marked[sample, i] or i < config.init]
            own = [i for i in own if state.size[sample, i] > 0]
            own.sort(key=lambda i: (i < config.init, i), reverse=True)
            kept[sample, own[: config.most]] = True
    begins = torch.tensor([config.begins(row) * block for row in (place // block).tolist()])
    return ((place >= begins[:, None])[None] | kept[:, None])[:, None]


ATTENTION = Attention(
    summary="each token of a causal text model sees the first tokens, the separators and those just before it",
    paper="SepLLM, https://arxiv.org/abs/2412.12094, section 3",
    examples=(
        "sepllm:ids=5/17/29/41/53/65/77/89/101/113,size=9,init=2,block=16",
        "sepllm:ids=5/17/29/41/53/65/77/89/101/113,size=9,most=16,block=32",
    ),
    config=Config,
    lists=lists,
    reference=reference,
    serves="causal models",
    by_place=True,
)
