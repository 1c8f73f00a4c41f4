"""What an engine says of its own layers, held against the graph that it was built from.

TensorRT's inspector spells a type as "Half", or as "Row major linear FP16 format" where a context is set; which tactic
multiplies stands in the name of it. Written from NVIDIA's documentation and from listings of others; never run on a
card here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx

from edgetok.errors import BuildError
from edgetok.tensorrt.node import NAMESPACE

_TYPES = onnx.TensorProto
SPELT = {  # by the type of weights: the precision, and how the inspector may spell it
    _TYPES.FLOAT16: ("fp16", ("half", "fp16", "f16")),
    _TYPES.BFLOAT16: ("bf16", ("bfloat16", "bf16")),
    _TYPES.INT8: ("int8", ("int8", "i8")),
    _TYPES.INT4: ("int4", ("int4", "i4")),
    _TYPES.FLOAT8E4M3FN: ("fp8", ("fp8", "e4m3")),
    _TYPES.FLOAT4E2M1: ("fp4", ("fp4", "e2m1")),
}


def check(layers: list[dict[str, Any]], model: Path) -> None:
    """Make sure that each plugin, and each precision of the weights, is in the engine.

    Args:
        layers: the inspector's, with ProfilingVerbosity.DETAILED.
        model: the ONNX file that was built.

    Raises:
        BuildError: with what is not there.
    """
    graph = onnx.load(model, load_external_data=False).graph
    plugins = [layer for layer in layers if "plugin" in str(layer.get("LayerType", "")).lower()]
    named = " ".join(f"{layer.get('Name', '')} {layer.get('Metadata', '')}" for layer in plugins)
    missing = [node.name for node in graph.node if node.domain == NAMESPACE and node.name not in named]
    if missing:
        told = f"{len(missing)} plugin nodes are not in it, such as {missing[0]!r}"
        raise BuildError(f"the engine of {model.name} is not what was asked for: {told}; build it without plugins")
    used = json.dumps([[layer.get(key) for key in ("Inputs", "Outputs", "Weights", "TacticName")] for layer in layers])
    weights = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1}
    for kind in sorted(weights & SPELT.keys()):
        precision, spellings = SPELT[kind]
        if not any(spelling in used.lower() for spelling in spellings):
            told = f"its weights are {precision}, and no layer of the engine computes or reads {precision}"
            raise BuildError(f"the engine of {model.name} is not what was asked for: {told}")
