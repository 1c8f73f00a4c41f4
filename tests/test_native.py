"""LutMatMul in C++: every instruction set that this machine has, against the references in fp64."""

import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from edgetok import native
from edgetok.errors import SourceError
from edgetok.plugins import lut_matmul
from edgetok.runtimes import ort
from tests.conftest import ISAS, SOURCES

E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]
CASES = dict(lut_matmul.cases())
BITS = [[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]]  # of a 2-bit code, and an offset


def weight(bits=4, outputs=48, inner=64, block=16, tables=1, planes=1, codebook=None, dtype="float32"):
    """codes, codebook, scales, bits and inner; random levels unless a codebook is given."""
    rng = np.random.default_rng(bits + outputs + inner)
    groups = -(-inner // block)
    codes = rng.integers(0, 256, (outputs, groups * block * bits // 8)).astype(np.uint8)
    book = rng.standard_normal((tables, planes, 2**bits)) if codebook is None else np.array(codebook)
    scales = rng.random((outputs, groups, book.shape[1])) + 0.5
    return codes, book.astype(np.float32), scales.astype(dtype), bits, inner


def model(weight, mode, alpha=1.0, rank=2, codes_as_input=False):
    codes, book, scales, bits, inner = weight
    attributes = {"bits": bits, "inner": inner, "alpha": alpha, "mode": mode}
    node = helper.make_node("LutMatMul", ["x", "codes", "book", "scales"], ["y"], domain="edgetok.native", **attributes)
    free = [f"d{i}" for i in range(rank - 1)]
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [*free, inner])]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [*free, len(codes)])]
    held = {"codes": codes, "book": book, "scales": scales}
    if codes_as_input:
        inputs.append(helper.make_tensor_value_info("codes", onnx.TensorProto.UINT8, held.pop("codes").shape))
    initializers = [numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph([node], "one", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("edgetok.native", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def session(library, model, threads=1):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(library, x, weight, mode, alpha=1.0, threads=1):
    return session(library, model(weight, mode, alpha, x.ndim), threads).run(None, {"x": x})[0]


def wanted(x, weight, mode, alpha=1.0):
    reference = lut_matmul.reference_a8 if mode == "a8" else lut_matmul.reference
    x = torch.from_numpy(x)
    codes, book, scales, bits, inner = weight
    book, scales = torch.from_numpy(book).double(), torch.from_numpy(scales).double()
    result = reference(x if mode == "a8" else x.double(), torch.from_numpy(codes), book, scales, bits, inner)
    return result.numpy() * alpha


def check(got, want):
    assert got.shape == want.shape
    if want.size:
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("mode", ["a32", "a8"])
@pytest.mark.parametrize("name", CASES)
def test_the_cases_of_the_operator(library, isa, name, mode):
    x, *tensors, bits, inner = CASES[name]
    given = (*(tensor.numpy() for tensor in tensors), bits, inner)
    check(run(library, x.numpy(), given, mode), wanted(x.numpy(), given, mode))


WEIGHTS = {
    "nvfp4": {"codebook": [[E2M1]], "outputs": 130, "inner": 1040, "dtype": "float16"},
    "two_digits": {"outputs": 65, "inner": 384, "block": 32},
    "three_bits": {"bits": 3, "outputs": 33, "inner": 150, "block": 48},
    "two_bits": {"bits": 2, "outputs": 40, "inner": 100, "block": 8},
    "sum_of_bits": {"bits": 2, "codebook": [BITS], "outputs": 70, "inner": 300, "block": 128},
    "whole_rows": {"codebook": [[E2M1]], "outputs": 31, "inner": 1000, "block": 1000},
    "row_of_one_block": {"bits": 3, "outputs": 5, "inner": 13, "block": 24},
    "codebook_per_output": {"bits": 4, "outputs": 37, "inner": 200, "block": 64, "tables": 37, "dtype": "float16"},
    "codebook_per_outputs": {"bits": 2, "outputs": 96, "inner": 88, "block": 8, "tables": 3, "planes": 2},
    "six_planes": {"bits": 4, "outputs": 33, "inner": 72, "block": 24, "planes": 6},
}


@pytest.mark.parametrize("mode", ["a32", "a8"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_any_shape(library, isa, name, mode):
    given = weight(**WEIGHTS[name])
    made = session(library, model(given, mode, 0.125), threads=2)
    for rows in (0, 1, 2, 4, 5, 7, 33, 197, 520):
        x = np.random.default_rng(rows).standard_normal((rows, given[-1])).astype(np.float32)
        check(made.run(None, {"x": x})[0], wanted(x, given, mode, 0.125))


def test_threads_change_nothing(library, isa):
    given = weight(**WEIGHTS["nvfp4"])
    x = np.random.default_rng(0).standard_normal((2, 50, 1040)).astype(np.float32)
    one, two = (run(library, x, given, "a8", threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("mode", ["a32", "a8"])
@pytest.mark.parametrize("codebook", [[E2M1], [[*range(-8, 8)], [1] * 16]], ids=["e2m1", "offset"])
def test_weights_are_exact(library, isa, mode, codebook):
    """Rows of the unit matrix times 127 pick the weights and round to themselves: no bit may be lost."""
    codes, book, scales, bits, inner = weight(codebook=[codebook], inner=48)
    given = codes, book, np.exp2(np.round(8 * scales)).astype(np.float32), bits, inner
    x = np.eye(48, dtype=np.float32) * 127
    np.testing.assert_array_equal(run(library, x, given, mode), wanted(x, given, "a32"))


@pytest.mark.parametrize("mode", ["a32", "a8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [3, 20])
def test_what_is_not_finite_stays_in_its_row(library, isa, mode, value, rows):
    given = weight(**WEIGHTS["sum_of_bits"])
    x = np.random.default_rng(1).standard_normal((rows, 300)).astype(np.float32)
    clean = run(library, x, given, mode)
    x[1, 130] = value
    got = run(library, x, given, mode)
    assert not np.isfinite(got[1]).any()
    np.testing.assert_array_equal(np.delete(got, 1, axis=0), np.delete(clean, 1, axis=0))


def test_zeros_and_tiny_numbers(library, isa):
    given = weight()
    x = np.zeros((3, 64), np.float32)
    x[1], x[2] = 1e-38, np.finfo(np.float32).smallest_subnormal
    got = run(library, x, given, "a8")
    assert np.isfinite(got).all() and not got[[0, 2]].any()


@pytest.mark.parametrize(
    ("given", "mode", "told"),
    [
        (weight(), "a16", "mode is 'a16'; a32 and a8 are there"),
        ((*weight(block=64)[:3], 4, 200), "a8", "codes do not hold inner weights"),
        ((*weight(block=8)[:3], 5, 64), "a8", "5 bits; 2, 3 and 4 are there"),
        ((*weight(bits=2)[:3], 4, 32), "a8", "4 levels for 4 bits"),
        (weight(bits=2, codebook=[[[0, 1, np.nan, 2]]]), "a8", "a level of the codebook is not finite"),
        (weight(dtype="float64"), "a8", "scales are fp32 or fp16"),
    ],
)
def test_what_is_refused(library, given, mode, told):
    with pytest.raises(Exception, match=told):
        session(library, model(given, mode))


def test_without_attributes_of_its_own_it_is_the_function(library):
    plain = onnx.load_from_string(model(weight(), "a8", alpha=2.0))
    for name in ("alpha", "mode"):
        (own,) = [attribute for attribute in plain.graph.node[0].attribute if attribute.name == name]
        plain.graph.node[0].attribute.remove(own)
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    check(session(library, plain.SerializeToString()).run(None, {"x": x})[0], wanted(x, weight(), "a32"))


def test_weights_must_be_initializers(library):
    with pytest.raises(Exception, match="codes is no initializer"):
        session(library, model(weight(), "a8", codes_as_input=True))


def test_a_wrong_number_of_columns(library):
    free = onnx.load_from_string(model(weight(), "a8"))
    free.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "k"
    with pytest.raises(Exception, match="x has 63 columns, the weight 64"):
        session(library, free.SerializeToString()).run(None, {"x": np.zeros((2, 63), np.float32)})


def test_shapes_are_inferred(library, tmp_path):
    """(batch, tokens, 64) -> (batch, tokens, 48), which nothing in the model says."""
    silent = onnx.load_from_string(model(weight(), "a8", rank=3))
    silent.graph.output[0].type.tensor_type.ClearField("shape")
    (output,) = session(library, silent.SerializeToString()).get_outputs()
    assert output.shape == ["d0", "d1", 48]


def test_an_axis_without_a_size_and_a_name(library):
    """As behind a function whose shapes are computed; an Add behind it must not meet an axis of -1."""
    unknown = onnx.load_from_string(model(weight(), "a8", rank=3))
    for dim in unknown.graph.input[0].type.tensor_type.shape.dim[:2]:
        dim.Clear()
    product = unknown.graph.output[0].name
    unknown.graph.input.append(helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [1, 5, 48]))
    unknown.graph.node.append(helper.make_node("Add", [product, "other"], ["sum"]))
    unknown.graph.output[0].CopyFrom(helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, None))
    feeds = {"x": np.ones((1, 5, 64), np.float32), "other": np.zeros((1, 5, 48), np.float32)}
    assert session(library, unknown.SerializeToString()).run(None, feeds)[0].shape == (1, 5, 48)


def test_a_stale_library_is_not_loaded(library, tmp_path, monkeypatch):
    assert native.examine(tmp_path).state == "absent"
    fresh, stale, broken = (tmp_path / name for name in ("fresh", "stale", "broken"))
    for folder in (fresh, stale, broken):
        shutil.copytree(SOURCES, folder)
        shutil.copy(library, folder / native.LIBRARY)
    assert native.examine(fresh).state == "ok" and native.examine(fresh).isa in ISAS
    (stale / "kernels.h").write_text("// changed")
    assert native.examine(stale).detail.startswith(f"{native.LIBRARY} was built from other sources (")
    mark = f"edgetok sources sha256 {native.digest(broken)}".encode()
    (broken / native.LIBRARY).write_bytes(b"no library, but " + mark)
    assert "cannot be loaded" in native.examine(broken).detail
    for folder in (stale, broken):
        monkeypatch.setattr(native, "FOLDER", folder)
        assert native.library() is None
        with pytest.raises(SourceError, match="LutMatMul"):  # of the operator, nothing is known
            ort.session(model(weight(), "a8"))


def test_a_session_with_the_operators(library, tmp_path, monkeypatch):
    shutil.copytree(SOURCES, tmp_path, dirs_exist_ok=True)
    shutil.copy(library, tmp_path / native.LIBRARY)
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    x, given = np.ones((2, 64), np.float32), weight()
    got = ort.session(model(given, "a32"), threads=1).run(None, {"x": x})[0]
    check(got, wanted(x, given, "a32"))
