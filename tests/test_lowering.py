"""The forms that a weight of few bits takes for a runtime: exact, or left alone."""

import dataclasses
from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

import edgetok
from edgetok import devices, lowering, native
from edgetok import graph as g
from edgetok.errors import BundleError, Refusal, UsageError
from edgetok.exporters.quantisers import fp8, mxfp4, nvfp4
from edgetok.lowbit.linear import find_linears
from edgetok.lowbit.node import replace
from edgetok.lowbit.weight import Weight
from edgetok.lowering import matmulnbits
from edgetok.plugins import round_to_nvfp4
from tests.test_lowbit import model_of

DEVICES = {device.name: device for device in devices.load_all()}
FP4 = DEVICES["rtx-4090"].model_copy(update={"precisions": ("fp16", "fp8", "fp4", "int4", "int8")})


def weight(levels: np.ndarray, outputs: int = 6, inputs: int = 64, block: int = 16, planes: int = 1) -> Weight:
    """A random one whose codebook is given."""
    rng = np.random.default_rng(len(levels))
    bits = len(levels).bit_length() - 1
    codes = rng.integers(0, len(levels), (outputs, inputs)).astype(np.uint8)
    scales = rng.uniform(0.5, 2, (outputs, -(-inputs // block), planes)).astype(np.float32)
    return Weight(
        codes, bits, np.broadcast_to(levels.astype(np.float32), (1, planes, len(levels))).copy(), scales, block
    )


def graph_of(made: Weight) -> tuple[ir.Model, ir.Node]:
    """A model of one LutMatMul, and that node."""
    model = model_of(np.zeros(made.shape, np.float32))
    replace(model.graph, find_linears(model.graph)[0], made)
    return model, next(node for node in model.graph if node.op_type == "LutMatMul")


E2M1 = nvfp4.quantise(np.eye(16, dtype=np.float32), None, nvfp4.Config()).codebook[0, 0]
E4M3 = fp8.LEVELS
NF4 = np.sort(np.random.default_rng(0).standard_normal(16))


def a8(x: np.ndarray, made: Weight, block: int) -> np.ndarray:
    """x with each block of a row rounded to 127 steps, times the weight, in fp64."""
    blocks = x.reshape(len(x), -1, block).astype(np.float64)
    steps = np.abs(blocks).max(axis=-1, keepdims=True) / 127
    rounded = np.rint(blocks / np.where(steps == 0, 1, steps)) * steps
    return rounded.reshape(x.shape) @ made.dequantise().astype(np.float64).T


@pytest.mark.parametrize(
    ("levels", "bits"),
    [(E2M1, 8), (np.arange(16) - 8, 4), (np.arange(8) - 4, 4), (np.arange(4) - 2, 4), (np.arange(256) - 128, 8)],
    ids=["E2M1", "int4", "int3", "int2", "int8"],
)
@pytest.mark.parametrize(("inputs", "block", "used"), [(64, 16, 16), (256, 256, 256), (96, 96, 32)])
def test_matmulnbits_is_exact_in_the_weights(levels: np.ndarray, bits: int, inputs: int, block: int, used: int) -> None:
    made = weight(levels, inputs=inputs, block=block)
    model, node = graph_of(made)
    assert matmulnbits.lower(model.graph, node, made)
    (lowered,) = [node for node in model.graph if node.op_type == "MatMulNBits"]
    assert (lowered.attributes["bits"].value, lowered.attributes["block_size"].value) == (bits, used)
    model.opset_imports["com.microsoft"] = 1
    x = np.random.default_rng(1).standard_normal((7, inputs)).astype(np.float32)
    (got,) = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, {"x": x})
    wanted = a8(x, made, used)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    lowered.attributes["accuracy_level"] = ir.AttrInt64(
        "accuracy_level", 1
    )  # without rounding activations: the weights
    (got,) = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString()).run(
        None, {"x": np.eye(1, inputs, dtype="f")}
    )
    np.testing.assert_array_equal(got[0], made.dequantise()[:, 0])


@pytest.mark.parametrize(
    "made", [weight(NF4), weight(np.arange(16), planes=2), weight(np.arange(16), block=24, inputs=48), weight(E4M3)],
    ids=["NF4", "planes", "block of 24", "E4M3"],
)  # fmt: skip
def test_what_matmulnbits_cannot_hold_stays(made: Weight) -> None:
    model, node = graph_of(made)
    assert not matmulnbits.lower(model.graph, node, made)
    assert lowering.lower(model, "a8", has_native=False) == Counter(body=1)


def test_fp32_activations_keep_the_body() -> None:
    model, _ = graph_of(weight(E2M1))
    assert lowering.lower(model, "a32", has_native=False) == Counter(body=1)
    assert lowering.lower(model, "a8", has_native=False) == Counter(MatMulNBits=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("scales", ["float32", "float8_e4m3fn", "float8_e8m0fnu"])
def test_fp4_in_onnx_own_evaluator(dtype: type, scales: str) -> None:
    """Bit for bit what the codes say, through DequantizeLinear of FLOAT4E2M1."""
    made = weight(E2M1)
    kind = getattr(ml_dtypes, scales, np.float32)
    numbers = np.exp2(np.rint(np.log2(made.scales))) if scales == "float8_e8m0fnu" else made.scales
    made = Weight(made.codes, 4, made.codebook, numbers.astype(kind), 16, 0.25)
    model, _ = graph_of(made)
    model.graph.inputs[0].dtype = model.graph.outputs[0].dtype = ir.DataType.from_numpy(np.dtype(dtype))
    device = DEVICES["rtx-4090"].model_copy(update={"precisions": ("fp16", "fp4")})
    lowering.for_tensorrt(model, device)
    proto = ir.to_proto(model)
    assert proto.ir_version == 11 and not proto.functions and {node.domain for node in proto.graph.node} == {""}
    onnx.checker.check_model(proto, full_check=True)
    (got,) = ReferenceEvaluator(proto).run(None, {"x": np.eye(64, dtype=dtype)})
    wanted = made.dequantise()
    np.testing.assert_allclose(got.T.astype(np.float32), wanted, rtol=2**-10 if dtype == np.float16 else 0)


def test_scales_are_positive_in_half_precision() -> None:
    """MXFP4's scale of a block of zeros is 2^-127, which fp16 does not hold, and TensorRT does not parse a 0."""
    matrix = np.random.default_rng(0).standard_normal((4, 64), np.float32)
    matrix[1, 32:] = 0
    made = mxfp4.quantise(matrix, None, mxfp4.Config())
    model, _ = graph_of(made)
    model.graph.inputs[0].dtype = model.graph.outputs[0].dtype = ir.DataType.FLOAT16
    lowering.for_tensorrt(model, FP4)
    scales = g.constant_of(next(node for node in model.graph if node.op_type == "DequantizeLinear").inputs[1])
    assert scales.dtype == np.float16 and (scales > 0).all()
    (got,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": np.eye(64, dtype=np.float16)})
    np.testing.assert_array_equal(got.T, made.dequantise().astype(np.float16))


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (weight(np.arange(16) - 8), "int4"),
        (weight(np.arange(4) - 2), "int4"),
        (weight(np.arange(256) - 128, block=64), "int8"),
    ],
)
def test_integers_in_onnxruntime(made: Weight, kind: str) -> None:
    model, _ = graph_of(made)
    lowering.for_tensorrt(model, DEVICES["jetson-orin-nano-jp62"])
    stored = next(node for node in model.graph if node.op_type == "DequantizeLinear").inputs[0]
    assert stored.dtype.name.lower() == kind
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # else activations in int8
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    np.testing.assert_array_equal(session.run(None, {"x": np.eye(64, dtype="f")})[0].T, made.dequantise())


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("block", [16, 64], ids=["blocks", "outputs"])
def test_fp8_in_onnx_own_evaluator_and_onnxruntime(dtype: type, block: int) -> None:
    """Bit for bit what the codes say, through DequantizeLinear of FLOAT8E4M3FN."""
    matrix = np.random.default_rng(2).standard_normal((6, 64), np.float32)
    made = fp8.quantise(matrix, None, fp8.Config(block=block % 64))
    model, _ = graph_of(made)
    model.graph.inputs[0].dtype = model.graph.outputs[0].dtype = ir.DataType.from_numpy(np.dtype(dtype))
    lowering.for_tensorrt(model, DEVICES["rtx-4090"])
    stored = next(node for node in model.graph if node.op_type == "DequantizeLinear").inputs[0]
    assert stored.dtype == ir.DataType.FLOAT8E4M3FN
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    for got in (
        ReferenceEvaluator(proto).run(None, {"x": np.eye(64, dtype=dtype)})[0],
        onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": np.eye(64, dtype=dtype)})[0],
    ):
        wanted = made.dequantise()
        np.testing.assert_allclose(got.T.astype(np.float32), wanted, rtol=2**-10 if dtype == np.float16 else 0)


def rounded_to_nvfp4(*shape: int | str) -> ir.Model:
    """A model that rounds its input."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 23}, name="g")
    y = g.named(g.Emitter(graph).RoundToNVFP4(x, np.float32(0.01), domain="edgetok"), "blocks.0/mlp/RoundToNVFP4")
    y.name = "y"
    graph.outputs.append(g.typed(y, ir.DataType.FLOAT, shape))
    return ir.Model(graph, ir_version=10)


def test_activations_of_nvfp4_as_tensorrt_has_them() -> None:
    model = rounded_to_nvfp4("batch", 5, 64)
    lowering.for_tensorrt(model, FP4)
    (node, *scales, wide) = model.graph
    assert [each.op_type for each in (node, *scales, wide)] == [
        "TRT_FP4DynamicQuantize", "DequantizeLinear", "DequantizeLinear",
    ]  # fmt: skip
    assert {key: value.value for key, value in node.attributes.items()} == {
        "axis": -1, "block_size": 16, "scale_type": onnx.TensorProto.FLOAT8E4M3FN,
    }  # fmt: skip
    assert model.ir_version == 11 and model.opset_imports == {"": 23, "trt": 1} and not model.functions
    # What TensorRT's operator gives, by casts; then the two DequantizeLinear in ONNX's own evaluator.
    x, scale = np.random.default_rng(3).standard_normal((2, 5, 64), np.float32), np.float32(0.01)
    blocks = x.reshape(2, 5, 4, 16)
    small = np.minimum(np.abs(blocks).max(-1) / (np.float32(6) * scale), 448).astype(ml_dtypes.float8_e4m3fn)
    units = small.astype(np.float32)[..., None] * scale
    codes = np.clip(blocks / units, -6, 6).astype(ml_dtypes.float4_e2m1fn).reshape(x.shape)
    proto = ir.to_proto(model)
    dynamic = proto.graph.node.pop(0)
    del proto.graph.input[:]
    proto.graph.input.extend(onnx.ValueInfoProto(name=name) for name in dynamic.output)
    (got,) = ReferenceEvaluator(proto).run(None, dict(zip(dynamic.output, (codes, small), strict=True)))
    wanted = round_to_nvfp4.reference(torch.from_numpy(x), torch.tensor(scale)).numpy()
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("shape", [(2, 5, 40), (2, 3, 5, 64), (64,), (2, 5, "K")])
def test_activations_that_tensorrt_does_not_take(shape: tuple[int | str, ...]) -> None:
    with pytest.raises(Refusal, match=r"takes 2 or 3 axes, the last a multiple of 16; .* --activations fp8"):
        lowering.for_tensorrt(rounded_to_nvfp4(*shape), FP4)


def test_a_device_without_the_activations() -> None:
    with pytest.raises(Refusal, match="rtx-4090 has no fp4 activations: it has fp8, int8; export with "):
        lowering.for_tensorrt(rounded_to_nvfp4(2, 5, 64), DEVICES["rtx-4090"])


def test_a_device_without_the_precision() -> None:
    model, _ = graph_of(weight(E4M3))
    with pytest.raises(Refusal, match=r"jetson-orin-nano-jp62 has no fp8 weights: it has int4, int8; quantise with "):
        lowering.for_tensorrt(model, DEVICES["jetson-orin-nano-jp62"])
    model, _ = graph_of(weight(E4M3, inputs=48, block=32))
    with pytest.raises(Refusal, match="48 inputs are no multiple of 32, and TensorRT takes whole blocks only"):
        lowering.for_tensorrt(model, DEVICES["rtx-4090"])
    model, _ = graph_of(weight(E2M1))
    with pytest.raises(Refusal, match=r"jetson-orin-nano-jp62 has no fp4 weights: it has int4, int8; quantise with "):
        lowering.for_tensorrt(model, DEVICES["jetson-orin-nano-jp62"])
    model, _ = graph_of(dataclasses.replace(made := weight(np.arange(16) - 8), scales=-made.scales))
    with pytest.raises(Refusal, match="negative scales, and TensorRT takes .* --quantize int4:positive=true"):
        lowering.for_tensorrt(model, DEVICES["jetson-orin-nano-jp62"])
    model, _ = graph_of(weight(np.arange(16) - 8, inputs=48, block=32))
    with pytest.raises(Refusal, match="48 inputs are no multiple of 32, and TensorRT takes whole blocks only"):
        lowering.for_tensorrt(model, DEVICES["jetson-orin-nano-jp62"])
    model, _ = graph_of(weight(NF4))
    with pytest.raises(Refusal, match="rtx-4090 has no 4-bit weights from a table: it has"):
        lowering.for_tensorrt(model, DEVICES["rtx-4090"])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViT with NVFP4 weights."""
    out = tmp_path_factory.mktemp("lowered") / "small"
    edgetok.export("tests.families:small_vit", out=out, quantize=["nvfp4:skip=head"], min_cosine=0.5)
    return out


def test_a_bundle_runs_in_both_arithmetics(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETOK_CACHE", str(tmp_path))
    with edgetok.load(bundle) as exact, edgetok.load(bundle, arithmetic="a8") as rounded:
        assert max(exact.check().values()) < 1e-4 < max(rounded.check().values()) < 0.1
        feeds = exact.bundle.samples("inputs")
        plain = onnxruntime.InferenceSession(bundle / "model.onnx").run(None, feeds)
        for got, wanted in zip(exact.run(feeds).values(), plain, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    (made,) = tmp_path.iterdir()
    assert made.name == exact.bundle.id[:16]  # lowered forms lie under the bundle's id, and are taken up again
    before = {file: file.stat().st_mtime_ns for file in made.rglob("*.onnx")}
    with edgetok.load(bundle, arithmetic="a8") as again:
        again.check()
    assert {file: file.stat().st_mtime_ns for file in made.rglob("*.onnx")} == before


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("has_native", [True, False])
def test_half_precision_runs_in_both_arithmetics(
    dtype: str, has_native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels take fp32: they are widened around."""
    monkeypatch.setenv("EDGETOK_CACHE", str(tmp_path / "cache"))
    if not has_native:
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip(native.status().detail)
    edgetok.export("tests.families:small_vit", out=tmp_path / "b", quantize=["nvfp4"], dtype=dtype, min_cosine=0.5)
    for arithmetic in ("a32", "a8"):
        with edgetok.load(tmp_path / "b", arithmetic=arithmetic) as model:
            model.check()


def test_arithmetic_is_checked(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="arithmetic 'a16': accepted are a32, a8"):
        edgetok.load(bundle, arithmetic="a16")
    edgetok.export("tests.families:small_vit", out=tmp_path / "plain")
    with pytest.raises(UsageError, match="a8 is for weights of few bits, and this bundle has none"):
        edgetok.load(tmp_path / "plain", arithmetic="a8")


def test_a_model_that_int8_activations_spoil(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetok.promise.LEAST_A8_DB", 90.0)
    monkeypatch.setenv("EDGETOK_CACHE", str(tmp_path))
    with edgetok.load(bundle, arithmetic="a8") as model, pytest.raises(BundleError, match="run it with a32"):
        model.check()


def test_a_cache_that_cannot_be_written(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGETOK_CACHE", str(tmp_path / "file"))
    with edgetok.load(bundle) as model, pytest.raises(edgetok.errors.OutputError, match="set EDGETOK_CACHE"):
        model.check()
