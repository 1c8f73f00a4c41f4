"""zoo-prune: behind the encoder keep tokens on which the projector depends most, and that lie far from each other.

ZOO-Prune: Training-Free Token Pruning via Zeroth-Order Gradient Estimation in Vision-Language Models (CVPR 2026),
https://arxiv.org/abs/2509.24837, section 3; there is no published code.

Projector M is all between the residual stream behind the last block and the tokens given out: capture encoder and
projector as one source. A token's sensitivity is the mean length of (M(x + h u) - M(x - h u)) / 2h over random
directions u of length one, brought to 0 to 1 over the picture. The first token is the most sensitive one; the next is
always that of the largest sensitivity times its cosine distance to the nearest chosen one, as given out. What stays
stands in its places' order.

The directions are drawn when the graph is made, from `seed`, the same for all tokens. Every direction costs two passes
of the projector (LLaVA-1.5's MLP: 12 Gmul each; its encoder: 180). The paper's `directions=64` cost 8 times the encoder
there; 8 cost as much as the encoder, and are the default. In half precision x + h u is x: refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.errors import Refusal, UsageError
from edgetok.technique import Selection, State, Technique

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site

PADDING = 4.0  # taken off a worth, which is 0 to 2: padding goes first
FAR = 1e9  # keeps padding out of the largest and the smallest sensitivity
EPSILON = 1e-12


@dataclass(frozen=True)
class Config:
    """Options of zoo-prune.

    Attributes:
        directions: in how many the projector is tried.
        step: how far, h.
        seed: another one draws other directions.
    """

    directions: int = 8
    step: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.directions < 1:
            raise UsageError(f"option directions={self.directions}: accepted is a count from 1 on")
        if self.step <= 0:
            raise UsageError(f"option step={self.step:g}: accepted is a length above 0")

    def moves(self, width: int) -> np.ndarray:
        """(directions, width) fp32: the directions, at the length of the step."""
        drawn = np.random.default_rng(self.seed).standard_normal((self.directions, width))
        return (self.step * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """The next token is always that of the largest sensitivity times distance."""
    import onnx_ir as ir

    if site.source is None:
        raise Refusal(
            "zoo-prune asks how the projector reacts, and the tokens given out are those of the last block itself",
            way_out="capture encoder and projector as one source, or take divprune",
        )
    if site.source.dtype != ir.DataType.FLOAT:
        raise Refusal(
            f"zoo-prune moves tokens by {config.step:g}, which vanishes in half precision",
            way_out="export in fp32, or take divprune",
        )
    op = site.op
    unit = site.part(site.unit_hidden, site.prefix)
    distance = op.Sub(np.float32(1), op.MatMul(unit, op.Transpose(unit, perm=[0, 2, 1])))
    s = site.part(_sensitivity(site, config), site.prefix)  # (B, T)
    low, high = s, s
    if site.size is not None:
        padding = site.part(site.is_padding, site.prefix)
        far = op.Mul(padding, np.float32(FAR))
        low, high = op.Add(s, far), op.Sub(s, far)
    low, high = op.ReduceMin(low, np.array([1])), op.ReduceMax(high, np.array([1]))
    s = op.Div(op.Sub(s, low), op.Max(op.Sub(high, low), np.float32(EPSILON)))
    s = op.Clip(s, np.float32(0), np.float32(1))  # padding may lie beyond
    gain = op.Mul(distance, op.Unsqueeze(s, np.array([1])))
    if site.size is not None:
        barred = op.Mul(padding, np.float32(PADDING))
        gain, s = op.Sub(gain, op.Unsqueeze(barred, np.array([1]))), op.Sub(s, barred)
    kept = site.tokens - site.prefix - site.count
    index = op.GreedySelect(gain, s, domain="edgetok", count=kept, objective="max_min")
    return Selection(site.keep_chosen(index), None)


def _sensitivity(site: Site, config: Config) -> ir.Value:
    """(B, N): the lengths of the differences, summed; the constants in front do not matter."""
    assert site.source is not None and site.source.shape is not None
    op, lengths = site.op, []
    for move in config.moves(int(site.source.shape[2])):  # type: ignore[arg-type]
        moved = op.Concat(op.Add(site.source, move), op.Sub(site.source, move), axis=0)  # (2B, N0, C)
        ahead, back = op.Split(site.projected(moved), axis=0, num_outputs=2, outputs=2)
        lengths.append(op.ReduceL2(op.Sub(ahead, back), np.array([2]), keepdims=0))
    total: ir.Value = op.Sum(*lengths)
    return total


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    from edgetok.plugins.greedy_select import reference as greedy

    assert state.source is not None and state.project is not None
    padding = (state.size[:, state.prefix :, 0] == 0).to(state.hidden.dtype)
    moves = torch.from_numpy(config.moves(state.source.shape[2])).to(state.hidden.dtype)
    lengths = [(state.project(state.source + u) - state.project(state.source - u)).norm(dim=-1) for u in moves]
    s = torch.stack(lengths).sum(dim=0)[:, state.prefix :]
    low, high = (s + FAR * padding).amin(dim=1, keepdim=True), (s - FAR * padding).amax(dim=1, keepdim=True)
    s = ((s - low) / (high - low).clamp_min(EPSILON)).clamp(0, 1)
    unit = torch.nn.functional.normalize(state.hidden[:, state.prefix :], dim=-1)
    gain = s[:, None] * (1 - unit @ unit.mT) - PADDING * padding[:, None]
    index = greedy(gain, s - PADDING * padding, unit.shape[1] - count, "max_min")
    return Selection(state.keep_chosen(index), None)


TECHNIQUE = Technique(
    summary="keep tokens on which the projector depends most, far from each other",
    paper="ZOO-Prune, https://arxiv.org/abs/2509.24837, section 3",
    examples=("zoo-prune:keep=0.25,directions=3,step=0.1",),
    config=Config,
    select=select,
    reference=reference,
    where="output",
    kind="prune",
)
