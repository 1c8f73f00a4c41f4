"""int8 times int8 in ONNX Runtime: sums of integers, on every machine."""

import platform
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import edgetok
from edgetok import graph as g
from edgetok import lowering, plugins
from edgetok.lowbit import quantiser
from edgetok.lowbit.linear import find_linears
from edgetok.lowbit.node import read
from edgetok.lowbit.quantise import quantise
from edgetok.lowering import matmulinteger
from tests import families

ROWS, SCALE = 9, 0.03125
QEMU = "qemu-x86_64"


def layers(dtype: type = np.float32, inputs: int = 37, outputs: int = 21, zero: int = 0) -> ir.Model:
    """One rounded input that three layers read, the second with a bias; the input itself goes on as well."""
    rng, kind = np.random.default_rng(0), ir.DataType.from_numpy(np.dtype(dtype))
    x = ir.Value(name="x", type=ir.TensorType(kind), shape=ir.Shape(["batch", 3, inputs]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": g.OPSET}, name="layers")
    op, step = g.Emitter(graph), np.array(SCALE, dtype)
    codes = op.QuantizeLinear(x, step, np.int8(zero))
    rounded = g.typed(op.DequantizeLinear(codes, step, np.int8(zero)), kind, ["batch", 3, inputs])
    for number in range(3):
        y = op.MatMul(rounded, rng.standard_normal((inputs, outputs)).astype(dtype))
        g.typed(g.named(y, f"blocks.{number}/mlp/MatMul"), kind, ["batch", 3, outputs])
        if number == 1:
            y = op.Add(rng.standard_normal(outputs).astype(dtype), y)
        y.name = f"y{number}"
        graph.outputs.append(g.typed(y, kind, ["batch", 3, outputs]))
    rounded.name = "rounded"
    graph.outputs.append(rounded)
    return ir.Model(graph, ir_version=g.IR_VERSION)


def quantised(model: ir.Model, spec: str = "int8") -> ir.Model:
    """With weights of few bits."""
    quantise(model, [quantiser.parse(spec)], None)
    plugins.add_functions(model)
    return model


def run(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options).run(None, {"x": x})


def beyond(inputs: int = 37, dtype: type = np.float32) -> np.ndarray:
    """(2, 3, K): some of it past the range."""
    return (2.5 * np.random.default_rng(1).standard_normal((2, 3, inputs))).astype(dtype)


@pytest.mark.parametrize("unsigned", [False, True], ids=["int8", "uint8"])
@pytest.mark.parametrize("spec", ["int8", "int8:positive=true"])
def test_sums_are_of_integers(spec: str, unsigned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against integers in numpy, to fp32's rounding of the last two operations; and the canonical graph's outputs."""
    if not unsigned and matmulinteger.saturates():
        pytest.skip("this machine's kernels of uint8 x int8 saturate, which is why weights are moved to uint8 on it")
    monkeypatch.setattr(matmulinteger, "saturates", lambda: unsigned)
    model, x = quantised(layers(), spec), beyond()
    reference = run(model, x)
    weights = [read(node) for node in model.graph if node.op_type == "LutMatMul"]
    assert lowering.lower(model, "a32", has_native=False) == Counter(MatMulInteger=3)
    got = run(model, x)
    codes = np.clip(np.rint(x / np.float32(SCALE)), -128, 127).astype(np.int64)
    assert (codes == -128).any() and (codes == 127).any()
    for number, weight in enumerate(weights):
        levels = np.rint(weight.dequantise() / weight.wide_scales[:, 0, :1]).astype(np.int64)
        exact = (codes @ levels.T) * (weight.wide_scales[:, 0, 0].astype(np.float64) * SCALE)
        exact = exact + (model_bias() if number == 1 else 0)
        np.testing.assert_allclose(got[number], exact, rtol=3e-7, atol=3e-7)
        np.testing.assert_allclose(got[number], reference[number], rtol=0, atol=1e-4 * np.abs(exact).max())
    np.testing.assert_array_equal(got[3], reference[3])


def model_bias() -> np.ndarray:
    """Of the second layer."""
    add = next(node for node in layers().graph if node.op_type == "Add")
    return g.constant_of(add.inputs[0]).astype(np.float64)


@pytest.mark.parametrize(("spec", "arithmetic", "form"), [
    ("int8", "a32", "MatMulInteger"), ("int4", "a8", "MatMulNBits"),
])  # fmt: skip
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_stays_alone(spec: str, arithmetic: str, form: str, value: float) -> None:
    """The others keep every bit. A NaN itself becomes a number: integers have none (docs/quantisation.md)."""
    model = layers(inputs=64)
    if form == "MatMulNBits":
        for linear in find_linears(model.graph):
            linear.node.replace_input_with(0, model.graph.inputs[0])
    assert lowering.lower(quantised(model, spec), arithmetic, has_native=False) == {form: 3}
    spoilt = beyond(64)
    clean = run(model, spoilt)
    spoilt[0, 1, 5] = value
    for got, wanted in zip(run(model, spoilt), clean, strict=True):
        np.testing.assert_array_equal(got[1], wanted[1])
        np.testing.assert_array_equal(got[0, [0, 2]], wanted[0, [0, 2]])


def test_one_node_for_each_product() -> None:
    """The bias in it, one byte for each weight, one rounding for three products, and the layers' names."""
    model = quantised(layers())
    lowering.lower(model, "a8", has_native=True)
    found = Counter(node.op_type for node in model.graph)
    assert found == {"QuantizeLinear": 1, "MatMulIntegerToFloat": 3, "DequantizeLinear": 1}
    products = [node for node in model.graph if node.op_type == "MatMulIntegerToFloat"]
    assert [node.name for node in products] == [f"blocks.{number}/mlp/LutMatMul" for number in range(3)]
    assert [len(node.inputs) for node in products] == [6, 7, 6]
    assert all(node.inputs[1].dtype in (ir.DataType.INT8, ir.DataType.UINT8) for node in products)
    assert {node.domain for node in model.graph} == {"com.microsoft"} and not model.functions
    assert sum(value.const_value.nbytes for value in model.graph.initializers.values()) < 3 * 37 * 21 + 1000


def test_half_precision() -> None:
    """Scales widened, outputs narrowed."""
    model, x = quantised(layers(np.float16)), beyond(dtype=np.float16)
    reference = run(model, x)
    assert lowering.lower(model, "a32", has_native=False) == Counter(MatMulInteger=3)
    for got, wanted in zip(run(model, x), reference, strict=True):
        assert got.dtype == np.float16
        np.testing.assert_allclose(got.astype("d"), wanted.astype("d"), rtol=0, atol=4e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("spec", ["int8:block=16", "fp8", "int4:block=0", "nf4"])
def test_other_weights_stay(spec: str) -> None:
    model = quantised(layers(), spec)
    assert lowering.lower(model, "a32", has_native=False) == Counter(body=3)


def test_other_roundings_stay() -> None:
    """A zero point beside the middle, and activations that nothing rounds."""
    model = quantised(layers(zero=3))
    assert lowering.lower(model, "a32", has_native=False) == Counter(body=3)
    model = layers()
    for linear in find_linears(model.graph):
        linear.node.replace_input_with(0, model.graph.inputs[0])
    assert lowering.lower(quantised(model), "a32", has_native=False) == Counter(body=3)


def largest() -> None:
    """Run products of the largest numbers, and print what came of them: in an emulator, whose kernels are others."""
    model = quantised(layers(inputs=64))
    for value in model.graph.initializers.values():
        if (value.name or "").endswith(".codes"):
            value.const_value = ir.tensor(np.full(value.shape.numpy(), 255, np.uint8), name=value.name)
    x = np.full((2, 3, 64), 10, np.float32)
    wanted = run(model, x)
    lowering.lower(model, "a32", has_native=False)
    same = all(np.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(run(model, x), wanted, strict=True))
    print(f"saturates: {matmulinteger.saturates()}, same: {same}")


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not shutil.which(QEMU), reason=f"no {QEMU}: apt install qemu-user"
)
def test_a_machine_whose_kernels_saturate() -> None:
    """Haswell has AVX2 and no VNNI: there the weights become uint8, and the numbers stay."""
    command = [QEMU, "-cpu", "Haswell", sys.executable, "-c", "from tests import test_matmulinteger as t; t.largest()"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert "saturates: True, same: True" in done.stdout, done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize("arithmetic", ["a32", "a8"])
def test_a_bundle(arithmetic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All products of its linear layers, and nothing between codes and product for onnxruntime to fold."""
    monkeypatch.setenv("EDGETOK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "vit.onnx").write_bytes(families.captured("vit")[0])
    (tmp_path / "samples").mkdir()
    for seed in range(6):
        feeds = {name: value.numpy() for name, value in families.feeds("vit", batch=1, seed=seed).items()}
        np.savez(tmp_path / "samples" / f"{seed}.npz", **feeds)
    bundle = edgetok.export(
        str(tmp_path / "vit.onnx"), out=tmp_path / "b", quantize=["int8:skip=head"], activations="int8:skip=head",
        samples=tmp_path / "samples",
    )  # fmt: skip
    with edgetok.load(bundle.path, arithmetic=arithmetic) as loaded:
        loaded.check()
    (lowered,) = (tmp_path / "cache").rglob("model.onnx")
    found = Counter(node.op_type for node in onnx.load(lowered).graph.node)
    assert found["MatMulIntegerToFloat"] == len(bundle.manifest.weights) == 4 * 6 and not found["LutMatMul"]
