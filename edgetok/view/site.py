"""What a technique sees of the tokens at one place, and what it writes with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.errors import Refusal
from edgetok.view.attention import AttentionMap

EPSILON = 1e-24  # of a mean square
Number = int | np.ndarray | ir.Value  # the last two (1,) int64


@dataclass
class Site:
    """Behind the attention of a block, in front of it, or behind the encoder.

    Attributes:
        op: writes nodes: `site.op.MatMul(a, b)`.
        hidden: (B, N, C) the tokens that are reduced.
        batched: a value from whose first axis the batch is read.
        query, key, value: (B, h, N, d) of this block's attention; None behind the encoder.
        attention: what each token of this block attends to; None behind the encoder.
        size: (B, N, 1) fp32: how many tokens each stands for, 0 for padding; None while all are 1.
        padded: whether some tokens may be padding.
        tokens: N; the most that it can be, where only the run says it.
        prefix: leading tokens that are no patches (CLS, registers); they must stay first, in their order.
        count: how many tokens go; the most that may, of a dynamic technique.
        block, blocks: number of this block, and how many there are.
        memory: (B, N, M) fp32: what the technique observed in the blocks so far; None for nothing.
        crops: how many pictures the tokens come from, one behind the other: a thumbnail and its crops, or frames.
        positions: (B, N) int64: the original place of each token; None while nothing was reduced.
        original: how many tokens the first block has.
        source: (B, N0, C) behind the encoder: the residual stream behind the last block, from which norms and
            a projector make `hidden`; None where nothing is made of it.
        turn: how many blocks reduced before this one.
        length: (1,) int64: N, where only the run says it; else None.
    """

    op: g.Emitter
    hidden: ir.Value
    batched: ir.Value
    query: ir.Value | None
    key: ir.Value | None
    value: ir.Value | None
    attention: AttentionMap | None
    size: ir.Value | None
    padded: bool
    tokens: int
    prefix: int
    count: int
    block: int
    blocks: int
    memory: ir.Value | None = None
    crops: int = 1
    positions: ir.Value | None = None
    original: int = 0
    source: ir.Value | None = None
    turn: int = 0
    length: ir.Value | None = None

    @property
    def side(self) -> int:
        """Of the square grid of patches of one picture.

        Raises:
            Refusal: they stand on none.
        """
        patches = (self.tokens - self.prefix) // self.crops
        reduced = self.positions is not None
        if reduced or isqrt(patches) ** 2 != patches:
            what = "were reduced before" if reduced else f"are {patches}, the square of no number"
            raise Refusal(
                f"the technique asks where patches lie on a square grid, and the tokens behind the prefix {what}",
                way_out="give it all patches of a square picture (--size), or take one that knows no places: vtc-cls",
            )
        return isqrt(patches)

    @cached_property
    def metric(self) -> ir.Value:
        """(B, N, d) fp32: the mean over heads of the keys, by which tokens are compared."""
        key = self.op.Cast(self.key, to=ir.DataType.FLOAT)
        return self.op.ReduceMean(key, np.array([1]), keepdims=0)

    @cached_property
    def unit_metric(self) -> ir.Value:
        """(B, N, d) fp32: the metric at length one, so that products are cosines; a row of zeros stays zeros."""
        return self.unit(self.metric, _width(self.key))

    @cached_property
    def is_padding(self) -> ir.Value:
        """(B, N) fp32: 1 for padding, else 0."""
        assert self.size is not None
        flat = self.op.Squeeze(self.size, np.array([2]))
        return self.op.Cast(self.op.Equal(flat, np.float32(0)), to=ir.DataType.FLOAT)

    @cached_property
    def ones(self) -> ir.Value:
        """(B, N, 1) fp32 ones."""
        shape = self.op.Concat(self.op.Shape(self.hidden, start=0, end=2), np.array([1]), axis=0)
        return self.op.Expand(np.ones((1, 1, 1), np.float32), shape)

    @cached_property
    def unit_hidden(self) -> ir.Value:
        """(B, N, C) fp32: the tokens at length one; a row of zeros stays zeros."""
        return self.unit(self.op.Cast(self.hidden, to=ir.DataType.FLOAT), _width(self.hidden))

    def unit(self, rows: ir.Value, width: int) -> ir.Value:
        """(B, N, width) fp32, each row at length one, so that products are cosines; a row of zeros stays zeros.

        One node: a row at mean square one, times 1 / sqrt(width). ViT-S, one thread: 11 us, and 18 us for the length,
        its maximum with an epsilon, and the quotient.
        """
        scale = np.full(width, width**-0.5, np.float32)
        return self.op.RMSNormalization(rows, scale, axis=-1, epsilon=EPSILON)

    def projected(self, source: ir.Value) -> ir.Value:
        """(B', N0, C) -> (B', N, D): what norms and projector behind the last block make of other tokens."""
        assert self.source is not None
        return g.copies(self.op.graph, self.source, [self.hidden], source)[0]

    def gather(self, value: ir.Value, index: ir.Value) -> ir.Value:
        """(B, N, ...), (B, K) -> (B, K, ...): value[b, index[b]]"""
        return self.op.GatherND(value, self.op.Unsqueeze(index, np.array([-1])), batch_dims=1)

    def ranked(self, score: ir.Value, count: int, *, ascending: bool = False) -> ir.Value:
        """(B, N) fp32 -> (B, count) int64: the places of the largest (smallest), best first, ties the lower first."""
        index: ir.Value
        _, index = self.op.TopK(score, np.array([count]), axis=1, largest=int(not ascending), outputs=2)
        return index

    def in_order(self, index: ir.Value, count: Number) -> ir.Value:
        """(B, count) int64, ascending. Sorted as fp32, which is exact below 2^24 and known to every runtime."""
        floats = self.op.Cast(index, to=ir.DataType.FLOAT)
        ascending = self.op.TopK(floats, _one(count), axis=1, largest=0, outputs=2)[0]
        return self.op.Cast(ascending, to=ir.DataType.INT64)

    def keep_highest(self, score: ir.Value) -> ir.Value:
        """(B, N) fp32 -> (B, N): the prefix, the tokens of the highest scores by their places, and those that go."""
        free, kept = self.tokens - self.prefix, self.tokens - self.prefix - self.count
        ranked = self.op.Add(self.ranked(self.part(score, self.prefix), free), np.array(self.prefix))
        stay, gone = self.in_order(self.part(ranked, 0, kept), kept), self.part(ranked, kept)
        order: ir.Value = self.op.Concat(self.per_sample(np.arange(self.prefix)), stay, gone, axis=1)
        return order

    def keep_chosen(self, index: ir.Value) -> ir.Value:
        """(B, K), places behind the prefix -> (B, N): the prefix, the chosen and then the others, each by their places.

        A place may stand twice in `index`: the first of the others stays then.
        """
        op, free = self.op, self.tokens - self.prefix
        falling = -np.arange(free, dtype=np.float32)  # all keys differ: exact, and no question of ties
        high = op.Sub(np.float32(2 * free), op.Cast(index, to=ir.DataType.FLOAT))
        ranked = self.ranked(op.ScatterElements(self.per_sample(falling), index, high, axis=1), free)
        patches = op.Add(ranked, np.array(self.prefix)) if self.prefix else ranked
        order: ir.Value = op.Concat(self.per_sample(np.arange(self.prefix)), patches, axis=1)
        return order

    def stand_ins(self, order: ir.Value) -> ir.Value:
        """(B, N) -> (B, count): for each token that goes the row of the patch that stays whose key is the nearest.

        What a dropped token is restored from. The nodes vanish from a graph that restores nothing.
        """
        kept = self.tokens - self.count
        stay, gone = self.part(order, self.prefix, kept), self.part(order, kept)
        rows = [self.gather(self.unit_metric, index) for index in (gone, stay)]
        cosine = self.op.MatMul(rows[0], self.op.Transpose(rows[1], perm=[0, 2, 1]))  # (B, count, kept - prefix)
        if self.padded:
            barred = self.op.GatherElements(self.is_padding, stay, axis=1)
            cosine = self.op.Sub(cosine, self.op.Unsqueeze(self.op.Mul(barred, np.float32(4)), np.array([1])))
        row: ir.Value = self.op.Add(self.op.ArgMax(cosine, axis=2, keepdims=0), np.array(self.prefix))
        return row

    def per_sample(self, row: np.ndarray) -> ir.Value:
        """(K,) -> (B, K): the same row for every sample."""
        batch = self.op.Shape(self.batched, start=0, end=1)
        zeros = self.op.Expand(np.zeros((1, 1), row.dtype), self.op.Concat(batch, np.array([1]), axis=0))
        return self.op.Add(zeros, row[None])  # the zeros are the same in every block: made once

    def places(self, start: int, end: Number, step: int = 1) -> ir.Value:
        """(B, K): start, start + step, ... before `end`, the same for every sample."""
        return self.part(self.per_sample(np.arange(self.tokens)), start, end, step)

    def part(self, value: ir.Value, start: Number, end: Number = g.LAST, step: int = 1) -> ir.Value:
        """value[:, start:end:step]"""
        return self.op.Slice(value, _one(start), _one(end), np.array([1]), np.array([step]))


def _one(number: Number) -> ir.Value | np.ndarray:
    """(1,) int64"""
    return np.array([number]) if isinstance(number, int) else number


def _width(value: ir.Value | None) -> int:
    dims = g.static_shape(value) if value is not None else None
    assert dims is not None and dims[-1] is not None
    return dims[-1]
