"""Forms of a graph that a runtime computes faster, or in less memory, than the canonical one; a rule per file.

A rule takes one LutMatMul node and puts what the runtime knows in its place, or leaves it. Whatever no rule takes stays
as it is: its body of standard operators gives the right numbers anywhere, at fp32's speed and with fp32 matrices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgetok.bundle import Bundle
    from edgetok.device import Device, RuntimeOffer
    from edgetok.lowbit.weight import Weight
    from edgetok.lowering.plugins import KernelOf

Arithmetic = Literal["a32", "a8"]  # activations in fp32; rounded to int8 per row and block
# Which makes weights of a device's precision; TensorRT takes positive scales only.
QUANTISERS = {"fp4": "nvfp4", "fp8": "fp8", "int4": "int4:positive=true", "int8": "int8:positive=true"}


def for_runtime(bundle: Bundle, runtime: str, arithmetic: Arithmetic, device: Device | None) -> Path:
    """The bundle's graph as a runtime takes it: lowered for ONNX Runtime and TensorRT, model.onnx itself otherwise.

    Args:
        bundle: whose graph.
        runtime: its name.
        arithmetic: "a32" or "a8", for ONNX Runtime.
        device: this machine's profile, for TensorRT.

    Raises:
        DeviceError: TensorRT, on a device that has no card.
    """
    from edgetok import __version__
    from edgetok.cache import cache_folder, made_once
    from edgetok.errors import DeviceError

    if runtime == "onnxruntime":
        return for_onnxruntime(bundle, arithmetic)
    if runtime not in ("tensorrt", "tensorrt-rtx"):
        return bundle.model_path
    if device is None or device.kind == "cpu":
        raise DeviceError(f"{runtime} computes on a card that edgetok devices lists: say --on auto where one is")

    def write(folder: Path) -> None:
        import onnx_ir as ir

        from edgetok.serialize import write_model

        graph = ir.load(bundle.model_path)
        for_tensorrt(graph, device.only(runtime))
        write_model(graph, folder)

    kept = cache_folder() / bundle.id[:16] / __version__ / f"{runtime}-{device.name}"
    return made_once(kept, write) / "model.onnx"


def for_onnxruntime(bundle: Bundle, arithmetic: Arithmetic) -> Path:
    """The bundle's model.onnx as ONNX Runtime on a CPU runs it best, made once and kept in the cache."""
    from edgetok import __version__, native
    from edgetok.cache import cache_folder, made_once
    from edgetok.fingerprint import cpu_features

    if not bundle.manifest.weights and not bundle.manifest.recipe.activations:
        return bundle.model_path
    has_native = native.library() is not None
    kernels = native.digest(native.FOLDER)[:8] if has_native else "stock"
    if any("vnni" in feature for feature in cpu_features()):  # matmulinteger.py writes for it; caches are shared
        kernels += "-vnni"
    folder = made_once(
        cache_folder() / bundle.id[:16] / __version__ / f"onnxruntime-{arithmetic}-{kernels}",
        lambda folder: _write(bundle.model_path, folder, arithmetic, has_native),
    )
    return folder / "model.onnx"


def _write(model: Path, folder: Path, arithmetic: Arithmetic, has_native: bool) -> None:
    import onnx_ir as ir

    from edgetok.serialize import write_model

    graph = ir.load(model)
    lower(graph, arithmetic, has_native)
    write_model(graph, folder)


def lower(model: ir.Model, arithmetic: Arithmetic, has_native: bool) -> Counter[str]:
    """Let each LutMatMul become what ONNX Runtime computes best, in place.

    Args:
        model: a bundle's graph.
        arithmetic: "a32" or "a8".
        has_native: whether edgetok's own kernels are there.

    Returns:
        How many became what: "MatMulInteger", "native", "MatMulNBits", or "body" for those that stay.
    """
    from edgetok.lowbit.node import read
    from edgetok.lowering import matmulinteger, matmulnbits, native

    forms: Counter[str] = Counter()
    for node in [node for node in model.graph if node.op_type == "LutMatMul"]:
        weight = read(node)
        if matmulinteger.lower(model.graph, node, weight):
            forms["MatMulInteger"] += 1
        elif has_native and native.lower(model.graph, node, weight, arithmetic):
            forms["native"] += 1
        elif arithmetic == "a8" and matmulnbits.lower(model.graph, node, weight):
            forms["MatMulNBits"] += 1
        else:
            forms["body"] += 1
    matmulinteger.in_any_version(model)
    model.opset_imports.update({node.domain: 1 for node in model.graph if node.domain})
    _drop_unused(model)
    return forms


