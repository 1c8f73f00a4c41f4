"""What a technique is: it says which tokens go, for one block at a time; the view does the rest.

A technique is a file in exporters/, found by its name, that ends with `TECHNIQUE = Technique(...)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from edgetok import discovery, options
from edgetok.schedule import Schedule

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site

T = TypeVar("T")
PACKAGE = "edgetok.exporters"


@dataclass(frozen=True)
class Selection(Generic[T]):
    """Which tokens stay, and what becomes of the others; of `ir.Value` in a graph, of tensors in a reference.

    Attributes:
        order: (B, N) int64: the tokens that stay, in their new order, then the r that go.
        destination: (B, r) int64: for each that goes, the new row that it is merged into (never a prefix token, whose
            value it would take in a restored output), or, where it is dropped,
            the row that stands in for it when the output is restored. None behind the encoder where all are dropped.
        dropped: how many of those that go, the last ones, are dropped and not merged.
        weight: (B, N, 1) fp32: the weight of each token in a merge; its size when None.
        mean: whether a merge divides by the sum of the weights.
        share: (B, N, 1) fp32: how much of its size a token that goes hands to its destination; all of it when None.
        proportional: whether attention counts a token as often as the tokens merged into it, from here on.
        ahead: whether the block weights its values with the attention of the tokens as they came, in place of its own
            softmax: summed over the keys that became one token, averaged over the queries by the weights of the merge;
            only where tokens are merged, none dropped, at the start of a block.
        kept: (1,) int64: how many stay, in the graph form of a dynamic technique, which drops none; else None, as the
            count of those that go says it.
    """

    order: T
    destination: T | None
    dropped: int = 0
    weight: T | None = None
    mean: bool = True
    share: T | None = None
    proportional: bool = True
    ahead: bool = False
    kept: T | None = None


@dataclass(frozen=True)
class State:
    """What the PyTorch reference of a technique sees: `Site` in tensors.

    Attributes:
        hidden: (B, N, C) the tokens that are reduced.
        size: (B, N, 1) how many tokens each stands for; 0 for padding.
        queries, keys, values: (B, h, N, d) of this block's attention.
        bias: (B, 1, 1 or N, N) what attention adds: per key log(size) where it is proportional and a bar on padding,
            and where attention is local a bar on the keys out of a query's reach.
        scale: of the attention scores.
        prefix: number of leading tokens that are no patches (CLS, registers).
        block: number of this block.
        blocks: how many blocks the model has.
        memory: (B, N, M) what the technique observed in the blocks so far; None for nothing.
        positions: (B, N) the original place of each token; None while nothing was reduced.
        original: how many tokens the first block has.
        source: (B, N, C) behind the encoder: the residual stream behind the last block, before norms and projector.
        project: what these make of such a stream.
        crops: how many pictures the tokens come from, one behind the other: a thumbnail and its crops, or frames.
        turn: how many blocks reduced before this one.
    """

    hidden: torch.Tensor
    size: torch.Tensor
    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor
    scale: float
    prefix: int
    block: int
    blocks: int
    memory: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    original: int = 0
    source: torch.Tensor | None = None
    project: Callable[[torch.Tensor], torch.Tensor] | None = None
    crops: int = 1
    turn: int = 0

    @property
    def scores(self) -> torch.Tensor:
        """(B, h, N, N) the scaled products of queries and keys, without bias."""
        return self.queries @ self.keys.mT * self.scale

    @property
    def attention(self) -> torch.Tensor:
        """(B, h, N, N) attention weights."""
        return (self.scores + self.bias).softmax(dim=-1)

    @property
    def class_row(self) -> torch.Tensor:
        """(B, N) what the class token attends to, the mean over heads."""
        return self.attention[:, :, 0].mean(dim=1)

    @property
    def side(self) -> int:
        """Of the square grid of patches of one picture."""
        return isqrt((self.hidden.shape[1] - self.prefix) // self.crops)

    def keep_highest(self, score: torch.Tensor, count: int) -> torch.Tensor:
        """(B, N) -> (B, N): the prefix, the tokens of the highest scores by their places, and the `count` that go."""
        import torch

        ranked = score[:, self.prefix :].argsort(dim=1, descending=True, stable=True) + self.prefix
        kept, gone = ranked[:, : ranked.shape[1] - count], ranked[:, ranked.shape[1] - count :]
        prefix = torch.arange(self.prefix).expand(len(ranked), -1)
        return torch.cat([prefix, kept.sort(dim=1).values, gone], dim=1)

    def keep_chosen(self, index: torch.Tensor) -> torch.Tensor:
        """(B, K), places behind the prefix -> (B, N): the prefix, the chosen and then the others, by their places."""
        import torch

        batch, tokens, _ = self.hidden.shape
        chosen = torch.zeros(batch, tokens).scatter(1, index + self.prefix, 1.0)
        return self.keep_highest(chosen, tokens - self.prefix - index.shape[1])

    def stand_ins(self, order: torch.Tensor, count: int) -> torch.Tensor:
        """(B, N) -> (B, count): for each token that goes the row of the patch that stays whose key is the nearest."""
        import torch

        unit = torch.nn.functional.normalize(self.keys.mean(dim=1), dim=-1)
        kept = order.shape[1] - count
        gone, stay = (
            unit.gather(1, index[..., None].expand(-1, -1, unit.shape[2]))
            for index in (order[:, kept:], order[:, self.prefix : kept])
        )
        padding = (self.size[..., 0] == 0).to(unit.dtype).gather(1, order[:, self.prefix : kept])
        return (gone @ stay.mT - 4 * padding[:, None]).argmax(dim=2) + self.prefix


@dataclass(frozen=True)
class Technique:
    """One way of reducing tokens.

    Attributes:
        summary: one line for `edgetok techniques`.
        paper: title, link and section.
        examples: specs that every test runs, on models of 4 blocks and 24 tokens or more; the first explains the
            technique.
        config: a frozen dataclass with the technique's own options. One named `dynamic` says that the graph finds how
            many tokens go as it runs, and that the count is the most that may.
        select: the graph form; (site, config) -> Selection.
        reference: the same in plain PyTorch; (state, count of tokens that go, config) -> Selection.
        where: the tokens it reduces: "block": between the attention and the MLP of a block; "start": in front of a
            block; "output": behind the encoder, those that the graph gives out.
        kind: what becomes of the tokens that go.
        observe: what it remembers of every block, reduced or not.
        needs_class_token: whether it asks what the class token attends to.
        needs_grid: whether it asks where patches lie on their square grid (`site.side`), with its default options.
        at_most: the largest share of the tokens that can go at once.
        across: config -> how many pictures share the tokens that are left; the batch is these: a thumbnail and its
            crops, or the frames of a video.
        calibration: how an export finds on its samples how many tokens go in each block; None where the schedule says.
    """

    summary: str
    paper: str
    examples: tuple[str, ...]
    config: type
    select: Callable[[Site, Any], Selection[ir.Value]]
    reference: Callable[[State, int, Any], Selection[torch.Tensor]]
    where: Literal["block", "start", "output"] = "block"
    kind: Literal["merge", "prune", "prune and merge", "pool"] = "merge"
    observe: Observe | None = None
    needs_class_token: bool = False
    needs_grid: bool = False
    at_most: float = 0.5
    across: Callable[[Any], int] | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Calibration:
    """How the counts of tokens that go are found on samples.

    Attributes:
        scores: (site, config) -> (B, K) fp32: what decides on each token of a block that can go; None where none can.
        counts: ({block: scores of the samples}, {block: scheduled count}, config) -> {block: count}.
        settle: of a dynamic technique: the same -> {block: the most that may go}, and the config with what was found.
    """

    scores: Callable[[Site, Any], ir.Value | None]
    counts: Callable[[dict[int, np.ndarray], dict[int, int], Any], dict[int, int]]
    settle: Callable[[dict[int, np.ndarray], dict[int, int], Any], tuple[dict[int, int], Any]] | None = None


@dataclass(frozen=True)
class Observe:
    """What a technique remembers of the blocks.

    Attributes:
        graph: (site, memory so far or None, config) -> (B, N, M) fp32, or None as long as there is nothing.
        reference: the same in PyTorch, of a `State`.
    """

    graph: Callable[[Site, ir.Value | None, Any], ir.Value | None]
    reference: Callable[[State, torch.Tensor | None, Any], torch.Tensor | None]


@dataclass(frozen=True)
class Plan:
    """A technique as it acts on one model.

    Attributes:
        name: of the technique.
        technique: what chooses the tokens.
        config: its options.
        counts: {block: how many tokens go; the most that may, of a dynamic technique}.
        behind: how many tokens of a picture go behind the encoder.
        mean: {block: how many tokens of the samples go on average} of a dynamic technique; None where none were run.
    """

    name: str
    technique: Technique
    config: Any
    counts: dict[int, int]
    behind: int = 0
    mean: dict[int, int] | None = None

    @property
    def dynamic(self) -> bool:
        """Whether the graph finds how many tokens go as it runs."""
        return getattr(self.config, "dynamic", False)

    @property
    def expected(self) -> dict[int, int]:
        """{block: how many tokens go}, on average where that differs."""
        return self.counts if self.mean is None else self.mean

    @property
    def crops(self) -> int:
        """How many pictures, which are the batch, share the tokens that are left."""
        return 1 if self.technique.across is None else self.technique.across(self.config)


@dataclass(frozen=True)
class Spec:
    """What the user asked for: `tome:r=16,layers=2-11`.

    Attributes:
        name: of the technique.
        schedule: how many tokens go in which block.
        config: the technique's own options.
    """

    name: str
    schedule: Schedule
    config: Any

    def __str__(self) -> str:
        """The canonical spelling, which goes into the manifest."""
        given = self.schedule.options() + options.spelt(self.config)
        return self.name + (":" + ",".join(given) if given else "")


def names() -> list[str]:
    """The techniques' names; nothing is imported."""
    return discovery.names(PACKAGE)


def load(name: str) -> Technique:
    """The technique of a name.

    Raises:
        UnknownName: there is none.
    """
    return discovery.load(PACKAGE, "technique", name, Technique)


def parse(text: str) -> Spec:
    """Read `NAME:key=value,...`.

    Raises:
        UnknownName: no such technique or option.
        UsageError: a value that the option does not take.
    """
    name, given = options.split(text, "r=16,layers=2-11")
    technique = load(name)
    options.check_known(name, given, (Schedule, technique.config))
    own = {f.name for f in dataclasses.fields(technique.config)}
    schedule = Schedule.parse({key: value for key, value in given.items() if key not in own})
    return Spec(name, schedule, options.build(technique.config, given))
