"""Joint projections are taken apart, however they are spelt, and give what they gave."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest
import torch
from torch.nn import functional

from edgetok.exporters.sources.pytorch import capture_module
from edgetok.model import Origin
from edgetok.rewrite.projection import split_projection
from tests.comparison import run, session

Heads = tuple[torch.Tensor, ...]


def timm(y: torch.Tensor) -> Heads:
    return y.reshape(*y.shape[:2], 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)


def chunks(y: torch.Tensor) -> Heads:
    return tuple(part.reshape(*y.shape[:2], 4, 8).transpose(1, 2) for part in y.chunk(3, dim=-1))


def per_head(y: torch.Tensor) -> Heads:
    """As GPT-NeoX lays them out: q, k and v of the first head, then of the second."""
    return y.reshape(*y.shape[:2], 4, 24).transpose(1, 2).chunk(3, dim=-1)


class Fused(torch.nn.Module):
    def __init__(self, split: Callable[[torch.Tensor], Heads], bias: bool):
        super().__init__()
        self.split, self.joint = split, torch.nn.Linear(32, 96, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.split(self.joint(x))
        return functional.scaled_dot_product_attention(q, k, v)


class Shared(torch.nn.Module):
    """Queries from elsewhere: nothing is joint."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv = torch.nn.Linear(32, 32), torch.nn.Linear(32, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        k, v = (part.reshape(*x.shape[:2], 4, 8).transpose(1, 2) for part in self.kv(x).chunk(2, dim=-1))
        return functional.scaled_dot_product_attention(self.q(x).reshape(*x.shape[:2], 4, 8).transpose(1, 2), k, v)


def split(module: torch.nn.Module, x: torch.Tensor) -> tuple[ir.Model, list[torch.Tensor]]:
    """The captured graph, split, and what it gives before and behind that."""
    model = capture_module(module.eval(), {"x": x}, Origin("callable", "one")).model
    given = [*run(session(model), {"x": x}).values()]
    (attention,) = (node for node in model.graph if node.op_type == "Attention")
    split_projection(model.graph, attention)
    return model, [*given, *run(session(model), {"x": x}).values()]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("spelling", [timm, chunks, per_head])
def test_three_products_give_the_same(spelling: Callable[[torch.Tensor], Heads], bias: bool):
    torch.manual_seed(0)
    model, (before, behind) = split(Fused(spelling, bias), torch.randn(2, 5, 32))
    torch.testing.assert_close(behind, before, rtol=0, atol=1e-6)
    (attention,) = (node for node in model.graph if node.op_type == "Attention")
    for value in attention.inputs[:3]:
        assert value.producer().op_type == "Transpose" and list(value.shape)[1:] == [4, 5, 8]
    weights = [node.inputs[1].shape for node in model.graph if node.op_type == "MatMul"]
    assert [list(shape) for shape in weights].count([32, 32]) == 3


def test_what_is_not_joint_stays():
    torch.manual_seed(0)
    model, (before, behind) = split(Shared(), torch.randn(2, 5, 32))
    assert torch.equal(before, behind)
    assert sum(node.op_type == "MatMul" for node in model.graph) == 2
