"""LutMatMul's packing, and that plain onnxruntime folds its body away."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from edgetok import plugins
from edgetok.errors import UsageError
from edgetok.lowbit.linear import find_linears
from edgetok.lowbit.node import replace
from edgetok.lowbit.weight import Weight, pack, unpack
from tests.test_lowbit import model_of


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_packing_is_undone(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, (5, 48)).astype(np.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (5, 48 * bits // 8)
    np.testing.assert_array_equal(unpack(packed, bits), codes)


def test_packing_by_hand() -> None:
    assert pack(np.array([[1, 2, 15, 0, 0, 0, 0, 9]], np.uint8), 4).tolist() == [[0x21, 0x0F, 0, 0x90]]
    assert pack(np.array([[0, 1, 2, 3, 3, 0, 0, 0]], np.uint8), 2).tolist() == [[0b11100100, 0b11]]
    assert pack(np.array([[1, 2, 3, 0, 0, 0, 0, 7]], np.uint8), 3).tolist() == [[0b11010001, 0b0, 0b11100000]]


def test_a_sum_of_scaled_bits() -> None:
    """Two planes: 3 times the low bit and 10 times the high one, an offset of -1 in a third."""
    bits = np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]], np.float32)
    codes = np.array([[0, 1, 2, 3, 3, 2, 1, 0]], np.uint8)
    weight = Weight(codes, 2, bits[None], np.array([[[3, 10, -1]]], np.float32), 8)
    assert weight.dequantise().tolist() == [[-1, 2, 9, 12, 12, 9, 2, -1]]


def test_what_is_no_weight() -> None:
    codes, table = np.zeros((4, 16), np.uint8), np.zeros((1, 1, 16), np.float32)
    with pytest.raises(UsageError, match=r"no weight \(4, 16\) has scales \(4, 2, 1\) for 1 blocks"):
        Weight(codes, 4, table, np.ones((4, 2, 1), np.float32), 16)
    with pytest.raises(UsageError, match="has a block of 12"):
        Weight(codes, 4, table, np.ones((4, 2, 1), np.float32), 12)


@pytest.mark.parametrize("planes", [1, 2, 5])
@pytest.mark.parametrize("tables", [1, 4, 12])
@pytest.mark.parametrize(("bits", "block"), [(2, 8), (3, 24), (4, 16), (4, 64), (8, 16)])
def test_the_folded_matrix_is_the_dequantised_one(
    bits: int, block: int, tables: int, planes: int, tmp_path: Path
) -> None:
    """Bit for bit, the last block short or not; nothing but a MatMul is left of the body.

    More than two planes onnxruntime adds in an order of its own: off by the rounding of a sum of five.
    """
    rng = np.random.default_rng(bits * tables * planes)
    for inputs in (96, 52):
        codebook = rng.standard_normal((tables, planes, 2**bits)).astype(np.float32)
        scales = rng.standard_normal((12, -(-inputs // block), planes)).astype(np.float32)
        weight = Weight(rng.integers(0, 2**bits, (12, inputs)).astype(np.uint8), bits, codebook, scales, block)
        model = model_of(np.zeros((12, inputs), np.float32))
        replace(model.graph, find_linears(model.graph)[0], weight)
        plugins.add_functions(model)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "folded.onnx")
        onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
        folded = onnx.load(tmp_path / "folded.onnx").graph
        assert [node.op_type for node in folded.node] == ["MatMul"]
        matrix = onnx.numpy_helper.to_array(
            next(each for each in folded.initializer if each.name == folded.node[0].input[1])
        )
        size = np.repeat(np.abs(scales).sum(axis=-1), block, axis=1)[:, :inputs] * np.abs(codebook).max()
        bound = planes * np.finfo(np.float32).eps * size if planes > 2 else 0
        assert (np.abs(matrix.T - weight.dequantise()) <= bound).all()
