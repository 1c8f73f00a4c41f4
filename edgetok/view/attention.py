"""The attention map of a block, for techniques that read it: computed once, whoever asks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.view.masks import BARRED


def key_bias(op: g.Emitter, size: ir.Value, proportional: bool, padded: bool) -> ir.Value:
    """(B, N, 1) -> (B, 1, 1, N) fp32: what attention adds per key: log(size), and a bar on padding."""
    row: ir.Value = op.Reshape(size, np.array([0, 1, 1, -1]))
    bias: ir.Value | np.float32 = np.float32(0)
    if proportional:
        bias = op.Log(op.Max(row, np.float32(1)) if padded else row)
    return op.Where(op.Greater(row, np.float32(0)), bias, np.float32(BARRED)) if padded else op.Identity(bias)


@dataclass
class AttentionMap:
    """What every token of a block attends to, in fp32.

    Attributes:
        op: writes nodes.
        query, key: (B, h, N, d)
        scale: of the scores.
        bias: (B, 1, 1, N) added per key, or (B, 1, N, N) where attention is local; None for nothing.
        local: whether it is.
    """

    op: g.Emitter
    query: ir.Value
    key: ir.Value
    scale: float
    bias: ir.Value | None
    local: bool = False

    @cached_property
    def scores(self) -> ir.Value:
        """(B, h, N, N) the scaled products of queries and keys, without bias."""
        return self._scores(self.query)

    @cached_property
    def weights(self) -> ir.Value:
        """(B, h, N, N) attention weights. Once they are asked for, the block's own attention uses them too."""
        return self._softmax(self.scores, self.bias)

    @cached_property
    def class_scores(self) -> ir.Value:
        """(B, h, 1, N) the scores of the first token's query, without bias."""
        first = self.op.Slice(self.query, np.array([0]), np.array([1]), np.array([2]))
        return self._scores(first)

    @cached_property
    def class_weights(self) -> ir.Value:
        """(B, h, 1, N) what the first token attends to."""
        if self.is_computed:
            return self.op.Slice(self.weights, np.array([0]), np.array([1]), np.array([2]))
        bias = self.bias
        if self.local:
            bias = self.op.Slice(bias, np.array([0]), np.array([1]), np.array([2]))
        return self._softmax(self.class_scores, bias)

    @property
    def is_computed(self) -> bool:
        """Whether all weights were asked for."""
        return "weights" in self.__dict__

    def _scores(self, query: ir.Value) -> ir.Value:
        op = self.op
        scaled = op.Mul(op.Cast(query, to=ir.DataType.FLOAT), np.float32(self.scale))
        return op.MatMul(scaled, op.Transpose(op.Cast(self.key, to=ir.DataType.FLOAT), perm=[0, 1, 3, 2]))

    def _softmax(self, scores: ir.Value, bias: ir.Value | None) -> ir.Value:
        if bias is not None:
            scores = self.op.Add(scores, self.op.Cast(bias, to=ir.DataType.FLOAT))
        return self.op.Softmax(scores, axis=-1)
