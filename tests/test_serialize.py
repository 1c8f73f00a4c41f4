"""model.onnx, written tensor by tensor, is what onnx itself reads and would have written."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgetok.serialize import LARGE, write_model

TENSORS = {
    "large": np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32),
    "half": np.ones((3, 1, 700), np.float16),
    "brain": np.arange(600).astype(ml_dtypes.bfloat16),
    "nibbles": (np.arange(5001) % 16 - 8).astype(ml_dtypes.int4),
    "transposed": np.arange(600.0).reshape(20, 30).T,
    "edge": np.zeros(LARGE, np.uint8),
    "above": np.zeros(LARGE + 1, np.uint8),
    "shape": np.array([0, -1, 8], np.int64),
    "scalar": np.array(0.125, np.float32),
}


def model() -> ir.Model:
    """A graph with many kinds of weights, an annotated initializer, a subgraph and a function with tensors."""
    text = """<ir_version: 10, opset_import: ["" : 23, "d" : 1], metadata_props: ["kept": "yes"]>
    main (bool condition, float[20, 30] x) => (float[20, 30] y) {
        z = If (condition) <
            then_branch = yes () => (float[20, 30] a) { a = Add(x, large) },
            else_branch = no () => (float[20, 30] b) { b = d.f(x) }>
        y = Mul(z, scalar)
    }
    <domain: "d", opset_import: ["" : 23]>
    f (i) => (o) { c = Constant <value = float[1] {2.0}> ()  o = Mul(i, c) }"""
    loaded = ir.from_proto(onnx.parser.parse_model(text))
    for name, array in TENSORS.items():
        value = loaded.graph.initializers.get(name) or ir.Value(name=name)
        value.const_value = ir.tensor(array, name=name)
        loaded.graph.initializers[name] = value
    strings = ir.Value(name="strings", const_value=ir.tensor(["x" * LARGE, "y"], name="strings"))
    loaded.graph.initializers["strings"] = strings
    return loaded


def by_name(message: onnx.ModelProto) -> bytes:
    """A model's bytes with its initializers in the order of their names."""
    initializers = sorted(message.graph.initializer, key=lambda tensor: tensor.name)
    del message.graph.initializer[:]
    message.graph.initializer.extend(initializers)
    return message.SerializeToString(deterministic=True)


def test_equals_what_onnx_writes(tmp_path):
    written = model()
    write_model(written, tmp_path)
    data = (tmp_path / "model.onnx").read_bytes()
    assert by_name(onnx.load_model_from_string(data)) == by_name(ir.to_proto(model()))
    assert by_name(ir.to_proto(written)) == by_name(ir.to_proto(model())), "the model is as it was"
    write_model(model(), tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == data
    (kept,) = (tensor for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer if tensor.name == "large")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(kept), TENSORS["large"])


@pytest.mark.parametrize("condition", [True, False])
def test_runs_in_onnxruntime(tmp_path, condition):
    onnxruntime = pytest.importorskip("onnxruntime")
    write_model(model(), tmp_path)
    x = np.ones((20, 30), np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (y,) = session.run(None, {"condition": np.array(condition), "x": x})
    np.testing.assert_allclose(y, (x + TENSORS["large"] if condition else 2 * x) * 0.125, rtol=1e-6)


def test_model_without_weights(tmp_path):
    bare = ir.from_proto(
        onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 23]> g (float x) => (float x) {}')
    )
    write_model(bare, tmp_path)
    assert onnx.load(tmp_path / "model.onnx") == ir.to_proto(bare)


def test_a_failure_leaves_the_model_whole(tmp_path):
    written = model()
    with pytest.raises(FileNotFoundError):
        write_model(written, tmp_path / "nowhere")
    assert by_name(ir.to_proto(written)) == by_name(ir.to_proto(model()))
