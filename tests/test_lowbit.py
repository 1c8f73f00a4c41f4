"""Weights of few bits in graphs: written, read back, run by plain onnxruntime, refused where they cannot be."""

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgetok import graph as g
from edgetok import plugins
from edgetok.errors import Refusal, UnknownName, UsageError
from edgetok.lowbit import quantiser
from edgetok.lowbit.linear import find_linears
from edgetok.lowbit.node import read, replace
from edgetok.lowbit.quantise import quantise
from edgetok.lowbit.weight import Weight


def model_of(matrix: np.ndarray, bias: np.ndarray | None = None, **gemm: object) -> ir.Model:
    """x (batch, K) times a matrix (N, K): a MatMul, or a Gemm where there is a bias."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", matrix.shape[1]]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": g.OPSET}, name="one")
    op = g.Emitter(graph)
    y = op.MatMul(x, matrix.T.copy()) if bias is None else op.Gemm(x, matrix, bias, transB=1, **gemm)
    y.name, y.producer().name = "y", f"blocks.0/mlp/{y.producer().op_type}"
    graph.outputs.append(g.typed(y, ir.DataType.FLOAT, ["batch", len(matrix)]))
    return ir.Model(graph, ir_version=g.IR_VERSION)


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    plugins.add_functions(model)
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, {"x": x})[0]


def weight(bits: int, scales: str, global_scale: float = 1.0, planes: int = 1) -> Weight:
    """Of 6 outputs and 20 inputs, in blocks of 8."""
    rng = np.random.default_rng(bits)
    numbers = rng.integers(1, 9, (6, 3, planes)).astype(np.float32)
    if scales == "float8_e8m0fnu":
        numbers = np.exp2(numbers - 20)
    dtype = getattr(ml_dtypes, scales, None) or np.dtype(scales)
    codebook = rng.standard_normal((1, planes, 2**bits)).astype(np.float32)
    codes = rng.integers(0, 2**bits, (6, 20)).astype(np.uint8)
    return Weight(codes, bits, codebook, numbers.astype(dtype), 8, global_scale)


@pytest.mark.parametrize("scales", ["float32", "float16", "float8_e4m3fn", "float8_e8m0fnu"])
@pytest.mark.parametrize(("bits", "global_scale", "planes"), [(2, 1.0, 3), (3, 0.37, 1), (4, 0.01, 1), (8, 1.0, 2)])
def test_what_is_written_is_read_and_run(bits: int, global_scale: float, planes: int, scales: str) -> None:
    made, x = weight(bits, scales, global_scale, planes), np.random.default_rng(0).standard_normal((5, 20), np.float32)
    model = model_of(np.zeros((6, 20), np.float32))
    (linear,) = find_linears(model.graph)
    replace(model.graph, linear, made)
    found = read(next(node for node in model.graph if node.op_type == "LutMatMul"))
    for name in ("codes", "codebook", "scales"):
        got, wanted = getattr(found, name), getattr(made, name)
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got.view(np.uint8), wanted.view(np.uint8))
    assert (found.bits, found.block, found.global_scale) == (bits, 8, np.float32(global_scale))
    exact = x.astype(np.float64) @ made.dequantise().astype(np.float64).T
    np.testing.assert_allclose(run(model, x), exact, rtol=0, atol=1e-5 * np.abs(exact).max())


def test_every_scale_of_e8m0_is_exact() -> None:
    """The graph computes 2^(byte - 127) with Pow, down to fp32's subnormal 2^-127."""
    scales = np.arange(255, dtype=np.uint8).reshape(255, 1, 1).view(ml_dtypes.float8_e8m0fnu)
    made = Weight(np.full((255, 8), 1, np.uint8), 2, np.array([[[0, 1, 0, 0]]], np.float32), scales, 8)
    model = model_of(np.zeros((255, 8), np.float32))
    replace(model.graph, find_linears(model.graph)[0], made)
    got = run(model, np.eye(1, 8, dtype=np.float32))[0]
    np.testing.assert_array_equal(got, np.ldexp(np.float32(1), np.arange(255) - 127))


def test_a_gemm_keeps_its_bias() -> None:
    rng = np.random.default_rng(0)
    matrix, bias, x = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 32), (16,), (3, 32)))
    model = model_of(matrix, bias, alpha=0.5, beta=2.0)
    before = run(model, x)
    (entry,) = quantise(model, [quantiser.parse("nvfp4")], None)
    assert entry.layer == "blocks.0/mlp/LutMatMul" and entry.sqnr_db > 18
    assert entry.bits_per_weight == 5.5  # 4.5, and a codebook of 512 bits for 512 weights
    after = run(model, x)
    assert 0 < np.abs(after - before).max() < 0.2 * np.abs(before).max()
    exact = x @ read(next(n for n in model.graph if n.op_type == "LutMatMul")).dequantise().T + 2 * bias
    np.testing.assert_allclose(after, exact, rtol=1e-5, atol=1e-5)


def test_layers_that_are_skipped() -> None:
    model = model_of(np.ones((4, 16), np.float32))
    for skip in ("mlp", "0", "attention/0"):
        with pytest.raises(
            Refusal, match="nothing to quantise: 1 linear layers were found, and all of them are skipped"
        ):
            quantise(model, [quantiser.parse(f"nvfp4:skip={skip}")], None)
    assert len(quantise(model, [quantiser.parse("nvfp4:skip=head/embed")], None)) == 1
    for skip, told in (("haed", "did you mean 'head'"), ("12", "known: 0, ")):
        with pytest.raises(UnknownName, match=f"no part of the model to skip '{skip}': {told}"):
            quantise(model_of(np.ones((4, 16), np.float32)), [quantiser.parse(f"nvfp4:skip={skip}")], None)


def test_a_weight_that_is_not_finite() -> None:
    matrix = np.ones((4, 16), np.float32)
    matrix[2, 3] = np.inf
    with pytest.raises(Refusal, match=r"1 numbers that are not finite, the first, inf, for output 2 and input 3"):
        quantise(model_of(matrix), [quantiser.parse("nvfp4")], None)


def test_specs() -> None:
    assert str(quantiser.parse("nvfp4:skip=head")) == "nvfp4:skip=head"
    with pytest.raises(UnknownName, match="no quantiser 'nvfp': did you mean 'nvfp4'"):
        quantiser.parse("nvfp")
    with pytest.raises(UnknownName, match="no option of 'nvfp4' 'skips': did you mean 'skip'"):
        quantiser.parse("nvfp4:skips=head")
    with pytest.raises(UsageError, match="write key=value, as in 'nvfp4:bits=3,skip=head'"):
        quantiser.parse("nvfp4:head")
