"""What an engine says of its own layers, held against the graph that it was built from.

TensorRT's inspector spells a type as "Half", as "Half(64,1:8,...)" or as "Row major linear FP16 format (kLINEAR)", and
"N/A due to dynamic shapes" where no context fixes them; a layer's weights have a type of their own, and the tactic that
multiplies has both in its name, as in sm80_xmma_gemm_i8i8_i8i32_f32_tn. The graph's nodes stand in a layer's metadata
as "[ONNX Layer: name]". Written from NVIDIA's documentation of 10.16 and 11.0 and from listings that others made with
10.x; never run on a card here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import onnx

from edgetok.errors import BuildError
from edgetok.tensorrt.node import NAMESPACE

_TYPES = onnx.TensorProto
SPELT = {  # by the type of weights: the precision, and how the inspector and its tactics spell it
    _TYPES.FLOAT16: ("fp16", r"half|(?<!b)f(p)?16"),
    _TYPES.BFLOAT16: ("bf16", r"bf(loat)?16"),
    _TYPES.INT8: ("int8", r"(?<!u)int8|(?<![a-z])i8"),
    _TYPES.INT4: ("int4", r"(?<!u)int4|(?<![a-z])i4"),
    _TYPES.FLOAT8E4M3FN: ("fp8", r"fp8|e4m3"),
    _TYPES.FLOAT4E2M1: ("fp4", r"fp4|e2m1"),
}
SAID = ("Inputs", "Outputs", "Weights", "TacticName")  # where a layer says what it computes with


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
    missing = [node.name for node in graph.node if node.domain == NAMESPACE and not _names(named, node.name)]
    if missing:
        told = f"{len(missing)} plugin nodes are not in it, such as {missing[0]!r}"
        raise BuildError(f"the engine of {model.name} is not what was asked for: {told}; build it without plugins")
    used = json.dumps([[layer.get(key) for key in SAID] for layer in layers]).lower()
    weights = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1}
    for kind in sorted(weights & SPELT.keys()):
        precision, spelling = SPELT[kind]
        if not re.search(spelling, used):
            told = f"its weights are {precision}, and no layer of the engine computes or reads {precision}"
            raise BuildError(f"the engine of {model.name} is not what was asked for: {told}")


def _names(text: str, name: str) -> bool:
    """Whether a text has that name, and not only a longer one."""
    return re.search(rf"(?<![\w./]){re.escape(name)}(?![\w./])", text) is not None
