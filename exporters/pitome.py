"""PiToMe: merge the tokens that many others resemble, and protect those that stand alone.

Accelerating Transformers with Spectrum-Preserving Token Merging (NeurIPS 2024), https://arxiv.org/abs/2405.16148,
section 3.2, equation 4 and algorithm 1.

The energy of a token is the mean over all tokens of f(cosine of their keys): f(s) = s where s >= margin, else
alpha (exp(s - margin) - 1). The 2r tokens of the highest energy are mergeable; in the order of their energy, every
second one is merged into the most similar of the others. The order behind it: prefix tokens, the protected ones, the
destinations. The margin falls over the blocks: margin (1 - block / blocks). Attention counts merged tokens.

Where the published code differs (`variant=code`, whose numbers people compare with): f(s) = s - margin above the
margin; the margin begins at 0.75 for DeiT; the first half of the blocks ranks all pairs as ToMe does, with A and B
taken from the order of energy; attention does not count merged tokens. A distillation token is protected here (it is
merged there). Padding, which the paper does not know, takes no part in the energy and goes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.errors import UsageError
from edgetok.technique import Selection, State, Technique

if TYPE_CHECKING:
    import torch

    from edgetok.view.site import Site

PADDING = 4.0  # above every energy and every cosine


@dataclass(frozen=True)
class Config:
    """Options of PiToMe.

    Attributes:
        margin: of the first block; it falls linearly to 0 behind the last. 0.9 in the paper, 0.75 in its code for DeiT.
        alpha: weight of the tokens below the margin.
        variant: "paper", or "code" for what the published code does.
    """

    margin: float = 0.9
    alpha: float = 1.0
    variant: str = "paper"

    def __post_init__(self) -> None:
        if self.variant not in ("paper", "code"):
            raise UsageError(f"option variant={self.variant!r}: accepted are paper and code")

    def at(self, block: int, blocks: int) -> float:
        """The margin of a block."""
        return self.margin * (1 - block / blocks)

    def ranks_pairs(self, block: int, blocks: int) -> bool:
        """Whether a block ranks all pairs, as ToMe does."""
        return self.variant == "code" and block < (blocks + 1) // 2


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """Merge the tokens of the highest energy."""
    op, r, prefix = site.op, site.count, site.prefix
    free = site.tokens - prefix
    unit = site.part(site.unit_metric, prefix)  # (B, T, d)
    padding = site.part(site.is_padding, prefix) if site.padded else None
    energy = _energy(site, unit, padding, config)
    _, ranked = op.TopK(energy, np.array([free]), axis=1, outputs=2)  # (B, T), the highest energy first
    mergeable = free if config.ranks_pairs(site.block, site.blocks) else 2 * r
    a, b = (
        op.Slice(ranked, np.array([start]), np.array([mergeable]), np.array([1]), np.array([2])) for start in (0, 1)
    )
    bias: list[object] = [np.zeros((1, 1), np.float32)] * 2
    if padding is not None:
        bias = [
            op.Mul(op.GatherElements(padding, rows, axis=1), np.float32(sign * PADDING))
            for rows, sign in ((a, 1), (b, -1))
        ]
    rows_of = [op.GatherND(unit, op.Unsqueeze(rows, np.array([-1])), batch_dims=1) for rows in (a, b)]
    order, match, _ = op.BipartiteMatch(*rows_of, *bias, domain="edgetok", outputs=3)
    a = op.GatherElements(a, order, axis=1)  # the best matched first
    unmerged = [site.part(a, r), site.part(ranked, mergeable)]  # the second is empty where all are mergeable
    stay = op.Concat(unmerged[0] if mergeable == free else unmerged[1], b, axis=1)
    positions = op.Add(op.Concat(stay, site.part(a, 0, r), axis=1), np.array(prefix))
    order = op.Concat(site.per_sample(np.arange(prefix)), positions, axis=1)
    destination = op.Add(site.part(match, 0, r), np.array(prefix + free - r - mergeable // 2))
    return Selection(order, destination, proportional=config.variant == "paper")


def _energy(site: Site, unit: ir.Value, padding: ir.Value | None, config: Config) -> ir.Value:
    """(B, T) fp32: neighbours differ by 1e-6 at 197 tokens, so half precision would be noise.

    f is the sum of what is above the margin and what is below: Where and Elu took five times as long (203 tokens, one
    thread: 0.26 ms). Averaged by ReduceMean, for a product with 1 / T in each row rounds so that other tokens go.
    """
    op, margin = site.op, np.float32(config.at(site.block, site.blocks))
    cosine = op.MatMul(unit, op.Transpose(unit, perm=[0, 2, 1]))
    beyond = op.Sub(cosine, margin)
    below = op.Sub(op.Exp(op.Clip(beyond, None, np.float32(0))), np.float32(1))  # 0 above the margin
    if config.alpha != 1:
        below = op.Mul(below, np.float32(config.alpha))
    if config.variant == "paper":
        least = np.nextafter(margin, np.float32(-np.inf))  # the operator asks for more than it
        above = op.ThresholdedRelu(cosine, alpha=float(least))
    else:
        above = op.Relu(beyond)
    score = op.Add(above, below)
    if padding is None:
        return op.ReduceMean(score, np.array([2]), keepdims=0)
    real = op.Sub(np.float32(1), padding)
    total = op.Squeeze(op.MatMul(score, op.Unsqueeze(real, np.array([2]))), np.array([2]))
    mean = op.Div(total, op.Max(op.ReduceSum(real, np.array([1])), np.float32(1)))
    return op.Add(mean, op.Mul(padding, np.float32(PADDING)))


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    from edgetok.plugins.bipartite_match import reference as match_tokens

    batch, tokens, _ = state.hidden.shape
    free, prefix = tokens - state.prefix, state.prefix
    metric = torch.nn.functional.normalize(state.keys.mean(dim=1)[:, prefix:], dim=-1)
    padding = (state.size[:, prefix:, 0] == 0).to(metric.dtype)
    energy = energies(metric, padding, config.at(state.block, state.blocks), config)
    ranked = energy.argsort(dim=-1, descending=True, stable=True)
    mergeable = free if config.ranks_pairs(state.block, state.blocks) else 2 * count
    a, b = ranked[:, 0:mergeable:2], ranked[:, 1:mergeable:2]
    rows_a, rows_b = (metric.gather(1, rows[..., None].expand(-1, -1, metric.shape[2])) for rows in (a, b))
    order, match, _ = match_tokens(rows_a, rows_b, PADDING * padding.gather(1, a), -PADDING * padding.gather(1, b))
    a = a.gather(1, order)
    stay = torch.cat([a[:, count:], ranked[:, mergeable:], b], dim=1)
    order = torch.cat([torch.arange(prefix).expand(batch, -1), prefix + stay, prefix + a[:, :count]], dim=1)
    destination = match[:, :count] + tokens - count - b.shape[1]
    return Selection(order, destination, proportional=config.variant == "paper")


def energies(metric: torch.Tensor, padding: torch.Tensor, margin: float, config: Config) -> torch.Tensor:
    """(B, T): how much the tokens (B, T, d), of length one, resemble the others."""
    import torch

    cosine = metric @ metric.mT
    below = config.alpha * ((cosine - margin).exp() - 1)
    score = torch.where(cosine >= margin, cosine if config.variant == "paper" else cosine - margin, below)
    real = 1 - padding
    mean = (score * real[:, None]).sum(-1) / real.sum(-1, keepdim=True).clamp_min(1)
    return mean + PADDING * padding


TECHNIQUE = Technique(
    summary="merge tokens that many others resemble, protect those that stand alone",
    paper="Accelerating Transformers with Spectrum-Preserving Token Merging, "
    "https://arxiv.org/abs/2405.16148, section 3.2",
    examples=("pitome:r=4", "pitome:ratio=0.85,variant=code"),
    config=Config,
    select=select,
    reference=reference,
)
