"""The tokens between two reductions, and how a selection leads from one stage to the next."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.technique import Selection
from edgetok.view.site import Site


@dataclass(frozen=True)
class Stage:
    """The tokens between two reductions.

    Attributes:
        tokens: N, how many there are; a name where only the run says it.
        length: (1,) int64: N, where only the run says it; else None.
        size: (B, N, 1) fp32: how many tokens each stands for, 0 for padding; None while all are 1.
        rows: (B, N0) int64: for each original token its row here; None while nothing was reduced.
        positions: (B, N) int64: the original place of each token that is here; None while nothing was reduced.
        bias: (B, 1, 1, N) added to the attention scores; None for none.
        memories: (B, N, M) fp32: what techniques remember, by their number; it follows its tokens.
        companions: what was made of these tokens' positions (`positions.py`), so that blocks share it.
    """

    tokens: int | ir.SymbolicDim
    size: ir.Value | None = None
    rows: ir.Value | None = None
    positions: ir.Value | None = None
    bias: ir.Value | None = None
    memories: dict[int, ir.Value] = field(default_factory=dict)
    companions: dict[Hashable, ir.Value] = field(default_factory=dict)
    length: ir.Value | None = None

    @property
    def fixed(self) -> int:
        """N, where it is a number."""
        assert isinstance(self.tokens, int), "what needs a number is refused behind a dynamic technique"
        return self.tokens

    def count(self) -> ir.Value | np.ndarray:
        """(1,) int64: N."""
        return np.array([self.tokens]) if self.length is None else self.length


@dataclass(frozen=True)
class Step:
    """A selection, ready to be applied to whatever belongs to the tokens (B, N, ...).

    Attributes:
        op: writes nodes.
        kept: how many tokens stay; a name where only the run says it.
        length: (1,) int64: the same, as the graph reads it.
        stay: (B, kept) their places.
        order: (B, M) those that stay, then those that are merged.
        into: (B, M - kept) the rows that they are merged into; None where all are dropped.
        rows: (B, N) for each token the row it ends in.
    """

    op: g.Emitter
    kept: int | ir.SymbolicDim
    length: ir.Value | np.ndarray
    stay: ir.Value
    order: ir.Value
    into: ir.Value | None
    rows: ir.Value

    @classmethod
    def of(cls, site: Site, selection: Selection[ir.Value]) -> Step:
        """Take a selection apart."""
        kept, merged = site.tokens - site.count, site.count - selection.dropped
        order, into = selection.order, selection.destination
        assert into is not None
        if selection.kept is None:
            first, stay = site.per_sample(np.arange(kept)), site.part(order, 0, kept)
        else:
            first, stay = site.places(0, selection.kept), site.part(order, 0, selection.kept)
        rows = site.op.ScatterElements(order, order, site.op.Concat(first, into, axis=1), axis=1)
        if selection.kept is not None:
            return cls(site.op, ir.SymbolicDim(f"tokens_{site.block}"), selection.kept, stay, order, into, rows)
        if selection.dropped:
            order, into = site.part(order, 0, kept + merged), site.part(into, 0, merged)
        return cls(site.op, kept, np.array([kept]), stay, order, into if merged else None, rows)

    def keep(self, value: ir.Value) -> ir.Value:
        """(B, N, C) -> (B, kept, C): those that stay."""
        return self.op.KeepTokens(value, self.stay, domain="edgetok")

    def merge(self, value: ir.Value, weight: ir.Value) -> tuple[ir.Value, ir.Value]:
        """(B, N, C), (B, N, 1) -> (B, kept, C), (B, kept, 1): the weighted means, and the sums of the weights."""
        merged: tuple[ir.Value, ir.Value] = self.op.MergeTokens(
            value, weight, self.order, self.into, self.length, domain="edgetok", outputs=2
        )
        return merged

    def add(self, value: ir.Value, weight: ir.Value) -> ir.Value:
        """(B, N, C), (B, N, 1) -> (B, kept, C): the weighted sums."""
        return self.op.SumTokens(value, weight, self.order, self.into, self.length, domain="edgetok")


def reduce_tokens(site: Site, step: Step, selection: Selection[ir.Value]) -> tuple[ir.Value, ir.Value | None]:
    """(B, kept, C), and (B, kept, 1) or None: the site's tokens and their sizes behind a selection."""
    hidden, size = site.hidden, site.size
    if step.into is None:
        return step.keep(hidden), None if size is None else step.keep(size)
    size = size if size is not None else site.ones
    if selection.weight is None:
        reduced, merged = step.merge(hidden, size)
        return reduced, merged if selection.share is None else step.add(size, selection.share)
    if selection.mean:
        reduced, _ = step.merge(hidden, selection.weight)
    else:
        reduced = step.add(hidden, selection.weight)
    # the sums of sizes come with any merge by them: 8 nodes fewer than SumTokens with weights of one
    return reduced, step.merge(size, size)[1] if selection.share is None else step.add(size, selection.share)


def attend_ahead(site: Site, step: Step, selection: Selection[ir.Value], value: ir.Value) -> ir.Value:
    """(B, h, kept, d): the values of the reduced tokens, weighted by the attention of the site's unreduced ones.

    Nothing of the size N x N is gathered: to sum the columns is to give each token the value of the row it ended in,
    and the rows are averaged behind the product. Transposes meet those that the block has around its attention.
    """
    op, heads_last = site.op, [0, 2, 1, 3]
    dims = g.static_shape(value)
    assert site.attention is not None and not selection.dropped and dims is not None
    heads, width = dims[1], dims[3]
    assert heads is not None
    apart = op.Reshape(op.Transpose(value, perm=heads_last), np.array([0, -1, width]))  # (B, kept h, d)
    places = op.Mul(op.Unsqueeze(step.rows, np.array([1])), np.array(heads))  # of a token's first head
    spread = site.gather(apart, op.Add(places, np.arange(heads)[:, None]))  # (B, h, N, d), in one pass
    product = op.MatMul(op.Cast(site.attention.weights, to=value.dtype), spread)  # (B, h, N, d)
    rows = op.Reshape(op.Transpose(product, perm=heads_last), np.array([0, 0, -1]))  # (B, N, h d)
    weight = next(w for w in (selection.weight, site.size, site.ones) if w is not None)
    merged, _ = step.merge(rows, weight)
    attended: ir.Value = op.Transpose(op.Reshape(merged, np.array([0, 0, heads, -1])), perm=heads_last)
    return attended


def next_stage(
    site: Site, stage: Stage, step: Step, size: ir.Value | None, bias: ir.Value | None, original: int
) -> Stage:
    """The stage behind a reduction of `original` tokens to begin with."""
    op = site.op
    rows = step.rows if stage.rows is None else op.GatherElements(step.rows, stage.rows, axis=1)
    positions = step.stay if stage.positions is None else op.GatherElements(stage.positions, step.stay, axis=1)
    weight = site.size if site.size is not None else site.ones
    memories = {
        number: step.keep(memory) if step.into is None else step.merge(memory, weight)[0]
        for number, memory in stage.memories.items()
    }
    g.typed(rows, ir.DataType.INT64, ["batch", original])
    g.typed(positions, ir.DataType.INT64, ["batch", step.kept])
    length = step.length if isinstance(step.length, ir.Value) else None
    return Stage(step.kept, size, rows, positions, bias, memories, length=length)
