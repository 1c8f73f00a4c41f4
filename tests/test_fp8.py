"""FP8 weights: the definition of E4M3, its rounding, its scales, and what bad input does."""

import ml_dtypes
import numpy as np
import pytest

from edgetok.errors import Refusal, UsageError
from edgetok.exporters.quantisers import fp8
from edgetok.lowbit import quantiser
from edgetok.lowbit.quantise import quantise
from tests.matrices import GOLDEN, layers, quantised, squared_error
from tests.test_lowbit import model_of

NAN = (0x7F, 0xFF)


def test_levels_are_those_of_the_paper() -> None:
    """Section 3.1, table 1: bias 7, S.1111.110 the largest, S.0000.001 the smallest, NaN at S.1111.111 only."""
    for code in set(range(256)) - set(NAN):
        exponent, mantissa = code >> 3 & 15, code & 7
        size = (1 + mantissa / 8) * 2.0 ** (exponent - 7) if exponent else mantissa / 8 * 2.0**-6
        assert fp8.LEVELS[code] == (-size if code >> 7 else size)
    assert np.flatnonzero(np.isnan(fp8.LEVELS)).tolist() == list(NAN)
    assert (fp8.LEVELS[0x7E], fp8.LEVELS[1]) == (448, 2.0**-9)


def test_rounding_by_hand() -> None:
    """To nearest, ties to the even code, beyond the largest to it; no minus zero."""
    positive = fp8.LEVELS[:0x7F]
    middle = (positive[1:] + positive[:-1]) / 2  # exact in fp32
    even = np.arange(0x7E) + np.arange(0x7E) % 2
    np.testing.assert_array_equal(fp8.encode(middle), even)
    np.testing.assert_array_equal(fp8.encode(np.nextafter(middle, np.float32(0))), np.arange(0x7E))
    np.testing.assert_array_equal(fp8.encode(np.nextafter(middle, np.float32(999))), np.arange(1, 0x7F))
    np.testing.assert_array_equal(fp8.encode(-middle[1:]), even[1:] + 128)
    assert fp8.encode(np.float32([448.5, 463, 465, 1e30, -1e30, -0.0, -1e-9])).tolist() == [126] * 4 + [254, 0, 0]


@pytest.mark.parametrize("block", [0, 16])
@pytest.mark.parametrize("name", ["normal", "heavy"])
def test_as_ml_dtypes_casts(name: str, block: int) -> None:
    matrix = np.load(GOLDEN / "inputs.npz")[f"w_{name}"]
    weight = quantised(f"fp8:block={block}", matrix)
    scales = np.abs(matrix.reshape(len(matrix), -1, block or matrix.shape[1])).max(axis=-1) / np.float32(448)
    np.testing.assert_array_equal(weight.scales[..., 0], scales)
    wide = np.repeat(scales, weight.block, axis=1)
    cast = (matrix / wide).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * wide
    np.testing.assert_array_equal(weight.dequantise(), cast)
    assert not np.isin(weight.codes, [*NAN, 0x80]).any()


def test_a_scale_for_each_output() -> None:
    matrix = np.random.default_rng(0).standard_normal((6, 100), np.float32) * np.float32(10) ** np.arange(6)[:, None]
    weight = quantised("fp8", matrix.astype(np.float32))
    assert weight.scales.shape == (6, 1, 1) and weight.block == 104 and weight.bits_per_weight == 8 + 32 / 100
    lost = np.abs(weight.dequantise() - matrix)
    normal = np.abs(matrix) >= 2.0**-6 * weight.scales[..., 0]
    assert (lost <= np.abs(matrix) * 2.0**-4)[normal].all()  # half a step of three bits of mantissa


def test_short_blocks_end_with_the_row() -> None:
    matrix = np.random.default_rng(0).standard_normal((3, 44), np.float32)
    weight = quantised("fp8:block=32", matrix)
    assert weight.scales.shape == (3, 2, 1)
    np.testing.assert_array_equal(weight.dequantise()[:, 32:], quantised("fp8:block=16", matrix[:, 32:]).dequantise())


def test_a_block_of_zeros() -> None:
    matrix = np.random.default_rng(0).standard_normal((2, 64), np.float32)
    matrix[0, 16:32] = 0
    weight = quantised("fp8:block=16", matrix)
    assert weight.scales[0, 1, 0] == 1 and not weight.codes[0, 16:32].any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite(value: float) -> None:
    matrix = np.ones((4, 16), np.float32)
    matrix[1, 2] = value
    with pytest.raises(Refusal, match=f"not finite, the first, {value}, for output 1 and input 2"):
        quantise(model_of(matrix), [quantiser.parse("fp8")], None)


def test_wider_than_int8_and_coarser() -> None:
    """On trained weights int8 is nearer; where one weight of an output is 300 times the others, FP8 is."""
    for layer in layers().values():
        float8, int8 = quantised("fp8", layer.matrix), quantised("int8", layer.matrix)
        assert 2 < squared_error(float8, layer.matrix) / squared_error(int8, layer.matrix) < 30
        assert layer.output_error(float8) < 0.04
    matrix = np.random.default_rng(0).standard_normal((8, 256), np.float32)
    matrix[:, 7] = 300
    assert squared_error(quantised("fp8", matrix), matrix) < 0.1 * squared_error(quantised("int8", matrix), matrix)


def test_options() -> None:
    with pytest.raises(UsageError, match="option block=12: accepted are multiples of 8, and 0"):
        quantiser.parse("fp8:block=12")
