"""What is in a graph: operators, weights and blocks, and what stands in the way of reducing its tokens."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.errors import Refusal, SourceError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


@dataclass(frozen=True)
class Contents:
    """A graph as its file has it.

    Attributes:
        opset: of the standard operators.
        operators: how many nodes of each, those of subgraphs included; `edgetok.MergeTokens` for other domains.
        parameters: numbers in the weights.
        weights: their bytes by type.
    """

    ir_version: int
    opset: int
    inputs: dict[str, str]
    outputs: dict[str, str]
    operators: dict[str, int]
    parameters: int
    weights: dict[str, int]


@dataclass(frozen=True)
class Blocks:
    """The transformer in a graph.

    Attributes:
        count: how many blocks were found.
        tokens: of the first block, the prefix included; None where they are not fixed.
        prefix: leading tokens that are never reduced.
        mask: what the attention masks do.
        refusal: why tokens cannot be reduced; None where they can.
    """

    count: int
    tokens: int | None
    prefix: int
    mask: str
    refusal: str | None


def read(path: Path) -> Contents:
    """Look into an .onnx file; its weights stay on disk.

    Raises:
        SourceError: it is missing, or no ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise SourceError(f"{str(path)!r} is missing: there is no such file") from None
    except (DecodeError, ValueError, OSError) as error:
        raise SourceError(f"{path.name!r} is not an ONNX file, or is cut off: {str(error).splitlines()[0]}") from None
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if not model.graph.node or not opsets:
        raise SourceError(f"{path.name!r} is not an ONNX file, or is cut off: it holds no graph of ONNX operators")
    weights: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        weights[kind.name] += prod(tensor.dims) * kind.itemsize
    stored = {tensor.name for tensor in model.graph.initializer}
    return Contents(
        ir_version=model.ir_version,
        opset=opsets.get("", 0),
        inputs={value.name: _type(value) for value in model.graph.input if value.name not in stored},
        outputs={value.name: _type(value) for value in model.graph.output},
        operators=dict(_operators(model.graph).most_common()),
        parameters=sum(prod(tensor.dims) for tensor in model.graph.initializer),
        weights=dict(weights.most_common()),
    )


def find_transformer(model: ir.Model) -> Blocks:
    """Find the blocks of a graph in edgetok's spelling, and try whether tokens could be reduced behind each."""
    from edgetok.view import TransformerView
    from edgetok.view.blocks import find_blocks

    try:
        view = TransformerView.of(model)
    except Refusal as refusal:
        try:
            count = len(find_blocks(model.graph))
        except Refusal:
            count = 0
        return Blocks(count, None, 0, "unknown", str(refusal))
    try:
        view.check({block.after_attention: block.index for block in view.blocks})
        refusal_text = None
    except Refusal as refusal:
        refusal_text = str(refusal)
    return Blocks(len(view.blocks), view.tokens, view.prefix, view.mask.value, refusal_text)


def _operators(graph: onnx.GraphProto) -> Counter[str]:
    counts: Counter[str] = Counter()
    for node in graph.node:
        counts[f"{node.domain}.{node.op_type}" if node.domain else node.op_type] += 1
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                counts += _operators(inner)
    return counts


def _type(value: onnx.ValueInfoProto) -> str:
    """As people write it: float32 [batch, 3, 224, 224]."""
    import onnx

    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return value.type.WhichOneof("value") or "unknown"
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if tensor.elem_type else "unknown"
    dims = [dim.dim_param or (str(dim.dim_value) if dim.HasField("dim_value") else "?") for dim in tensor.shape.dim]
    return f"{kind} [{', '.join(dims)}]"
