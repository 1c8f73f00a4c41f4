"""A graph as model.onnx, tensor by tensor.

`onnx.save` holds the weights three times: in the graph, in a protobuf message, and in that message's bytes. Here the
message holds the graph without its large tensors; they are written behind it one at a time, as a protobuf field may
be. (1.3 GB of weights: a peak of 5.0 GB that way, 2.6 GB this way, half of which are pages of the written file.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.verify import MODEL, WEIGHTS

if TYPE_CHECKING:
    import onnx_ir as ir

INLINE_LIMIT = 2**31 - 2**26  # bytes of weights in model.onnx: protobuf ends at 2**31, and the graph needs some
LARGE = 1024  # bytes; smaller tensors are shapes and scales, which shape inference wants to see inline
# Field numbers of onnx.proto, as tags of length-delimited fields: number << 3 | 2
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = b"\x3a", b"\x2a", b"\x4a"


def write_model(model: ir.Model, folder: Path) -> None:
    """Write model.onnx, and model.onnx.data if protobuf cannot hold the weights.

    Equal models give equal bytes. Weights that lie in other files are taken along.
    """
    import onnx_ir as ir

    weights = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    if sum(tensor.nbytes for tensor in weights if tensor is not None) > INLINE_LIMIT:
        ir.save(model, folder / MODEL, external_data=WEIGHTS, size_threshold_bytes=LARGE)
        return
    with _without_large_tensors(model) as tensors:
        message = ir.to_proto(ir.external_data.load_to_model(model))
    streamed = {tensor.name for tensor in tensors}
    kept = [tensor for tensor in message.graph.initializer if tensor.name not in streamed]
    del message.graph.initializer[:]
    message.graph.initializer.extend(kept)
    graph = message.graph.SerializeToString(deterministic=True)
    message.ClearField("graph")
    heads = [_tensor_head(tensor) for tensor in tensors]
    length = len(graph) + sum(len(head) + tensor.nbytes for head, tensor in zip(heads, tensors, strict=True))
    with open(folder / MODEL, "wb") as file:
        file.write(message.SerializeToString(deterministic=True))
        file.write(_MODEL_GRAPH + _varint(length) + graph)
        for head, tensor in zip(heads, tensors, strict=True):
            file.write(head)
            file.write(tensor.tobytes())


@contextmanager
def _without_large_tensors(model: ir.Model) -> Iterator[list[ir.TensorProtocol]]:
    """Take the large tensors out of the main graph for a while, empty ones standing in."""
    import numpy as np
    import onnx_ir as ir

    taken = []
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > LARGE and tensor.dtype != ir.DataType.STRING:
            taken.append((value, tensor))
    try:
        for value, tensor in taken:
            tensor.name = value.name
            value.const_value = ir.tensor(np.zeros(0, np.float32), name=value.name)
        yield [tensor for _, tensor in taken]
    finally:
        for value, tensor in taken:
            value.const_value = tensor


def _tensor_head(tensor: ir.TensorProtocol) -> bytes:
    """Give the bytes of an initializer up to its weights."""
    import onnx

    dims = tensor.shape.numpy()
    head: bytes = onnx.TensorProto(name=tensor.name, dims=dims, data_type=tensor.dtype.value).SerializeToString()
    head += _TENSOR_RAW_DATA + _varint(tensor.nbytes)
    return _GRAPH_INITIALIZER + _varint(len(head) + tensor.nbytes) + head


def _varint(number: int) -> bytes:
    """Spell an unsigned number as protobuf does: seven bits a byte, lowest first, the top bit for more to come."""
    spelt = bytearray()
    while number > 0x7F:
        spelt.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*spelt, number])
