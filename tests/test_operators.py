"""Every operator x every case: the ONNX function on onnxruntime against the PyTorch reference."""

import inspect

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from edgetok import plugins
from edgetok.graph import IR_VERSION, OPSET

CASES = [(name, case, args) for name in plugins.names() for case, args in plugins.load(name).cases()]
CHOOSING = ("agglomerative_clusters", "bipartite_match", "farthest_points", "greedy_select", "nearest_code")


def run_function(name: str, args: tuple[object, ...], attributes: dict[str, object]) -> list[np.ndarray]:
    """One node that calls the operator's function, in plain onnxruntime."""
    function = plugins.load(name).function
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    outputs = len(function.to_function_proto().output)
    inputs = [
        ir.Value(name=f"in{i}", type=ir.TensorType(ir.DataType.from_numpy(t.numpy().dtype)), shape=ir.Shape(t.shape))
        for i, t in enumerate(tensors)
    ]
    node = ir.node(function.name, inputs, attributes=attributes, domain=plugins.DOMAIN, num_outputs=outputs)
    for i, value in enumerate(node.outputs):
        value.name = f"out{i}"
        value.type = ir.TensorType(ir.DataType.INT64 if name in CHOOSING and i < 2 else ir.DataType.FLOAT)
    graph = ir.Graph(inputs, node.outputs, nodes=[node], opset_imports={"": OPSET}, name="one")
    model = ir.Model(graph, ir_version=IR_VERSION)
    plugins.add_functions(model)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    return session.run(None, {f"in{i}": t.numpy() for i, t in enumerate(tensors)})


def attributes_of(name: str, args: tuple[object, ...]) -> dict[str, object]:
    """What the function takes as attributes: the numbers of the case."""
    parameters = list(inspect.signature(plugins.load(name).reference).parameters)
    return {key: arg for key, arg in zip(parameters, args, strict=True) if not isinstance(arg, torch.Tensor)}


@pytest.mark.parametrize(("name", "case", "args"), CASES, ids=[f"{n}-{c}" for n, c, _ in CASES])
def test_function_equals_reference(name, case, args):
    got = run_function(name, args, attributes_of(name, args))
    wanted = plugins.load(name).reference(
        *(a.double() if torch.is_tensor(a) and a.is_floating_point() else a for a in args)
    )
    for array, tensor in zip(got, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-4, atol=1e-5)


def test_equal_scores_take_the_lower_index():
    zeros = (torch.ones(1, 4, 3), torch.ones(1, 3, 3), torch.zeros(1, 4), torch.zeros(1, 3))
    order, match, _ = run_function("bipartite_match", zeros, {})
    assert order.tolist() == [[0, 1, 2, 3]] and match.tolist() == [[0, 0, 0, 0]]


def test_a_sample_that_is_not_finite_stays_alone():
    a, b, bias_a, bias_b = dict(plugins.load("bipartite_match").cases())["odd"]
    order, match, _ = run_function(
        "bipartite_match", (a.index_fill(0, torch.tensor(1), float("nan")), b, bias_a, bias_b), {}
    )
    clean_order, clean_match, _ = run_function("bipartite_match", (a, b, bias_a, bias_b), {})
    assert sorted(order[1]) == list(range(16)) and match.min() >= 0 and match.max() < 15
    np.testing.assert_array_equal(order[[0, 2]], clean_order[[0, 2]])
    np.testing.assert_array_equal(match[[0, 2]], clean_match[[0, 2]])
