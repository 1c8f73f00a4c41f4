"""Snake spelt with Sin -> one edgetok::Snake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from edgetok import graph as g

Part = Callable[[Any, Any], Any]  # (op, sine) -> pattern

SQUARES: tuple[Part, ...] = (lambda op, sine: op.Mul(sine, sine), lambda op, sine: op.Pow(sine, 2.0))


def fuse_snake(model: ir.Model) -> None:
    """Fuse every x + sin(alpha x)^2 inverse of x (B, C, N) whose alpha and inverse are constants, in place."""
    from onnxscript.rewriter import pattern

    rules = [pattern.RewriteRule(_spelling(square), _snake, _of_channels) for square in SQUARES]
    pattern.RewriteRuleSet(rules, commute=True).apply_to_model(model)


def _spelling(square: Part) -> Callable[..., Any]:
    return lambda op, x, alpha, inverse: op.Add(x, op.Mul(inverse, square(op, op.Sin(op.Mul(alpha, x)))))


def _snake(op: Any, x: ir.Value, alpha: ir.Value, inverse: ir.Value) -> Any:
    return op.Snake(x, alpha, inverse, _domain="edgetok", _version=1)


def _of_channels(context: object, x: ir.Value, alpha: ir.Value, inverse: ir.Value) -> bool:
    """Whether both are constants of the shape (1, C, 1)."""
    return g.rank(x) == 3 and all(
        value.const_value is not None and value.const_value.shape == (1, x.shape[1], 1)  # type: ignore[index]
        for value in (alpha, inverse)
    )
