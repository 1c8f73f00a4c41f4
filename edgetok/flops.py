"""How much a transformer multiplies, and how much of that is left at given counts of tokens.

One multiply-add is one MAC, which papers on token reduction call a FLOP. Counted are the operators that make up a
transformer's time: MatMul, Gemm, Conv, ConvTranspose and Attention, from the shapes in the graph, so that no form of a
block is assumed. What a technique computes to choose its tokens is not counted, as in the papers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from edgetok.errors import UsageError
from edgetok.schedule import Schedule

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgetok.view import TransformerView


@dataclass(frozen=True)
class Work:
    """MACs of one sample (of one batch where it is fixed), by what they depend on.

    Attributes:
        tokens: N, before any reduction.
        fixed: in front of the first block's MLP, and where all tokens are restored or none is left.
        linear: per block, in proportion to the tokens behind its attention: its MLP, the next block's projections.
        quadratic: per block, in proportion to their square: the next block's attention.
    """

    tokens: int
    fixed: int
    linear: tuple[int, ...]
    quadratic: tuple[int, ...]

    @classmethod
    def of(cls, view: TransformerView) -> Work:
        """Count an unreduced graph."""
        from edgetok.graph import ancestors
        from edgetok.view.flow import follow

        starts = {block.after_attention: block.index for block in view.blocks}
        inside = ancestors([view.blocks[-1].after_attention])
        flow = follow(view.model.graph, starts, view.tokens, view.prefix, blocks=inside)
        fixed, linear, quadratic = 0, [0] * len(view.blocks), [0] * len(view.blocks)
        for node in view.model.graph:
            stage = flow.stage.get(node.outputs[0])
            if stage is None:
                fixed += macs(node)
            elif node.op_type == "Attention":
                quadratic[stage] += macs(node)
            else:
                linear[stage] += macs(node)
        return cls(view.tokens, fixed, tuple(linear), tuple(quadratic))

    def macs(self, counts: Mapping[int, int]) -> float:
        """MACs with tokens reduced.

        Args:
            counts: {block: how many tokens go behind its attention}.
        """
        total, left = float(self.fixed), self.tokens
        for block, (linear, quadratic) in enumerate(zip(self.linear, self.quadratic, strict=True)):
            left -= counts.get(block, 0)
            share = left / self.tokens
            total += linear * share + quadratic * share**2
        return total

    def share(self, counts: Mapping[int, int]) -> float:
        """The part of the unreduced model's MACs that is left."""
        return self.macs(counts) / self.macs({})


def macs(node: ir.Node) -> int:
    """The multiply-adds of one node; a free dimension, which is the batch, counts once.

    Raises:
        ValueError: the graph does not say how large its inputs are.
    """
    match node.op_type:
        case "MatMul" | "Gemm":
            first = _dims(node.inputs[0])
            inner = first[0] if "transA" in node.attributes and node.attributes["transA"].as_int() else first[-1]
            return prod(_dims(node.outputs[0])) * inner
        case "LutMatMul":
            return prod(_dims(node.outputs[0])) * node.attributes["inner"].as_int()
        case "NearestCode":
            return prod(_dims(node.outputs[0])) * prod(_dims(node.inputs[1]))
        case "Conv":
            return prod(_dims(node.outputs[0])) * prod(_dims(node.inputs[1])[1:])
        case "ConvTranspose":
            return prod(_dims(node.inputs[0])) * prod(_dims(node.inputs[1])[1:])
        case "Attention" | "ProportionalAttention":
            keys = _dims(node.inputs[1])[-2]
            return (prod(_dims(node.inputs[0])) + prod(_dims(node.outputs[0]))) * keys
        case "BlockSparseAttention":
            keys = _dims(node.inputs[3])[-1] * node.attributes["block_k"].as_int()
            return (prod(_dims(node.inputs[0])) + prod(_dims(node.outputs[0]))) * keys
        case "TokenSparseAttention":
            return (prod(_dims(node.inputs[0])) + prod(_dims(node.outputs[0]))) * _dims(node.inputs[3])[-1]
    return 0


def _dims(value: ir.Value | None) -> list[int]:
    if value is None or value.shape is None:
        raise ValueError(f"{value} has no shape: capture infers them")
    return [dim if isinstance(dim, int) else 1 for dim in value.shape]


def within_budget(
    schedule: Schedule, work: Work, before: Mapping[int, int], resolve: Callable[[Schedule], Mapping[int, int]]
) -> Schedule:
    """The schedule with the smallest r that keeps to its budget, inflected and in the layers as it says.

    Args:
        schedule: with budget=flops:SHARE.
        work: of the model.
        before: the tokens that other techniques take, by block.
        resolve: gives the counts of a schedule with an r.

    Raises:
        UsageError: no r does.
    """
    share = 1.0
    for r in range(work.tokens):
        candidate = dataclasses.replace(schedule, budget="", r=str(r))
        try:
            counts = resolve(candidate)
        except UsageError:
            break
        share = work.share({**before, **counts})
        if share <= schedule.flops:
            return candidate
    where = f" in layers={schedule.layers}" if schedule.layers else ""
    raise UsageError(
        f"budget={schedule.budget}: the most that can go{where} leaves {share:.2f} of the multiplications; "
        "give a larger share, or more layers"
    )
