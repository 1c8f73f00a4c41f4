"""GreedySelect: tokens are chosen one by one, each the best beside those chosen before.

The first is the one of the highest `start`. Then a token is worth, over the chosen ones, the least of its gains
(objective max_min) or their sum (max_sum), and the one that is worth most is next. With cosines of the tokens:

    technique       gain[i, j]: of token j beside a chosen i    start                objective
    DivPrune        1 - cosine                                  see FarthestPoints   max_min
    ZOO-Prune       sensitivity[j] * (1 - cosine)               sensitivity          max_min
    GreedyPrune     saliency[j], less 10 if cosine > tau        saliency             max_min
    ToDRE           -cosine                                     attention            max_sum

(https://arxiv.org/abs/2503.02175, 2509.24837, 2506.13166 section 3, 2505.18757 section 3). GreedyPrune visits tokens by
saliency and keeps one if no kept one is nearer than tau; here the count is fixed, so the best of the rejected follow.
No token is chosen twice. Equal worth: the lower index first.

Padding: 4 less in its gains and in start, where these lie between -1 and 1; it goes last.

The mark of the chosen stands on the diagonal of the gains, so a step is three nodes: a row, Add or Min, ArgMax.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxscript import BOOL, FLOAT, INT64, graph, script
from onnxscript import opset23 as op
from onnxscript.values import Opset

if TYPE_CHECKING:
    import torch

NEVER = 1e6  # taken off the worth of a token that is chosen; larger than any sum of gains


@script(Opset("edgetok", 1), default_opset=op)
def GreedySelect(gain, start, count: int, objective: str):  # type: ignore[no-untyped-def]
    """gain (B, N, N), start (B, N) -> index (B, count) int64, in the order of choice."""
    summed = op.Equal(op.Constant(value_string=objective), op.Constant(value_string="max_sum"))
    never = op.Constant(value_float=1e6)
    own = op.EyeLike(op.ConstantOfShape(op.Shape(gain, start=1))) * never  # (N, N)
    gain_once = gain - own
    nothing = op.Where(summed, op.Constant(value_float=0.0), never)
    before = op.Expand(nothing, op.Shape(start))

    @graph()
    def step(i: INT64, go: BOOL, worth: FLOAT[...], index: INT64[...]):  # type: ignore[no-untyped-def]
        row = op.GatherND(gain_once, index, batch_dims=1)  # (B, N)
        if summed:  # a constant: no runtime branches here
            now = worth + row
        else:
            now = op.Min(worth, row)
        return op.Identity(go), now, op.ArgMax(now, axis=1, keepdims=1), op.Identity(index)

    first = op.ArgMax(start, axis=1, keepdims=1)  # (B, 1)
    _, _, index = op.Loop(op.Constant(value_int=count), op.Constant(value=True), before, first, body=step)
    return op.Transpose(op.Squeeze(index, op.Constant(value_ints=[2])), perm=[1, 0])


function = GreedySelect


def reference(gain: torch.Tensor, start: torch.Tensor, count: int, objective: str) -> torch.Tensor:
    """Choose tokens one by one.

    Args:
        gain: (B, N, N) what token j (last axis) is worth beside the chosen token i.
        start: (B, N) what decides on the first token.
        count: how many tokens are chosen.
        objective: "max_min" or "max_sum" of the gains over the chosen tokens.

    Returns:
        (B, count) the chosen tokens in the order of choice.
    """
    import torch

    samples = torch.arange(len(gain))
    chosen = [start.argmax(dim=1)]
    barred = torch.zeros_like(start)
    while len(chosen) < count:
        gains = torch.stack([gain[samples, index] for index in chosen])  # (chosen, B, N)
        worth = gains.sum(dim=0) if objective == "max_sum" else gains.amin(dim=0)
        barred[samples, chosen[-1]] = NEVER
        chosen.append((worth - barred).argmax(dim=1))
    return torch.stack(chosen, dim=1)


def cases() -> Iterator[tuple[str, tuple[object, ...]]]:
    """Named inputs of the reference."""
    import torch

    def tokens(batch: int, count: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        seeded = torch.Generator().manual_seed(count)
        x = torch.nn.functional.normalize(torch.randn(batch, count, width, generator=seeded), dim=-1)
        return x @ x.mT, torch.rand(batch, count, generator=seeded)

    cosine, weight = tokens(3, 256, 64)
    yield "todre", (-cosine, weight, 64, "max_sum")
    yield "zoo_prune", (weight[:, None] * (1 - cosine), weight, 64, "max_min")
    cosine, weight = tokens(2, 31, 3)
    yield "greedy_prune", (weight[:, None] - 10.0 * (cosine > 0.5), weight, 20, "max_min")
    yield "one", (-cosine, weight, 1, "max_sum")
    yield "all", (1 - cosine, weight, 31, "max_min")
    padding = torch.zeros(2, 31)
    padding[0, 20:] = 4
    yield "padding", (-cosine - padding[:, None], weight - padding, 25, "max_sum")
    yield "duplicates", ((1 - cosine).repeat(1, 2, 2), weight.repeat(1, 2), 40, "max_min")
