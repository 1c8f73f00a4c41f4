"""DToMe: token merging whose counts per block come from how alike the tokens of samples are.

DyMU: Dynamic Merging and Virtual Unmerging for Efficient VLMs (NeurIPS 2025), https://arxiv.org/abs/2504.17040,
section 3.1.

Matching and merging are ToMe's. In the paper every block has a threshold, found on samples: over all of them the best
matches are pooled, as many are merged as the budget has, and the score of the first that is not merged, 0 at least, is
the threshold. At run time each picture merges what lies above it, so that simple pictures keep fewer tokens.

A static graph, the default, has one count per block. An export finds it on its samples (`--samples`; seeded noise says
little): the mean over the samples of how many best matches lie strictly above the threshold. Where the paper gives each
block a budget, which would be its count, the scores of all blocks are pooled here: the schedule (`keep`, `r`) gives the
budget of all blocks together, and the blocks where tokens are alike merge more of it. `threshold=0.9`, or one per block
as in `threshold=0.9/0.88`, sets thresholds, and the schedule is the most that may go. What goes goes by rank, so a
static graph merges the same number in every picture.

`dynamic=true` is the paper's form: the graph counts the best matches strictly above the threshold and merges these, at
most half of the tokens, so its token axis has no number in it. The threshold is found as above, one for all blocks, or
given, with the schedule as the most. Two patches are left at least, to have something to compare, and where nothing is
merged tokens keep their order. A batch is one tensor: its count is the least over the pictures, so that none merges
more than its threshold says; the counts that the paper means are those of batch 1. Padding lies above every threshold.
The manifest's counts are the means over the samples, found by the static form.

Not here: virtual unmerging, which is done in a language model. `tome` says how ties and padding are treated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.errors import UsageError
from edgetok.exporters import tome
from edgetok.technique import Calibration, Selection, State, Technique

if TYPE_CHECKING:
    import torch

    from edgetok.view.site import Site


@dataclass(frozen=True)
class Config(tome.Config):
    """Options of DToMe, and of ToMe.

    Attributes:
        threshold: cosine above which tokens are merged, "0.9", or one per reduced block, "0.9/0.88"; found on the
            samples when not given.
        dynamic: whether each picture merges what lies above the threshold, or all as many.
    """

    threshold: str = ""
    dynamic: bool = False

    def __post_init__(self) -> None:
        self.thresholds()

    def thresholds(self) -> list[float]:
        """The thresholds given.

        Raises:
            UsageError: one is no cosine.
        """
        try:
            numbers = [float(part) for part in self.threshold.split("/")] if self.threshold else []
        except ValueError:
            numbers = [math.nan]
        if not all(-1 <= number <= 1 for number in numbers):
            raise UsageError(
                f"option threshold={self.threshold!r}: accepted is a cosine such as 0.9, or one per block: 0.9/0.88"
            )
        return numbers

    def limit(self, turn: int) -> float:
        """The threshold of a reduced block.

        Raises:
            UsageError: there is none.
        """
        given = self.thresholds()
        if not given:
            raise UsageError("dynamic=true merges by a threshold: give threshold=0.9, or samples to find it on")
        if turn >= len(given) > 1:
            raise UsageError(f"threshold={self.threshold} has {len(given)} numbers, and more blocks are reduced")
        return given[turn if len(given) > 1 else 0]


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """ToMe's, or with a count that the graph finds."""
    if not config.dynamic:
        return tome.select(site, config)
    op = site.op
    order, match, best = tome.matched(site)
    tokens = np.array([site.tokens]) if site.length is None else site.length
    alike = op.Cast(op.Greater(best, np.float32(config.limit(site.turn))), to=ir.DataType.INT64)
    least = op.ReduceMin(op.ReduceSum(alike, np.array([1]), keepdims=0), np.array([0]), keepdims=1)
    free = op.Sub(tokens, np.array([site.prefix]))
    r = op.Min(least, np.array([site.count]), op.Div(free, np.array([2])), op.Sub(free, np.array([2])))
    gone, left = site.part(order, 0, r), site.part(order, r)
    count = op.Shape(left, start=1, end=2)
    if site.prefix:
        left = site.in_order(left, count)
    _, b = tome.sets(site.prefix, site.tokens)
    order = op.Concat(site.per_sample(np.arange(site.prefix)), left, site.places(b.start, tokens, step=2), gone, axis=1)
    order = op.Where(op.Equal(r, np.array([0])), site.places(0, tokens), order)  # the next block compares the same sets
    destination = op.Add(site.part(match, 0, r), op.Add(count, np.array([site.prefix])))
    return Selection(order, destination, proportional=config.proportional, kept=op.Sub(tokens, r))


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    if not config.dynamic:
        return tome.reference(state, count, config)
    count = alike(state, count, config.limit(state.turn))
    chosen = tome.reference(state, count, config)
    return chosen if count else replace(chosen, order=chosen.order.sort(dim=1).values)


