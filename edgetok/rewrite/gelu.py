"""GELU spelt with Erf or Tanh -> one Gelu."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir


def fuse_gelu(model: ir.Model) -> None:
    """Fuse every GELU, in place."""
    from onnxscript.rewriter import pattern

    rules = [
        pattern.RewriteRule(_product(gate), _gelu(approximate))
        for gate, approximate in ((_erf, "none"), (_tanh, "tanh"))
    ]
    pattern.RewriteRuleSet(rules, commute=True).apply_to_model(model)


def _erf(op: Any, x: Any) -> Any:
    """1 + erf(x / sqrt 2)"""
    from onnxscript.rewriter.pattern import OrValue

    return op.Add(op.Erf(OrValue([op.Div(x, math.sqrt(2)), op.Mul(x, math.sqrt(0.5))])), 1.0)


def _tanh(op: Any, x: Any) -> Any:
    """1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))"""
    from onnxscript.rewriter.pattern import OrValue

    cube = OrValue([op.Pow(x, 3.0), op.Mul(x, op.Mul(x, x))])
    return op.Add(op.Tanh(op.Mul(op.Add(x, op.Mul(cube, 0.044715)), math.sqrt(2 / math.pi))), 1.0)


def _product(gate: Any) -> Any:
    """0.5 x gate(x), whatever is multiplied first."""

    def product(op: Any, x: Any) -> Any:
        from onnxscript.rewriter.pattern import OrValue

        g = gate(op, x)
        return OrValue([op.Mul(op.Mul(x, g), 0.5), op.Mul(x, op.Mul(g, 0.5)), op.Mul(op.Mul(x, 0.5), g)])

    return product


def _gelu(approximate: str) -> Any:
    return lambda op, x: op.Gelu(x, approximate=approximate)
