"""What a sparse attention is: it says which keys each block of queries attends to; the view does the rest.

One is a file in exporters/attention/, found by its name, that ends with `ATTENTION = Attention(...)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgetok import discovery, options
from edgetok.errors import UsageError
from edgetok.schedule import chosen_blocks

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.sparse import AttentionSite

PACKAGE = "edgetok.exporters.attention"
WIDEST = 128  # tokens of a block


@dataclass(frozen=True)
class Lists:
    """Which keys are attended to: blocks, as `edgetok::BlockSparseAttention` takes them, or single tokens.

    Attributes:
        index: (1 or B, 1 or h, Q, M) int32: the blocks of keys for each block of queries behind the first `whole`.
        count: (1 or B, 1 or h, Q) int32: how many of the M count.
        whole: the first blocks of queries, which attend to all keys and have no lists.
        window: the largest distance of a key that is seen; -1 for any.
        pinned: how many first keys are seen from any distance.
        density: the share of the pairs of blocks that are attended to (of those that a causal model could attend to);
            the most it can be, where the lists' lengths depend on the input.
        block_k: tokens of a block of keys, where these are not as large as those of queries; 0 for the same. With 1
            the lists hold tokens, which `edgetok::TokenSparseAttention` attends to, without a window.
        query, key, value: what attends and is attended to in place of the site's: sorted, or with further keys. In a
            causal model these stand in front, and are seen by all whose lists hold them.
        bias: (1 or B, K) fp32 what is added to the scores of these keys, in place of the site's.
        restore: what attention gives of such queries -> (B, h, N, d) in the tokens' order.
        more: the lists of the queries that follow, where these attend to further keys of their own; each has its
            `query`, and so have these lists.
    """

    index: ir.Value
    count: ir.Value
    whole: int
    window: int = -1
    pinned: int = 0
    density: float = 1.0
    block_k: int = 0
    query: ir.Value | None = None
    key: ir.Value | None = None
    value: ir.Value | None = None
    bias: ir.Value | None = None
    restore: Callable[[ir.Value], ir.Value] | None = None
    more: tuple[Lists, ...] = ()


@dataclass(frozen=True)
class AttentionState:
    """What the PyTorch reference of a sparse attention sees.

    Attributes:
        queries, keys: (B, h, N, d) of a block's attention.
        size: (B, N, 1) how many tokens each stands for; 0 for padding.
        scale: of the scores.
        prefix: leading tokens that are no patches.
        causal: whether a token sees only those before it and itself.
        ids: (B, N) the tokens of a text; None for anything else.
        measured: what was measured on samples in this block; None where nothing is.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    size: torch.Tensor
    scale: float
    prefix: int
    causal: bool
    ids: torch.Tensor | None = None
    measured: torch.Tensor | None = None


@dataclass(frozen=True)
class Attention:
    """One way of choosing the keys that attention looks at.

    Attributes:
        summary: one line for a list.
        paper: title, link, section.
        examples: specs, as on the command line, that the tests run.
        config: its options, a frozen dataclass with defaults, `block` among them: the tokens of a block.
        lists: (site, config) -> the lists of one block of the model, as values of its graph.
        reference: (state, config) -> (1 or B, 1 or h, N, N) bool: who sees whom, padding and causality left to others.
        pooled: (state, values, config) -> keys and values (B, h, P, d) that stand for (B, P) tokens each; the
            reference's mask has P more columns then.
        serves: what models it is for.
        by_place: whether it goes by the places of tokens, which a reduction would change.
        measures: site -> (B, ...) fp32, what is measured of a block on the samples before any attends sparsely: `lists`
            finds it, of all samples, as `site.measured`.
        of_density: (config, density, tokens) -> the options with which that share of the pairs of so many tokens is
            attended to, of those that a causal model could attend to; without it profile times block-topk in its place.
    """

    summary: str
    paper: str
    examples: tuple[str, ...]
    config: type
    lists: Callable[[AttentionSite, Any], Lists]
    reference: Callable[[AttentionState, Any], torch.Tensor]
    serves: Literal["encoders and DiTs", "causal models", "both"] = "both"
    by_place: bool = False
    pooled: Callable[[AttentionState, torch.Tensor, Any], tuple[torch.Tensor, ...]] | None = None
    measures: Callable[[AttentionSite], ir.Value] | None = None
    of_density: Callable[[Any, float, int], Any] | None = None


