"""GreedySelect: tokens are chosen one by one, each the best beside those chosen before.

The first is the one of the highest `start`. Then a token is worth the least of its gains beside the chosen ones
(objective max_min) or their sum (max_sum), and the one that is worth most is next:

    technique                    gain[i, j], of token j beside a chosen i           start          objective
    DivPrune (2503.02175, 3.3)   1 - cosine                                         FarthestPoints max_min
    ZOO-Prune (2509.24837)       sensitivity[j] * (1 - cosine)                      sensitivity    max_min
    GreedyPrune (2506.13166)     saliency[j], and 10 less where cosine > tau        saliency       max_min
    ToDRE (2505.18757v2)         -cosine                                            attention      max_sum

The numbers are those of arXiv. GreedyPrune visits tokens by saliency and keeps one if no kept one is nearer than tau;
as the count is fixed here, the most salient of the rejected follow. No token is chosen twice. Equal worth: the lower
index first. Padding goes last if its gains and its start are lower than all others: for cosines, by 4.

The mark of a chosen token stands on the diagonal of the gains, so a step is a row, Min or Add, and ArgMax: 3 us. On one
core (a second changes nothing), batch 1: 64 of 256 tokens 0.21 ms, 144 of 256 0.43; of 576: 64 0.53, 144 0.78, 288 1.2;
batch 8: 64 of 256 0.52, 64 of 576 2.0. ViT-S at 257 tokens takes 40 ms. Steps unrolled into nodes or in a Scan take the
same to 0.3 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, no_type_check

from onnxscript import BOOL, FLOAT, INT64, graph, script
from onnxscript import opset23 as op
from onnxscript.values import Opset

if TYPE_CHECKING:
    import torch

NEVER = 1e6  # taken off the worth of a token that is chosen; larger than any sum of gains


@no_type_check  # onnxscript reads the body, Python never runs it
@script(Opset("edgetok", 1), default_opset=op)
def GreedySelect(gain, start, count: int, objective: str):
    """gain (B, N, N), start (B, N) -> index (B, count) int64, in the order of choice."""
    summed = op.Equal(op.Constant(value_string=objective), op.Constant(value_string="max_sum"))
    never = op.Constant(value_float=1e6)
    own = op.EyeLike(op.ConstantOfShape(op.Shape(gain, start=1))) * never  # (N, N)
    gain_once = gain - own
    nothing = op.Where(summed, op.Constant(value_float=0.0), never)
    before = op.Expand(nothing, op.Shape(start))

    @graph()
    def step(i: INT64, go: BOOL, worth: FLOAT[None, None], index: INT64[None, None]):  # type: ignore[type-arg]
        row = op.GatherND(gain_once, index, batch_dims=1)  # (B, N)
        if summed:  # a constant: onnxruntime drops the branch
            now = worth + row
        else:
            now = op.Min(worth, row)
        return op.Identity(go), now, op.ArgMax(now, axis=1, keepdims=1), op.Identity(index)

    first = op.ArgMax(start, axis=1, keepdims=1)  # (B, 1)
    _, _, index = op.Loop(op.Constant(value_int=count), op.Constant(value=True), before, first, body=step)
    per_sample = op.Transpose(index, perm=[2, 1, 0])  # (1, B, count)
    tokens = op.Unsqueeze(op.Constant(value_int=count), op.Constant(value_ints=[0]))
    shape = op.Concat(op.Shape(start, start=0, end=1), tokens, axis=0)
    return op.Reshape(per_sample, shape)  # tells shape inference what a Loop does not


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
    for objective in ("max_min", "max_sum"):
        yield f"equal_{objective}", (torch.zeros(2, 19, 19), torch.ones(2, 19), 7, objective)
    yield "alone", (torch.zeros(2, 1, 1), torch.ones(2, 1), 1, "max_min")