def alike(state: State, most: int, limit: float) -> int:
    """How many tokens go, in PyTorch: the least over the batch of the best matches above the limit."""
    free = state.hidden.shape[1] - state.prefix
    _, _, best = tome.matched_reference(state)
    return min(int((best > limit).sum(dim=1).min()), most, free // 2, free - 2)


def scores(site: Site, config: Config) -> ir.Value | None:
    """(B, |A|) the cosines of the best matches, the best first; those of padding are above all."""
    a, b = tome.sets(site.prefix, site.tokens)
    return tome.matched(site)[2] if a and b else None


def threshold(found: dict[int, np.ndarray], budget: int) -> float:
    """The score of the first match that is not merged when, per sample, `budget` of all blocks are; 0 at least."""
    pooled = np.sort(np.concatenate([each.ravel() for each in found.values()]))[::-1]
    first = budget * len(next(iter(found.values())))
    return max(float(pooled[first]), 0.0) if first < len(pooled) else 0.0


def counts(found: dict[int, np.ndarray], scheduled: dict[int, int], config: Config) -> dict[int, int]:
    """How many tokens go in each block: the mean over samples of the matches above its threshold.

    Means are rounded as they add up, so that their sum is the budget.
    """
    given = config.thresholds()
    if len(given) > 1 and len(given) != len(scheduled):
        raise UsageError(f"threshold={config.threshold} has {len(given)} numbers for {len(scheduled)} reduced blocks")
    shared = given[0] if given else threshold(found, sum(scheduled.values())) if found else 0.0
    limits = given if len(given) > 1 else [shared] * len(scheduled)
    result, total, spent = {}, 0.0, 0
    for (block, most), limit in zip(scheduled.items(), limits, strict=True):
        above = (found[block] > limit).sum(axis=1).mean() if block in found else 0.0
        total += float(above)
        result[block] = min(round(total) - spent, most) if given else round(total) - spent
        spent = round(total)
    return result


def settle(found: dict[int, np.ndarray], scheduled: dict[int, int], config: Config) -> tuple[dict[int, int], Config]:
    """The most that may go where each picture has its own count, and the config with the threshold.

    What is found holds the mean to the budget, and single pictures to half of their tokens only.
    """
    if config.threshold or not found:
        return scheduled, config
    half = max(each.shape[1] for each in found.values())
    limit = threshold(found, sum(scheduled.values()))
    return dict.fromkeys(scheduled, half), replace(config, threshold=str(limit))


TECHNIQUE = Technique(
    summary="tome with as many merges in each block as samples, or each picture, have tokens alike",
    paper="DyMU: Dynamic Merging and Virtual Unmerging, https://arxiv.org/abs/2504.17040, section 3.1",
    examples=("dtome:keep=0.5", "dtome:r=6,threshold=0.8,dynamic=true"),
    config=Config,
    select=select,
    reference=reference,
    calibration=Calibration(scores, counts, settle),
)
