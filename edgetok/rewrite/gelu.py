"""GELU spelt with Erf or Tanh -> one Gelu."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

Part = Callable[[Any, Any], Any]  # (op, x) -> pattern

# 1 + erf(x / sqrt 2)
ERF: tuple[Part, ...] = (
    lambda op, x: op.Add(op.Erf(op.Div(x, math.sqrt(2))), 1.0),
    lambda op, x: op.Add(op.Erf(op.Mul(x, math.sqrt(0.5))), 1.0),
)
# 1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))
TANH: tuple[Part, ...] = tuple(
    lambda op, x, cube=cube: op.Add(  # type: ignore[misc]
        op.Tanh(op.Mul(op.Add(x, op.Mul(cube(op, x), 0.044715)), math.sqrt(2 / math.pi))), 1.0
    )
    for cube in (lambda op, x: op.Pow(x, 3.0), lambda op, x: op.Mul(x, op.Mul(x, x)))
)
# 0.5 x gate, whatever is multiplied first
PRODUCTS: tuple[Callable[[Any, Any, Any], Any], ...] = (
    lambda op, x, gate: op.Mul(op.Mul(x, gate), 0.5),
    lambda op, x, gate: op.Mul(x, op.Mul(gate, 0.5)),
    lambda op, x, gate: op.Mul(op.Mul(x, 0.5), gate),
)


def fuse_gelu(model: ir.Model) -> None:
    """Fuse every GELU, in place."""
    from onnxscript.rewriter import pattern

    rules = [
        pattern.RewriteRule(_spelling(gate, product), _gelu(kind))
        for kind, gates in (("none", ERF), ("tanh", TANH))
        for gate in gates
        for product in PRODUCTS
    ]
    pattern.RewriteRuleSet(rules, commute=True).apply_to_model(model)


def _spelling(gate: Part, product: Callable[[Any, Any, Any], Any]) -> Part:
    return lambda op, x: product(op, x, gate(op, x))


def _gelu(kind: str) -> Part:
    return lambda op, x: op.Gelu(x, approximate=kind)
