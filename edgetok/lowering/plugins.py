"""Plugin nodes for TensorRT: an operator's node takes its compiled kernel along, where there is one for the device.

The function of standard operators of that name goes from the graph: TensorRT's parser would write it out, and never
look for the plugin. Operators without a kernel keep their bodies.

What a plugin gives out has shapes that are known, which tell the shapes of what reads it: so kernels are looked for in
rounds, until none is found any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from edgetok.errors import Refusal
from edgetok.tensorrt.node import NAMESPACE, TYPES

if TYPE_CHECKING:
    from edgetok.device import Device
    from edgetok.tensorrt.node import PluginNode


@dataclass(frozen=True)
class Step:
    """One launch of an operator.

    Attributes:
        operator: the plugin node's op_type.
        node: what is launched; its terms count the tensors that are read.
        reads: the tensors that it reads, by number: the operator's inputs come first, by their places.
        writes: numbers of the tensors that it makes.
    """

    operator: str
    node: PluginNode
    reads: tuple[int, ...]
    writes: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The launches of an operator, and which tensors are its outputs."""

    steps: tuple[Step, ...]
    outputs: tuple[int, ...]


_SPELT = {"half": "float16", "bf16": "bfloat16"}  # where ONNX names a type otherwise than TensorRT does
_TYPES = {kind: ir.DataType[_SPELT.get(kind, kind).upper()] for kind in TYPES}
KernelOf = Callable[[ir.Node, str], "Plan | None"]  # of a node, for a compute capability such as "8.7"
Form = Literal["decorator", "library"]


def form(device: Device) -> Form:
    """How the device's TensorRT takes plugins: by its decorators, which came with 10.9, or as a C++ library.

    Raises:
        Refusal: it takes none, with what is possible there.
    """
    offers = {offer.name: offer for offer in device.runtimes}
    if device.sm is None or "tensorrt" not in offers:
        why = "TensorRT-RTX takes no plugins" if "tensorrt-rtx" in offers else "it has no TensorRT"
        raise Refusal(f"{device.name} takes no plugins: {why}", way_out="leave them out: operators keep their bodies")
    offer = offers["tensorrt"]
    if not offer.at_least("10.0"):
        raise Refusal(
            f"{device.name} takes no plugins of edgetok: TensorRT {offer.version} is older than 10.0",
            way_out="leave them out: operators keep their bodies",
        )
    return "decorator" if offer.at_least("10.9") else "library"


def lower(model: ir.Model, device: Device, kernel_of: KernelOf) -> Counter[str]:
    """Let each node that has a kernel become plugin nodes, in place; the others keep their functions.

    Args:
        model: a bundle's graph.
        device: the target, whose runtime and compute capability decide.
        kernel_of: finds the kernel of a node.

    Returns:
        How many nodes of which operator became plugins.

    Raises:
        Refusal: the device takes no plugins, or no node has a kernel.
    """
    from onnx_ir.passes.common import ShapeInferencePass

    form(device)
    assert device.sm is not None
    plugins: Counter[str] = Counter()
    found = True
    while found:
        found = False
        _forget_unknown(model.graph)
        ShapeInferencePass(check_type=False, strict_mode=False)(model)
        for node in [node for node in model.graph if node.domain == NAMESPACE and "kernel" not in node.attributes]:
            plan = kernel_of(node, device.sm)
            if plan is not None:
                _replace(model.graph, node, plan)
                plugins[node.op_type] += 1
                found = True
    if not plugins:
        raise Refusal("no operator of this graph has a kernel for TensorRT", way_out="export it with --reduce")
    left = {node.op_type for node in model.graph if node.domain == NAMESPACE and "kernel" not in node.attributes}
    for key in [key for key in model.functions if key[0] == NAMESPACE and key[1] in plugins.keys() - left]:
        del model.functions[key]
    model.opset_imports[NAMESPACE] = 1
    return plugins


def _replace(graph: ir.Graph, node: ir.Node, plan: Plan) -> None:
    """Put a node per launch in the place of an operator's."""
    tensors = dict(enumerate(node.inputs))
    known: dict[ir.Value, ir.Shape] = {}
    for step in plan.steps:
        reads = [tensors[number] for number in step.reads]
        texts = [ir.AttrString(name, text) for name, text in step.node.attributes().items()]
        name = f"{node.name or node.op_type}_{step.operator}"
        made = ir.Node(NAMESPACE, step.operator, reads, texts, num_outputs=len(step.writes), name=name)
        for value, (kind, shape) in zip(made.outputs, step.node.outputs(), strict=True):
            value.dtype = _TYPES[kind]
            value.shape = known[value] = ir.Shape([_size(term, reads) for term in shape])
        graph.insert_before(node, made)
        tensors.update(zip(step.writes, made.outputs, strict=True))
    written = [got for number in plan.outputs if (got := tensors[number]) is not None]
    ir.convenience.replace_nodes_and_values(graph, node, [node], [], node.outputs, written)
    for value, axes in known.items():  # what is replaced hands its own shape on
        value.shape = axes


def _forget_unknown(graph: ir.Graph) -> None:
    """Let shapes be inferred anew in which the last inference named an axis that it did not know: it keeps what is."""
    for node in graph:
        for value in node.outputs:
            if value.shape is not None and any(str(length).startswith("unk__") for length in value.shape):
                value.shape = None


def _size(term: str, reads: list[ir.Value | None]) -> int | str | None:
    """An axis by its term: a number, or that of an input, as in "0.1"; None where it is computed of them."""
    if term.isdecimal():
        return int(term)
    at, _, axis = term.partition(".")
    value = reads[int(at)] if at.isdecimal() and axis.isdecimal() else None
    if value is None or value.shape is None:
        return None
    length = value.shape[int(axis)]
    return length if isinstance(length, int) else length.value  # its name
