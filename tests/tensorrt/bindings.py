"""NVIDIA's own Python of `tensorrt.plugin`, driven as the builder drives it. Run in a process of its own; prints JSON.

    python bindings.py < nodes.json

`tensorrt_bindings` must be importable and libnvinfer be a stub (stub.c). nodes.json: a list of {operator, attributes,
types, shapes}: a plugin node, and its inputs. What the builder gives to a plugin (expressions of sizes, the registry)
is replaced by the plainest Python; validation, tactics and launch arithmetic are NVIDIA's.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

import tensorrt_bindings as trt
import tensorrt_bindings.tensorrt

sys.modules["tensorrt"] = trt
OPERATIONS = {"SUM": "+", "SUB": "-", "PROD": "*", "FLOOR_DIV": "//"}


class Expression:
    """A size: trt.IDimensionExpr, evaluated."""

    def __init__(self, value: int):
        self.value = value

    def is_constant(self) -> bool:
        return True

    def get_constant_value(self) -> int:
        return self.value

    def is_size_tensor(self) -> bool:
        return False


class Builder:
    """trt.IExprBuilder."""

    def constant(self, value: int) -> Expression:
        return Expression(value)

    def operation(self, operation: Any, left: Expression, right: Expression) -> Expression:
        sign = OPERATIONS[operation.name]
        return Expression(eval(f"{left.value} {sign} {right.value}"))


class Sizes(list):
    """trt.DimsExprs."""

    def __init__(self, length: int):
        super().__init__([None] * length)


class Registry:
    """What of trt.IPluginRegistry the decorators use."""

    creators: dict[tuple[str, str], Any] = {}  # noqa: RUF012

    def register_creator(self, creator: Any, namespace: str) -> bool:
        self.creators[creator.name, namespace] = creator
        return True

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        assert version == "1"
        return self.creators[name, namespace]


class Extra(dict):
    """trt.ISymExprs: the kernel's further arguments."""

    nbSymExprs = 0


class SymbolicExpression:
    """trt.ISymExpr: one argument, its `expr` set by NVIDIA's SymExprImpl."""


trt.IDimensionExpr, trt.DimsExprs, trt.ISymExpr = Expression, Sizes, SymbolicExpression
trt.get_plugin_registry = Registry
import tensorrt_bindings.plugin  # noqa: E402

sys.modules["tensorrt.plugin"] = tensorrt_bindings.plugin
from edgetok.tensorrt import decorator, node  # noqa: E402


def described(kind: str, shape: list[int]) -> Any:
    """trt.DynamicPluginTensorDesc, of one shape."""
    desc = trt.DynamicPluginTensorDesc()
    desc.desc.type, desc.desc.format = getattr(trt.DataType, kind.upper()), trt.TensorFormat.LINEAR
    desc.desc.dims = desc.min = desc.opt = desc.max = trt.Dims(shape)
    return desc


def build(given: dict[str, Any]) -> dict[str, Any]:
    """Make the plugin of a node as the ONNX parser does, and ask it what the builder asks."""
    creator = Registry().get_creator(given["operator"], "1", node.NAMESPACE)
    known = [field.name for field in creator.field_names]
    texts = [trt.PluginField(name, given["attributes"][name].encode(), trt.PluginFieldType.CHAR) for name in known]
    request = trt.QuickPluginCreationRequest.STRICT_AOT
    plugin = creator.create_plugin(
        given["operator"], node.NAMESPACE, trt.PluginFieldCollection(texts), trt.TensorRTPhase.BUILD, request
    )
    types = [getattr(trt.DataType, kind.upper()) for kind in given["types"]]
    results = plugin.get_output_data_types(types, [len(shape) for shape in given["shapes"]])
    sizes = [[Expression(size) for size in shape] for shape in given["shapes"]]
    shapes = [[size.value for size in shape] for shape in plugin.get_output_shapes(sizes, [], Builder())]
    kinds = [kind.name.lower() for kind in results]
    tensors = [described(*one) for one in zip(given["types"] + kinds, given["shapes"] + shapes, strict=True)]
    combinations = plugin.get_supported_format_combinations(tensors, len(types))
    plugin.configure_plugin(tensors[: len(types)], tensors[len(types) :])
    (tactic,) = plugin.get_valid_tactics()
    plugin.set_tactic(tactic)
    launch, extra = SimpleNamespace(), Extra()
    plugin.get_launch_params(sizes, tensors, len(types), launch, extra, Builder())
    kernel, ptx = plugin.get_kernel(
        [tensor.desc for tensor in tensors[: len(types)]], [tensor.desc for tensor in tensors[len(types) :]]
    )
    return {
        "fields": known,
        "outputs": [[kind, shape] for kind, shape in zip(kinds, shapes, strict=True)],
        "combination": [combination.type.name.lower() for combination in combinations],
        "launch": vars(launch),
        "scalars": [extra[at] for at in range(extra.nbSymExprs)],
        "kernel": kernel,
        "ptx": ptx.decode(),
    }


def plain(value: Any) -> Any:
    """Sizes as numbers."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    value = getattr(value, "expr", value)
    return value.value if isinstance(value, Expression) else value


nodes = json.load(sys.stdin)
for one in nodes:
    if (one["operator"], node.NAMESPACE) not in Registry.creators:
        outputs = len(one["attributes"]["results"].split(";"))
        decorator.register(one["operator"], len(one["types"]), outputs)
print(json.dumps({"version": trt.__version__, "nodes": [plain(build(one)) for one in nodes]}))
