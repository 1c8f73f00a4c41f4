"""Real matrices for quantisers: three layers of zoo:dinov2-style-s14, and what photographs feed them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from edgetok import zoo
from edgetok.lowbit import quantiser
from edgetok.lowbit.quantiser import Activations
from edgetok.lowbit.weight import Weight
from tests.conftest import packaged

GOLDEN = Path(__file__).parent / "golden" / "low-bit"
LAYERS = {"query": "layer.0/attention/attention/query", "fc1": "layer.5/mlp/fc1", "fc2": "layer.10/mlp/fc2"}
PHOTOGRAPHS = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png")


@dataclass(frozen=True)
class Layer:
    """A matrix (N, K), what three photographs feed it, and what a fourth does, (257, K)."""

    matrix: np.ndarray
    seen: Activations
    unseen: np.ndarray

    def output_error(self, weight: Weight) -> float:
        """Of the outputs for the photograph that was not seen, relative."""
        wanted = self.unseen @ self.matrix.T
        return float(np.linalg.norm(self.unseen @ weight.dequantise().T - wanted) / np.linalg.norm(wanted))


@cache
def layers() -> dict[str, Layer]:
    """The layers of LAYERS."""
    import onnx
    import onnxruntime

    known = zoo.find("dinov2-style-s14")
    packaged(known.module, "")
    model = onnx.load(known.locate())
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    found = {layer: nodes[f"/backbone/encoder/{name}/MatMul"].input for layer, name in LAYERS.items()}
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=x) for x, _ in found.values())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    load = known.preprocess["input_image"].load
    runs = [
        session.run(None, {"input_image": load([str(packaged("skimage", f"data/{name}"))], Path("."))})
        for name in PHOTOGRAPHS
    ]
    return {
        layer: Layer(
            np.ascontiguousarray(weights[weight].T),
            Activations(np.concatenate([run[place][0] for run in runs[:-1]])),
            runs[-1][place][0],
        )
        for place, (layer, (_, weight)) in enumerate(found.items())
    }


def quantised(text: str, matrix: np.ndarray, activations: Activations | None = None) -> Weight:
    """A matrix as a spec has it."""
    spec = quantiser.parse(text)
    return quantiser.load(spec.name).quantise(matrix, activations, spec.config)


def squared_error(weight: Weight, matrix: np.ndarray, importance: np.ndarray | float = 1.0) -> float:
    """Mean over the weights, of each input channel as much as it matters."""
    return float((np.square(weight.dequantise().astype(np.float64) - matrix) * importance).mean())