def for_tensorrt(model: ir.Model, device: Device, kernel_of: KernelOf | None = None) -> Counter[str]:
    """Let each LutMatMul become a DequantizeLinear that TensorRT keeps packed, and write out all functions, in place.

    Args:
        model: a bundle's graph.
        device: the target, whose precisions decide.
        kernel_of: finds the kernel of a node, which then becomes plugin nodes (`edgetok.lowering.plugins`), as do
            weights that have no such form; None leaves plugins out.

    Returns:
        How many nodes of which operator became plugins.

    Raises:
        Refusal: a weight, or a rounded activation, has no such form, or the device no such precision; with `kernel_of`,
            the device takes no plugins, or no node has a kernel.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import InlinePass

    from edgetok.errors import Refusal
    from edgetok.lowbit.node import read
    from edgetok.lowering import activations, dequantize, plugins, strings

    unpacked: dict[ir.Node, Refusal] = {}
    for node in list(model.graph):
        weight = read(node) if node.op_type == "LutMatMul" else None
        obstacle = activations.obstacle(node, device) if weight is None else tensorrt_obstacle(weight, device)
        if obstacle is not None:
            reason, way_out = obstacle
            unpacked[node] = Refusal(reason, node=node.name, way_out=way_out)
            if weight is None or kernel_of is None:
                raise unpacked[node]
        elif weight is not None:
            dequantize.lower(model.graph, node, weight)
        elif node.op_type == "RoundToNVFP4":
            activations.lower(model.graph, node)
    made: Counter[str] = Counter()
    if kernel_of is not None:
        made = plugins.lower(model, device, kernel_of)
        for node in [node for node in unpacked if node.graph is model.graph]:  # weights that have no kernel either
            raise unpacked[node]
    types = {value.dtype for node in model.graph for value in (*node.inputs, *node.outputs) if value is not None}
    if ir.DataType.FLOAT4E2M1 in types:
        model.ir_version = max(model.ir_version or 0, 11)
    if any(node.domain == activations.DOMAIN for node in model.graph):
        model.opset_imports[activations.DOMAIN] = 1
    InlinePass()(model)
    strings.lower(model)
    _drop_unused(model)
    if not made:
        model.opset_imports.pop("edgetok", None)
    spell(model, [offer for offer in device.runtimes if offer.name.startswith("tensorrt")])
    return made


def spell(model: ir.Model, offers: Sequence[RuntimeOffer]) -> None:
    """Let operators that a runtime lacks be spelt by others that it has, in place; weights of few bits are left.

    Args:
        model: a bundle's graph. Of its functions, those that hold such operators are written out.
        offers: the runtimes that shall all take it.
    """
    from edgetok.lowering import matmulinteger

    for offer in offers:
        if offer.name.startswith("tensorrt"):
            _spell_for_tensorrt(model, offer)
        else:
            matmulinteger.in_any_version(model)


def _spell_for_tensorrt(model: ir.Model, offer: RuntimeOffer) -> None:
    from onnx_ir.passes.common import InlinePass, ShapeInferencePass

    from edgetok.lowering import attention, opset, rms_normalization

    rules = {"Attention": attention.decompose, "RMSNormalization": rms_normalization.decompose}
    lacking = {name for name in rules if any(lacks(offer, node) for node in _named(model, name))}
    if lacking:
        InlinePass(lambda function: bool(lacking & {node.op_type for node in function}))(model)
        ShapeInferencePass()(model)  # of what was inlined
        for node in [node for name in sorted(lacking) for node in _named(model, name)]:
            if lacks(offer, node):
                rules[node.op_type](model.graph, node)
        ShapeInferencePass()(model)
    if offer.max_opset:
        opset.lower(model, offer.max_opset)


def lacks(offer: RuntimeOffer, node: ir.Node) -> bool:
    """Whether a TensorRT does not import an operator, or does not build this node of it."""
    import onnx_ir as ir

    from edgetok.lint_rules import importers, narrow_heads, shared_queries

    if offer.name != "tensorrt-rtx" or node.op_type != "Attention":
        return not importers.imports(offer, node.op_type)
    width = narrow_heads.width_of(node)
    single = node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.FLOAT
    return single or shared_queries.shared(node) or (width is not None and width < narrow_heads.NARROWEST)


def _named(model: ir.Model, op_type: str) -> list[ir.Node]:
    """The model's nodes of a standard operator, and those of its functions."""
    graphs = [model.graph, *model.functions.values()]
    return [node for graph in graphs for node in graph if node.op_type == op_type and not node.domain]


def precision_obstacle(precision: str, device: Device, what: str = "weights") -> tuple[str, str] | None:
    """Why a device has no weights of a precision, and what to do; None where it has."""
    missing = device.lacks(precision, what, QUANTISERS)
    if missing is None:
        return None
    reason, known = missing
    cures = " or ".join(f"--quantize {QUANTISERS[name]}" for name in known)
    return reason, f"quantise with {cures}" if known else "export it without --quantize"


def tensorrt_obstacle(weight: Weight, device: Device) -> tuple[str, str] | None:
    """Why a device's TensorRT cannot hold a weight packed, and what to do; None where it can."""
    from edgetok.lowering import dequantize

    form, inputs = dequantize.kind(weight), weight.shape[1]
    if form is None:
        return precision_obstacle(f"{weight.bits}-bit", device, "weights from a table")
    if missing := precision_obstacle(form, device):
        return missing
    if inputs % min(weight.block, inputs):
        return (
            f"{inputs} inputs are no multiple of {weight.block}, and TensorRT takes whole blocks only",
            "quantise with a block that divides them, such as block=16, or leave the layer out with skip=",
        )
    if (weight.wide_scales < 0).any():
        cure = f"quantise with --quantize {QUANTISERS[form]}"
        return "the weight has negative scales, and TensorRT takes positive ones only", cure
    return None


def _drop_unused(model: ir.Model) -> None:
    from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
    RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
