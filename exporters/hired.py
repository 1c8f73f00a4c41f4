"""hired: behind the encoder share a fixed count of tokens between the crops of a picture, by what each one shows.

HiRED: Attention-Guided Token Dropping for Efficient Inference of High-Resolution Vision-Language Models (AAAI 2025),
https://arxiv.org/abs/2408.10945, section 4; published code: HiRED_token_selection and HiRED_sub_img_budgets.

The batch is a picture's thumbnail and then its crops, row by row (`grid=2x2`). Of the K tokens that stay the thumbnail
has `alpha`; the rest is split over the crops by what the class token of the thumbnail attends to in block `first`,
summed over the patches that lie under each crop. Within each the highest attention of the class token in block `last`
stays. Budgets are rounded down, so a few tokens are over: they go to the best that are left, in any crop, so that
always K stay (the published code leaves them out). The tokens come out as one row, picture by picture in raster order;
laying crops side by side and marking rows is the language model's business, by `token_positions`. Without `grid` every
sample is a picture of its own. Attention is averaged over heads where the paper sums: the same order, the same shares.

Where the published code differs (`variant=code`): it counts the `1 - alpha` best patches of the thumbnail instead of
their attention, and not under each crop but in strips: the first of four crops gets the first quarter of the rows.
A crop's padding takes part as any patch does; the published code drops the tokens that it chose there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.errors import UsageError
from edgetok.exporters._crops import join, join_reference, parse_grid, pictures, under
from edgetok.technique import Observe, Selection, State, Technique

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site


@dataclass(frozen=True)
class Config:
    """Options of hired.

    Attributes:
        grid: rows and columns of crops behind the thumbnail, "2x2"; without it every sample is a picture of its own.
        alpha: the thumbnail's share of the tokens that stay.
        first: the block whose attention splits the rest over the crops.
        last: the block whose attention chooses in each; negative from the end. The paper's is 22, the last one used.
        variant: "paper", or "code" for the shares as the published code counts them.
    """

    grid: str = ""
    alpha: float = 0.5
    first: int = 0
    last: int = -1
    variant: str = "paper"

    def __post_init__(self) -> None:
        parse_grid(self.grid)
        if self.variant not in ("paper", "code"):
            raise UsageError(f"option variant={self.variant!r}: accepted are paper and code")
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"option alpha={self.alpha}: accepted is a number from 0 to 1")

    def reads(self, blocks: int) -> list[int]:
        """The blocks whose attention counts.

        Raises:
            UsageError: a model without them.
        """
        wanted = [self.first, self.last] if self.grid else [self.last]
        found = [at if at >= 0 else blocks + at for at in wanted]
        if sorted(found) != found or not all(0 <= at < blocks for at in found):
            raise UsageError(
                f"hired reads blocks {' and then '.join(map(str, wanted))}, and the model has blocks 0-{blocks - 1}: "
                "name them with first= and last="
            )
        return found

    def split(self, kept: int, patches: int) -> tuple[int, int]:
        """How many tokens of the thumbnail stay, and how many of the crops."""
        crops = pictures(self.grid) - 1
        first = max(min(int(kept * self.alpha), patches), kept - crops * patches)
        return first, kept - first

    def parts(self, side: int) -> np.ndarray:
        """(side * side, crops) fp32: 1 where a patch of the thumbnail counts for a crop."""
        if self.variant == "paper":
            return under(side, self.grid)
        crops, patches = pictures(self.grid) - 1, side * side
        strip = np.arange(patches)[:, None] * crops // patches
        return (strip == np.arange(crops)).astype(np.float32)


def observe(site: Site, memory: ir.Value | None, config: Config) -> ir.Value | None:
    """(B, N, M) what the class token attends to in each of the blocks read."""
    seen = memory
    for block in config.reads(site.blocks):
        if block == site.block:
            assert site.attention is not None
            row = site.op.Unsqueeze(site.attention.class_row, np.array([2]))
            seen = row if seen is None else site.op.Concat(seen, row, axis=2)
    return seen


def observed(state: State, memory: torch.Tensor | None, config: Config) -> torch.Tensor | None:
    """The same in PyTorch."""
    import torch

    seen = memory
    for block in config.reads(state.blocks):
        if block == state.block:
            row = state.class_row[..., None]
            seen = row if seen is None else torch.cat([seen, row], dim=2)
    return seen


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """A budget per crop, and the highest scores within it."""
    op = site.op
    if not config.grid:
        return Selection(site.keep_highest(op.Squeeze(site.memory, np.array([2]))), None)
    patches = site.tokens // site.crops
    early, late = (op.Squeeze(v, np.array([2])) for v in op.Split(site.memory, num_outputs=2, axis=2, outputs=2))
    share, rest = config.split(site.tokens - site.count, patches)
    told = site.part(early, 0, patches)
    if config.variant == "code":
        count = int(patches * (1 - config.alpha))
        zeros, ones = (np.full((1, n), x, np.float32) for n, x in ((patches, 0), (count, 1)))
        told = op.ScatterElements(zeros, site.ranked(told, count), ones, axis=1)
    content = op.MatMul(told, config.parts(site.side))  # (1, crops)
    budgets = op.Floor(op.Div(op.Mul(content, np.float32(rest)), op.ReduceSum(content, np.array([1]))))
    crops = op.Reshape(site.part(late, patches), np.array([site.crops - 1, patches]))
    budgets = op.Reshape(budgets, np.array([-1, 1]))
    return Selection(join(site, site.part(late, 0, patches), share, crops, budgets), None)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    assert state.memory is not None
    if not config.grid:
        return Selection(state.keep_highest(state.memory[..., 0], count), None)
    kept = state.memory.shape[1] - count
    early, late = state.memory[0].T.reshape(2, state.crops, -1)  # (P, N)
    share, rest = config.split(kept, early.shape[1])
    budgets = shares(early[0], rest, state.side, config)
    return Selection(join_reference(late[:1], share, late[1:], budgets[:, None], kept), None)


def shares(told: torch.Tensor, rest: int, side: int, config: Config) -> torch.Tensor:
    """(N,) -> (crops,) how many of the `rest` tokens each crop has, by the thumbnail's attention."""
    import torch

    if config.variant == "code":
        best = told.argsort(descending=True, stable=True)[: int(len(told) * (1 - config.alpha))]
        told = torch.zeros_like(told).index_fill(0, best, 1)
    content = told @ torch.from_numpy(config.parts(side)).to(told.dtype)
    return (rest * content / content.sum()).floor()


TECHNIQUE = Technique(
    summary="share a fixed count of tokens between a picture's crops, by what the class token attended to",
    paper="HiRED, https://arxiv.org/abs/2408.10945, section 4",
    examples=("hired:keep=0.25", "hired:keep=0.25,grid=2x2"),
    config=Config,
    select=select,
    reference=reference,
    where="output",
    kind="prune",
    observe=Observe(observe, observed),
    needs_class_token=True,
    across=lambda config: pictures(config.grid),
)
