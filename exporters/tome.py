"""ToMe: merge the most similar pairs of tokens, a fixed number in each block.

Token Merging: Your ViT But Faster (ICLR 2023), https://arxiv.org/abs/2210.09461, section 3 and appendix D.

Tokens at even positions (A) are compared with those at odd ones (B) by the cosine of their keys, averaged over heads.
The r tokens of A that are most similar to one of B are averaged into it, weighted by size; from then on attention
counts a token as often as the tokens merged into it. The order behind it: prefix tokens, what is left of A, B.

Where the published code differs: equal scores fall to the lower index (it sorts unstably); a zero key is similar to
nothing (it divides by zero); padding has size 0, goes first and changes nothing (it knows no padding); registers are
protected as CLS is (it knows none). `proportional=false` is its `prop_attn=False`, used for MAE models off the shelf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.technique import Selection, State, Technique

if TYPE_CHECKING:
    import torch

    from edgetok.view.site import Site

PADDING_FIRST = 4.0  # above every cosine


@dataclass(frozen=True)
class Config:
    """Options of ToMe.

    Attributes:
        proportional: whether attention counts a token as often as the tokens merged into it.
    """

    proportional: bool = True


def sets(prefix: int, tokens: int) -> tuple[range, range]:
    """The positions of A (even) and B (odd) behind the prefix."""
    return range(prefix + prefix % 2, tokens, 2), range(prefix + 1 - prefix % 2, tokens, 2)


def matched(site: Site) -> tuple[ir.Value, ir.Value, ir.Value]:
    """(B, |A|) each: the positions of A, the best matched first; which of B each is matched with; and how well."""
    op = site.op
    a, b = sets(site.prefix, site.tokens)
    bias_a: object = np.zeros((1, 1), np.float32)
    bias_b: object = np.zeros((1, 1), np.float32)
    if site.padded:
        bias_a = op.Mul(site.part(site.is_padding, a.start, step=2), np.float32(PADDING_FIRST))
        bias_b = op.Mul(site.part(site.is_padding, b.start, step=2), np.float32(-PADDING_FIRST))
    order, match, best = op.BipartiteMatch(
        site.part(site.unit_metric, a.start, step=2), site.part(site.unit_metric, b.start, step=2), bias_a, bias_b,
        domain="edgetok", outputs=3,
    )  # fmt: skip
    return op.Gather(np.array(a), order), match, best


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """Bipartite soft matching."""
    op, r = site.op, site.count
    a, b = sets(site.prefix, site.tokens)
    order, match, _ = matched(site)
    gone, left = site.part(order, 0, r), site.part(order, r)
    if site.prefix:  # the published code sorts them only when there is a class token
        left = site.in_order(left, len(a) - r)
    order = op.Concat(site.per_sample(np.arange(site.prefix)), left, site.per_sample(np.array(b)), gone, axis=1)
    destination = op.Add(site.part(match, 0, r), np.array(site.prefix + len(a) - r))
    return Selection(order, destination, proportional=config.proportional)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    batch, tokens, _ = state.hidden.shape
    a, b = (torch.tensor(list(positions)) for positions in sets(state.prefix, tokens))
    order, match, _ = matched_reference(state)
    gone, left = order[:, :count], order[:, count:]
    if state.prefix:
        left = left.sort(dim=-1).values
    fixed = [torch.arange(state.prefix).expand(batch, -1), left, b.expand(batch, -1), gone]
    destination = match[:, :count] + state.prefix + len(a) - count
    return Selection(torch.cat(fixed, dim=1), destination, proportional=config.proportional)


def matched_reference(state: State) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`matched` in PyTorch."""
    import torch

    from edgetok.plugins.bipartite_match import reference as match_tokens

    metric = torch.nn.functional.normalize(state.keys.mean(dim=1), dim=-1)
    padding = PADDING_FIRST * (state.size[..., 0] == 0).to(metric.dtype)
    a, b = (torch.tensor(list(positions)) for positions in sets(state.prefix, metric.shape[1]))
    order, match, best = match_tokens(metric[:, a], metric[:, b], padding[:, a], -padding[:, b])
    return a[order], match, best


TECHNIQUE = Technique(
    summary="merge the most similar pairs of tokens",
    paper="Token Merging: Your ViT But Faster, https://arxiv.org/abs/2210.09461, section 3",
    examples=("tome:r=4", "tome:keep=0.4,proportional=false"),
    config=Config,
    select=select,
    reference=reference,
)
