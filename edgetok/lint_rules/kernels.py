"""Operators that onnxruntime's CPU provider has no kernel for, by operator version and by type.

The tables onnxruntime-*.json are onnxruntime's own answer (benchmarks/kernel_table.py); the newest one not newer than
the device's runtime is used. Measured with both versions: an operator without a kernel that ONNX defines by other
operators is inlined, which fails in bfloat16 (the inner operators have no kernel either); float16 without a kernel is
computed in float32 between casts, which `half_on_cpu` reports.

Held against onnxruntime over the 1855 small models of
onnx's own test suite, this rule and `too_new` agree with 1.23.2 on all but 12 and with 1.32.0 on all but 21: they miss
attributes that are refused and operators inside inlined functions, and raised one false alarm (Range of bfloat16).
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetok.device import version_key
from edgetok.lint_rules import Example, Finding, Graph, Target, error

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per operator and reason."""
    if not target.ort_cpu:
        return
    import onnx

    kernels, version = table(target.runtime.version), target.runtime.version
    local = {(f.domain, f.name) for f in graph.model.functions.values()}
    for node in graph.nodes():
        if (node.domain, node.op_type) in local or node.op_type == "Constant":  # constants become initializers
            continue
        rows = kernels.get(node.domain or "ai.onnx", {}).get(node.op_type, [])
        try:
            schema = onnx.defs.get_schema(node.op_type, graph.opset(node), node.domain)
        except onnx.defs.SchemaError:
            if not rows:
                yield error(
                    node,
                    f"onnxruntime {version} knows no operator {node.op_type} in the domain {node.domain!r}",
                    "add the model-local function of that name, or use standard operators",
                )
            continue
        serving = [types for first, last, types in rows if serves(first, last, schema.since_version)]
        composed = schema.has_function or schema.has_context_dependent_function  # type: ignore[attr-defined]
        if not serving and not composed:
            yield error(
                node,
                f"onnxruntime {version} has no CPU kernel for {node.op_type} of opset {schema.since_version}",
                rewrite(node.op_type),
            )
            continue
        found = node_types(node, schema)
        if serving and not any(accepts(types, found) for types in serving):
            half = {name: "float" if t == "float16" else t for name, t in found.items()}
            if "float16" in found.values() and any(accepts(types, half) for types in serving):
                continue
            if composed and not {"bfloat16", "double"} & set(found.values()):
                continue
            names = ", ".join(sorted(set(found.values())))
            yield error(
                node,
                f"onnxruntime {version} has no CPU kernel for {node.op_type} of {names}",
                "cast to float32 (bfloat16, 4- and 8-bit floats are for GPUs)"
                if {"bfloat16", "float4e2m1"} & set(found.values())
                else "cast to a type it takes",
            )


@cache
def table(version: str) -> dict[str, Any]:
    """The kernels of the newest table that is not newer than the version."""
    paths = {p.stem.removeprefix("onnxruntime-"): p for p in Path(__file__).parent.glob("onnxruntime-*.json")}
    usable = [v for v in paths if version_key(v) <= version_key(version)] or [min(paths, key=version_key)]
    return dict(json.loads(paths[max(usable, key=version_key)].read_text(encoding="utf-8")))


def serves(first: int, last: int | None, since: int) -> bool:
    """Whether a kernel serves the operator that last changed in opset `since`; an open end serves only its start."""
    return first == since or (last is not None and first <= since <= last)


def accepts(types: dict[str, list[str]], found: dict[str, str]) -> bool:
    """Whether every type that is known is one that the kernel takes."""
    return all(found[name] in allowed for name, allowed in types.items() if name in found)


def node_types(node: "ir.Node", schema: "onnx.defs.OpSchema") -> dict[str, str]:
    """Types of the node's tensors by type constraint ("T", or the name of the input where it has only one type)."""
    import onnx_ir as ir

    found: dict[str, str] = {}
    for formals, values in ((schema.inputs, node.inputs), (schema.outputs, node.outputs)):
        for index, value in enumerate(values):
            if formals and value is not None and isinstance(value.type, ir.TensorType):  # not sequences
                formal = formals[min(index, len(formals) - 1)]
                found.setdefault(formal.type_str, value.type.dtype.name.lower())
                found.setdefault(formal.name, value.type.dtype.name.lower())
    return found


def rewrite(op_type: str) -> str:
    """What to write instead."""
    known = {"LpNormalization": "write x / ReduceL2(x), or keep LpNormalization at opset 21 or lower"}
    return known.get(op_type, "write it with operators that have one")


EXAMPLES = (
    Example(
        "x86-cpu",
        "g (float[2,4] x) => (float[2,4] y) { y = LpNormalization <axis = -1> (x) }",
        "error",
        "no CPU kernel for LpNormalization of opset 22",
    ),
    Example("x86-cpu", "g (float[2,4] x) => (float[2,4] y) { y = LpNormalization <axis = -1> (x) }", None, opset=21),
    Example(
        "cortex-a78ae", "g (bfloat16[4,4] x) => (bfloat16[4,4] y) { y = MatMul(x, x) }", "error", "MatMul of bfloat16"
    ),
    Example("x86-cpu", "g (float16[4,4] x) => (float16[4,4] y) { y = MatMul(x, x) }", None),
    Example(
        "x86-cpu",
        "g (float4e2m1[2,4] x, float s) => (float[2,4] y) { y = DequantizeLinear(x, s) }",
        "error",
        "4- and 8-bit floats are for GPUs",
    ),
    Example("x86-cpu", "g (double[4] x) => (double[4] y) { y = Gelu(x) }", "error", "Gelu of double"),
    Example("x86-cpu", "g (float[2,4] x, float[4] s) => (float[2,4] y) { y = RMSNormalization(x, s) }", None),
    Example(
        "x86-cpu",
        '<ir_version: 10, opset_import: ["": 23, "mine": 1]> g (float[2] x) => (float[2] y) { y = mine.Magic(x) }',
        "error",
        "knows no operator Magic in the domain 'mine'",
    ),
    Example(
        "x86-cpu",
        '<ir_version: 10, opset_import: ["": 23, "mine": 1]> g (float[2] x) => (float[2] y) { y ='
        ' mine.Magic(x) } <domain: "mine", opset_import: ["": 23]> Magic (x) => (y) { y = Relu(x) }',
        None,
    ),
)
