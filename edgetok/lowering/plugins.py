"""Plugin nodes for TensorRT: an operator's node takes its compiled kernel along, where there is one for the device.

The function of standard operators of that name goes from the graph: TensorRT's parser would write it out, and never
look for the plugin. Operators without a kernel keep their bodies, written out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from edgetok.errors import Refusal
from edgetok.tensorrt.node import NAMESPACE

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
    """Let each node that has a kernel become a plugin node, and write out the others, in place.

    Args:
        model: a bundle's graph.
        device: the target, whose runtime and compute capability decide.
        kernel_of: finds the kernel of a node.

    Returns:
        How many nodes of which operator became plugins.

    Raises:
        Refusal: the device takes no plugins, or no node has a kernel.
    """
    from onnx_ir.passes.common import InlinePass, ShapeInferencePass

    form(device)
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    assert device.sm is not None
    plugins: Counter[str] = Counter()
    for node in [node for node in model.graph if node.domain == NAMESPACE]:
        found = kernel_of(node, device.sm)
        if found is None:
            continue
        tensors = dict(enumerate(node.inputs))
        for step in found.steps:
            reads = [tensors[number] for number in step.reads]
            texts = [ir.AttrString(name, text) for name, text in step.node.attributes().items()]
            name = f"{node.name or node.op_type}_{step.operator}"
            made = ir.Node(NAMESPACE, step.operator, reads, texts, num_outputs=len(step.writes), name=name)
            model.graph.insert_before(node, made)
            tensors.update(zip(step.writes, made.outputs, strict=True))
        written = [value for number in found.outputs if (value := tensors[number]) is not None]
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [], node.outputs, written)
        plugins[node.op_type] += 1
    if not plugins:
        raise Refusal("no operator of this graph has a kernel for TensorRT", way_out="export it with --reduce")
    for key in [key for key in model.functions if key[0] == NAMESPACE and key[1] in plugins]:
        del model.functions[key]
    InlinePass()(model)
    model.opset_imports[NAMESPACE] = 1
    return plugins
