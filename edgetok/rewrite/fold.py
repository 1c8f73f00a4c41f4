"""Shapes that are computed in the graph become constants, and old opsets the one that edgetok works on."""

from __future__ import annotations

import onnx_ir as ir

from edgetok import graph as g
from edgetok.errors import CaptureError
from edgetok.quiet import quiet
from edgetok.rewrite.batch import fix_batch, free_batch

ROUNDS = 4  # inference and folding feed each other; a TorchScript ViT needs two
SMALL = 1 << 16  # elements that a folded constant may hold whatever it replaces


def modernise(model: ir.Model) -> None:
    """Convert to opset 23 and fold what depends on constants and shapes only, in place; a free batch stays free.

    Raises:
        CaptureError: the graph cannot be converted, branches, or ties the batch to something else.
    """
    from onnx_ir.passes import common

    with quiet():
        common.RemoveInitializersFromInputsPass()(model)
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        marker = fix_batch(model.graph)
        _forget_shapes(model.graph)
        _infer_shapes(model)
        _convert(model)
        _fold(model, marker)
        _refuse_branches(model.graph)
        if marker:
            free_batch(model.graph, marker)
        model.ir_version = g.IR_VERSION


def _forget_shapes(graph: ir.Graph) -> None:
    """Drop the shapes that the file declares for the batch it was exported with."""
    for value in (*graph.outputs, *(output for node in graph for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([None] * len(value.shape)) if value in graph.outputs else None


def _infer_shapes(model: ir.Model) -> None:
    """ONNX's inference, carried over GroupNormalization, for which it has none (as of onnx 1.23)."""
    from onnx_ir.passes.common import ShapeInferencePass

    infer = ShapeInferencePass(check_type=False, strict_mode=False)
    infer(model)
    for node in [node for node in model.graph if node.op_type == "GroupNormalization"]:
        read, made = node.inputs[0], node.outputs[0]
        if read is not None and read.shape is not None and made.shape != read.shape:
            g.typed(made, read.dtype, list(read.shape))
            infer(model)


def _convert(model: ir.Model) -> None:
    from onnxscript.version_converter import ConvertVersionPass

    found = model.opset_imports[""]
    refusal = f"opset {found} cannot be converted to {g.OPSET}"
    try:
        ConvertVersionPass(g.OPSET, fallback=True)(model)
    except Exception as error:  # the converters raise many kinds
        raise CaptureError(f"{refusal}: {str(error).splitlines()[0][:200]}") from None
    if model.opset_imports[""] != g.OPSET:
        raise CaptureError(f"{refusal}; export the model with opset 14 to {g.OPSET}")


def _fold(model: ir.Model, marker: int) -> None:
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants

    def should_fold(node: ir.Node) -> bool:
        """Not where the batch is spread out, and not where memory would grow."""
        if node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            return False
        read = sum(v.const_value.size for v in node.inputs if v is not None and v.const_value is not None)
        for value in node.outputs:
            shape = g.static_shape(value)
            if shape is None or any(dim is None or (marker and dim and dim % marker == 0) for dim in shape):
                return False
            size = 1
            for dim in shape:
                size *= dim  # type: ignore[operator]
            if size > max(SMALL, read):
                return False
        return True

    before = -1
    for _ in range(ROUNDS):
        _infer_shapes(model)
        fold_constants(model, onnx_shape_inference=True, output_size_limit=1 << 26, should_fold=should_fold)
        common.RemoveUnusedNodesPass()(model)
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        if len(model.graph) == before:
            break
        before = len(model.graph)


def _refuse_branches(graph: ir.Graph) -> None:
    for node in graph:
        if any(value.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for value in node.attributes.values()):
            raise CaptureError(
                f"node {node.name!r} is {node.op_type}: graphs with branches or loops are not taken; "
                "export the model without them"
            )