@dataclass(frozen=True)
class Auto:
    """Options of `auto`, which finds for each block how long block-topk's lists must be (edgetok/budgets.py).

    Attributes:
        mass: the share of attention that the lists hold on the samples, in each block; 0.95 if nothing is given.
        min_cosine: the least cosine of the outputs' tokens with the dense model's, the mean over the samples.
        block: tokens of a block: 16, 32, 64 or 128.
    """

    mass: float = 0.0
    min_cosine: float = 0.0
    block: int = 64

    def __post_init__(self) -> None:
        check_block(self.block)
        check_range(self, "mass", 0, 1)
        check_range(self, "min_cosine", 0, 1)
        if self.mass and self.min_cosine:
            raise UsageError("auto takes mass=0.95 or min-cosine=0.98, not both")


@dataclass(frozen=True)
class Shared:
    """Options that all sparse attentions take.

    Attributes:
        layers: the blocks that attend sparsely, "2-11" or "3/6/9"; all of them when empty.
        tiles: the height of the tiles by which a square picture's tokens are cut into blocks, in patches: 8 for blocks
            of 64; 0 leaves them row by row.
    """

    layers: str = ""
    tiles: int = 0

    def __post_init__(self) -> None:
        chosen_blocks(self.layers, None)
        check_range(self, "tiles", 0, 1024)


@dataclass(frozen=True)
class AttentionSpec:
    """What the user asked for: `window:size=256,global=1,layers=2-11`.

    Attributes:
        name: of the sparse attention, or "auto".
        config: its options.
        shared: those that all of them take.
    """

    name: str
    config: Any
    shared: Shared

    def names(self, block: int) -> bool:
        """Whether it is for that block of the model."""
        return not self.shared.layers or block in chosen_blocks(self.shared.layers, None)

    def __str__(self) -> str:
        """The canonical spelling, which goes into the manifest."""
        given = options.spelt(self.config) + options.spelt(self.shared)
        return self.name + (":" + ",".join(given) if given else "")


def names() -> list[str]:
    """The names of the sparse attentions; nothing is imported."""
    return discovery.names(PACKAGE)


def load(name: str) -> Attention:
    """The sparse attention of a name.

    Raises:
        UnknownName: there is none.
    """
    return discovery.load(PACKAGE, "attention", name, Attention)


def parse(text: str) -> AttentionSpec:
    """Read `NAME:key=value,...`.

    Raises:
        UnknownName: no such sparse attention or option.
        UsageError: a value that the option does not take.
    """
    name, given = options.split(text, "block=64")
    config = Auto if name == "auto" else load(name).config
    options.check_known(name, given, (config, Shared))
    return AttentionSpec(name, options.build(config, given), options.build(Shared, given))


def parse_all(text: str) -> tuple[AttentionSpec, ...]:
    """Read `NAME:key=value,...+NAME:...`: one sparse attention for some blocks, another for others.

    Raises:
        UnknownName: no such sparse attention or option.
        UsageError: a value that the option does not take, or `auto` among others.
    """
    specs = tuple(parse(part) for part in text.split("+"))
    if len(specs) > 1 and any(spec.name == "auto" for spec in specs):
        raise UsageError(f"{text!r}: auto chooses for all blocks that its layers= names, and stands alone")
    return specs


def keys_of_density(density: float, tokens: int) -> int:
    """How many earlier tokens each of a causal model's tokens sees, where there are so many, for a share of all pairs.

    With k of n tokens it is k / n (2 - k / n).
    """
    return max(1, round(tokens * (1 - (1 - density) ** 0.5)))


def check_block(block: int) -> None:
    """Make sure that an option is the tokens of a block.

    Raises:
        UsageError: it is not.
    """
    if block not in (16, 32, 64, WIDEST):
        raise UsageError(f"option block={block}: accepted are blocks of 16, 32, 64 and {WIDEST} tokens")


def check_range(config: object, name: str, low: float, high: float) -> None:
    """Make sure that an option lies between two numbers.

    Raises:
        UsageError: it does not.
    """
    value = getattr(config, name)
    if not low <= value <= high:
        raise UsageError(f"option {name.rstrip('_')}={value}: accepted is a number from {low:g} to {high:g}")
