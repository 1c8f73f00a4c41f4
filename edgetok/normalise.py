"""One spelling for every graph, whatever exported it."""

from __future__ import annotations

import onnx_ir as ir

from edgetok import graph as g
from edgetok.quiet import quiet
from edgetok.rewrite.attention import fuse_attention
from edgetok.rewrite.causal import spell_causality
from edgetok.rewrite.gelu import fuse_gelu
from edgetok.rewrite.group_norm import spell_group_norm
from edgetok.rewrite.layer_norm import fuse_layer_norm
from edgetok.rewrite.nearest_code import fuse_nearest_code
from edgetok.rewrite.rotary import spread_rotary_tables
from edgetok.rewrite.snake import fuse_snake
from edgetok.rewrite.softmax import unflatten_softmax
from edgetok.rewrite.split import cut_by_slices


def normalise(model: ir.Model) -> None:
    """Bring a graph into edgetok's spelling, in place: one node for attention, norms, activations, searches."""
    from onnx_ir.passes import common

    with quiet():
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        _name_batch(model.graph)
        fuse_layer_norm(model)
        spell_group_norm(model)
        fuse_gelu(model)
        fuse_snake(model)
        unflatten_softmax(model)
        fuse_attention(model)
        spell_causality(model.graph)
        fuse_nearest_code(model)
        cut_by_slices(model)
        spread_rotary_tables(model.graph)
        _drop_idle_masks(model.graph)
        _let_reshapes_copy(model.graph)
        common.IdentityEliminationPass()(model)
        common.RemoveUnusedNodesPass()(model)
        common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass()(model)
        model.graph.sort()
        _strip(model)
        common.NameFixPass()(model)


def _name_batch(graph: ir.Graph) -> None:
    """Axis 0 of inputs and outputs is "batch" where it is free, and so is the same symbol everywhere else."""
    ends = [value for value in (*graph.inputs, *graph.outputs) if value.shape]
    symbols = {value.shape[0].value for value in ends if isinstance(value.shape[0], ir.SymbolicDim)}  # type: ignore[index]
    for value in {*graph.inputs, *graph.outputs, *(v for node in graph for v in node.outputs)}:
        if value.shape is None:
            continue
        dims = [
            "batch" if isinstance(dim, ir.SymbolicDim) and dim.value is not None and dim.value in symbols else dim
            for dim in value.shape
        ]
        if dims and value in ends and not isinstance(dims[0], int):
            dims[0] = "batch"
        value.shape = ir.Shape(dims)


def _drop_idle_masks(graph: ir.Graph) -> None:
    """Take masks away that let every pair pass, whatever the inputs are."""
    from edgetok.view.masks import Mask, Masking, classify

    if any(isinstance(dim, ir.SymbolicDim) for value in graph.inputs for dim in (value.shape or ())[1:]):
        return  # a window wide enough for the size that is tried may be narrow at another
    kinds: dict[ir.Value, Masking | None] = {}
    for node in graph:
        mask = node.inputs[3] if node.op_type == "Attention" and node.domain == "" and len(node.inputs) > 3 else None
        if mask is None:
            continue
        if mask not in kinds:
            kinds[mask] = classify(graph, mask) if _reads_no_floats(mask) else None
        if kinds[mask] == Masking(Mask.NONE):
            node.replace_input_with(3, None)
            if all(value is None for value in node.inputs[3:]):
                node.resize_inputs(3)


def _reads_no_floats(mask: ir.Value) -> bool:
    """Whether a mask depends on integer inputs only, for which `classify` knows what to try."""
    return all(value.dtype is not None and not value.dtype.is_floating_point() for value in g.sources(mask))


def _let_reshapes_copy(graph: ir.Graph) -> None:
    """Clear allowzero, with which a 0 means an empty axis, where the target is a constant without one."""
    for node in graph:
        if node.op_type == "Reshape" and "allowzero" in node.attributes:
            target = g.ints_of(node.inputs[1])
            if target is not None and (0 not in target or not g.attribute(node, "allowzero")):
                node.attributes.pop("allowzero")


def _strip(model: ir.Model) -> None:
    """Names stay, but no descriptions, stack traces or paths of the machine that exported the graph."""
    from onnx_ir.passes import common

    head = model.metadata_props.get(g.HEAD)
    common.ClearMetadataAndDocStringPass()(model)
    if head is not None:
        model.metadata_props[g.HEAD] = head
    model.producer_name = model.producer_version = model.domain = None
    model.graph.name = "main"
    for number, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}_{number}"
