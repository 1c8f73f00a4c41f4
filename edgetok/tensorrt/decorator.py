"""The plugin by TensorRT's decorators (`tensorrt.plugin`, 10.9 and newer).

NVIDIA's documentation: "Quickly deployable plugins", ahead-of-time form. While an engine is built, TensorRT asks these
functions for the PTX and for its launch as expressions of the sizes; the engine keeps both and needs no Python.
Attributes of such a plugin are not kept in the engine, so all of them end up in what `aot_impl` returns.
"""

from __future__ import annotations

from inspect import Parameter, Signature
from typing import Any

from edgetok.tensorrt.node import ATTRIBUTE_NAMES, NAMESPACE, TYPES, PluginNode
from edgetok.tensorrt.term import evaluate


def register(operator: str, inputs: int, outputs: int) -> None:
    """Register the plugin of an operator with TensorRT, once per process.

    Args:
        operator: the nodes' op_type.
        inputs: how many inputs such a node has.
        outputs: how many outputs.
    """
    import tensorrt.plugin as trtp  # type: ignore[import-not-found, unused-ignore]

    name, tensors = f"{NAMESPACE}::{operator}", [f"input{i}" for i in range(inputs)]
    described = [Parameter(tensor, Parameter.POSITIONAL_OR_KEYWORD, annotation=trtp.TensorDesc) for tensor in tensors]
    # All of them everywhere: TensorRT passes all to aot_impl, whatever its signature names.
    attributes = [Parameter(key, Parameter.POSITIONAL_OR_KEYWORD, annotation=str) for key in ATTRIBUTE_NAMES]
    results = tuple[(trtp.TensorDesc,) * outputs]  # type: ignore[misc, valid-type]
    given = Parameter("outputs", Parameter.POSITIONAL_OR_KEYWORD, annotation=results)
    tactic = Parameter("tactic", Parameter.POSITIONAL_OR_KEYWORD, annotation=int)
    returned = tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]

    def shapes(*values: Any, **named: str) -> Any:
        return _outputs(trtp, values[:inputs], PluginNode(**named) if named else PluginNode(*values[inputs:]))

    def combinations(*values: Any) -> Any:
        return _combinations(trtp, PluginNode(*values[inputs:-1]))

    def launch(*values: Any) -> Any:
        return _launch(trtp, values[:inputs], PluginNode(*values[inputs:-2]))

    for decorate, function, parameters, annotation in (
        (trtp.register, shapes, [*described, *attributes], results),
        (trtp.autotune, combinations, [*described, *attributes, given], list[trtp.AutoTuneCombination]),
        (trtp.aot_impl, launch, [*described, *attributes, given, tactic], returned),
    ):
        function.__signature__ = Signature(parameters, return_annotation=annotation)  # type: ignore[attr-defined]
        decorate(name)(function)


def _outputs(trtp: Any, inputs: tuple[Any, ...], node: PluginNode) -> tuple[Any, ...]:
    import tensorrt as trt  # type: ignore[import-not-found, unused-ignore]

    sizes = [tensor.shape_expr for tensor in inputs]
    listed = []
    for kind, shape in node.outputs():
        terms = tuple(evaluate(term, sizes, trtp.ShapeExpr) for term in shape)
        expressions = trtp.ShapeExprs.from_tuple(terms)
        listed.append(trtp.TensorDesc(expressions, getattr(trt.DataType, kind.upper())))
    return tuple(listed)


def _combinations(trtp: Any, node: PluginNode) -> list[Any]:
    names = {kind: {"float": "FP32", "half": "FP16"}.get(kind, kind.upper()) for kind in TYPES}
    kinds = [*(kind.strip() for kind in node.inputs.split(",")), *(kind for kind, _ in node.outputs())]
    return [trtp.AutoTuneCombination(", ".join(names[kind] for kind in kinds), "LINEAR", [1])]


def _launch(trtp: Any, inputs: tuple[Any, ...], node: PluginNode) -> tuple[Any, ...]:
    sizes = [tensor.shape_expr for tensor in inputs]
    node.check([[1] * len(shape) for shape in sizes])
    grid, scalars = node.terms()
    launch = trtp.KernelLaunchParams()
    launch.grid_x, launch.grid_y, launch.grid_z = (evaluate(term, sizes, trtp.ShapeExpr) for term in grid)
    launch.block_x, launch.shared_mem = int(node.block), int(node.shared)
    extra = trtp.SymIntExprs(len(scalars))
    for at, term in enumerate(scalars):
        extra[at] = trtp.SymInt32(evaluate(term, sizes, trtp.ShapeExpr))
    return node.kernel, node.ptx, launch, extra
