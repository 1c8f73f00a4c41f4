"""LutMatMul's packing, and that plain onnxruntime folds its body away."""

import numpy as np
import pytest

from edgetok.errors import UsageError
from edgetok.lowbit.weight import Weight, pack, unpack


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
