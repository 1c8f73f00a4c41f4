"""Writes graphs of transformers without torch, node by node, spelt as `torch.onnx.export(dynamo=True)` spells them.

What finds blocks in captured graphs finds them in these, and so does what finds linear layers: a MatMul with a constant
(K, N), to which an Add adds the bias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgetok import graph as g


class GraphBuilder:
    """Nodes and weights on their way into a graph; B is the batch, N the tokens.

    Attributes:
        batch: axis 0 of all that belongs to a sample: a number, or "batch".
    """

    def __init__(self, batch: int | None = None):
        self.batch: int | str = "batch" if batch is None else batch
        self._tape = ir.tape.Tape()
        self._shared: dict[tuple[int, ...], ir.Value] = {}

    def input(self, name: str, dtype: ir.DataType, *shape: int) -> ir.Value:
        """An input (B, *shape)."""
        return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape([self.batch, *shape]))

    def op(self, name: str, kind: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """A node with one output, of the same name."""
        value = self._tape.op(kind, inputs, attributes, name=name)
        value.name = name
        return value

    def halves(self, name: str, value: ir.Value) -> Sequence[ir.Value]:
        """The two halves of the last axis."""
        first, second = self._tape.op_multi_out(
            "Split", [value], {"axis": -1, "num_outputs": 2}, num_outputs=2, name=name
        )
        first.name, second.name = f"{name}.first", f"{name}.second"
        return first, second

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """An initializer."""
        return self._tape.initializer(ir.tensor(array, name=name))

    def late_constant(self, name: str, shape: Sequence[int], read: Callable[[], np.ndarray]) -> ir.Value:
        """An fp32 initializer that is read whenever it is needed, and not kept: for weights that lie compressed."""
        tensor = ir.LazyTensor(lambda: ir.tensor(read(), name=name), ir.DataType.FLOAT, ir.Shape(shape), name=name)
        return self._tape.initializer(tensor)

    def integers(self, *numbers: int) -> ir.Value:
        """A shape or a list of axes, one initializer for all that are equal."""
        if numbers not in self._shared:
            self._shared[numbers] = self.constant(f"integers_{len(self._shared)}", np.array(numbers, np.int64))
        return self._shared[numbers]

    def linear(self, name: str, x: ir.Value, matrix: np.ndarray, bias: np.ndarray | None = None) -> ir.Value:
        """(..., K) times a matrix (N, K).

        The matrix is stored as a view, transposed when the model is written, so that no second copy lives here.
        """
        product = self.op(f"{name}/MatMul", "MatMul", x, self.constant(f"{name}.weight", matrix.T))
        return product if bias is None else self.op(f"{name}/Add", "Add", product, self.constant(f"{name}.bias", bias))

    def layer_norm(self, name: str, x: ir.Value, scale: np.ndarray, bias: np.ndarray, epsilon: float) -> ir.Value:
        """Over the last axis."""
        weights = self.constant(f"{name}.weight", scale), self.constant(f"{name}.bias", bias)
        return self.op(name, "LayerNormalization", x, *weights, axis=-1, epsilon=epsilon, stash_type=1)

    def split_heads(self, name: str, x: ir.Value, length: int, heads: int, width: int) -> ir.Value:
        """(B, N, h d) -> (B, h, N, d)."""
        split = self.op(f"{name}/Reshape", "Reshape", x, self.integers(-1, length, heads, width))
        return self.op(f"{name}/Transpose", "Transpose", split, perm=[0, 2, 1, 3])

    def join_heads(self, name: str, x: ir.Value, length: int, width: int) -> ir.Value:
        """(B, h, N, d) -> (B, N, h d), which is `width`."""
        joined = self.op(f"{name}/Transpose", "Transpose", x, perm=[0, 2, 1, 3])
        return self.op(f"{name}/Reshape", "Reshape", joined, self.integers(-1, length, width))

    def keys_allowed(self, mask: ir.Value, queries: np.ndarray) -> ir.Value:
        """(B, N) of 0 and 1 to (B, 1, N, N), true where a query sees a key.

        Args:
            mask: 1 for a token, 0 for padding.
            queries: (1, 1, N, 1 or N) what a query may see at all. Spread over N here, because onnxruntime's CPU kernel
                takes no mask that is to be broadcast.
        """
        keys = self.op("mask/Cast", "Cast", mask, to=ir.DataType.BOOL.value)
        keys = self.op("mask/Unsqueeze", "Unsqueeze", keys, self.integers(1, 2))  # (B, 1, 1, N)
        return self.op("mask/And", "And", self.constant("mask.queries", queries), keys)

    def model(self, name: str, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
        """The graph of all that was written, with shapes and types; outputs are fp32."""
        for output in outputs:
            output.type = ir.TensorType(ir.DataType.FLOAT)
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self._tape.nodes,
            initializers=self._tape.initializers,
            opset_imports={"": g.OPSET},
            name=name,
        )
        model = ShapeInferencePass()(ir.Model(graph, ir_version=g.IR_VERSION, producer_name="edgetok")).model
        for node in model.graph:
            for value in node.outputs:  # a free axis is the batch, though behind a Reshape inference no longer knows it
                if value.shape is not None:
                    value.shape = ir.Shape([size if isinstance(size, int) else self.batch for size in value.shape])
        return model
