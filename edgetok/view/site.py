"""What a technique sees of one block, and what it writes with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from edgetok import graph as g

EPSILON = 1e-12


@dataclass
class Site:
    """Behind the attention of one block.

    Attributes:
        op: writes nodes: `site.op.MatMul(a, b)`.
        hidden: (B, N, C) the residual stream.
        batched: the graph's input, from which the batch is read.
        query, key, value: (B, h, N, d) of this block's attention.
        size: (B, N, 1) fp32: how many tokens each stands for, 0 for padding; None while all are 1.
        padded: whether some tokens may be padding.
        tokens: N.
        prefix: leading tokens that are no patches (CLS, registers); they must stay first, in their order.
        count: how many tokens go.
        block, blocks: number of this block, and how many there are.
    """

    op: g.Emitter
    hidden: ir.Value
    batched: ir.Value
    query: ir.Value
    key: ir.Value
    value: ir.Value
    size: ir.Value | None
    padded: bool
    tokens: int
    prefix: int
    count: int
    block: int
    blocks: int

    @cached_property
    def metric(self) -> ir.Value:
        """(B, N, d) fp32: the mean over heads of the keys, by which tokens are compared."""
        key = self.op.Cast(self.key, to=ir.DataType.FLOAT)
        return self.op.ReduceMean(key, np.array([1]), keepdims=0)

    @cached_property
    def unit_metric(self) -> ir.Value:
        """(B, N, d) fp32: the metric at length one, so that products are cosines; a row of zeros stays zeros."""
        length = self.op.ReduceL2(self.metric, np.array([-1]))
        return self.op.Div(self.metric, self.op.Max(length, np.float32(EPSILON)))

    @cached_property
    def is_padding(self) -> ir.Value:
        """(B, N) fp32: 1 for padding, else 0."""
        assert self.size is not None
        flat = self.op.Squeeze(self.size, np.array([2]))
        return self.op.Cast(self.op.Equal(flat, np.float32(0)), to=ir.DataType.FLOAT)

    def per_sample(self, row: np.ndarray) -> ir.Value:
        """(K,) -> (B, K): the same row for every sample."""
        batch = self.op.Shape(self.batched, start=0, end=1)
        zeros = self.op.Expand(np.zeros((1, 1), row.dtype), self.op.Concat(batch, np.array([1]), axis=0))
        return self.op.Add(zeros, row[None])  # the zeros are the same in every block: made once

    def part(self, value: ir.Value, start: int, end: int | None = None, step: int = 1) -> ir.Value:
        """value[:, start:end:step]"""
        end = g.LAST if end is None else end
        return self.op.Slice(value, np.array([start]), np.array([end]), np.array([1]), np.array([step]))
