"""FP4 against ONNX's rounding to E2M1, and its blocks and scales."""

import ml_dtypes
import numpy as np
import pytest

from edgetok.errors import UsageError
from edgetok.exporters.quantisers import _e2m1
from edgetok.lowbit import quantiser
from tests.matrices import GOLDEN, quantised, squared_error


@pytest.mark.parametrize("name", ["normal", "heavy", "edge"])
def test_one_scale_for_all(name: str) -> None:
    """The golden arrays have a scale for the tensor, as a single row of all its weights has."""
    given, wanted = np.load(GOLDEN / "inputs.npz"), np.load(GOLDEN / "e2m1.npz")
    weight = quantised("fp4:block=0", given[f"w_{name}"].reshape(1, -1))
    assert weight.scales.item() == wanted[f"{name}_scale"]
    np.testing.assert_array_equal(weight.dequantise().ravel(), wanted[f"{name}_deq"].ravel())


def test_rounding_goes_to_the_even_code() -> None:
    wanted = np.load(GOLDEN / "e2m1.npz")
    np.testing.assert_array_equal(_e2m1.LEVELS[_e2m1.encode(wanted["x"])], wanted["deq_rne"])


def test_smaller_blocks_are_nearer() -> None:
    matrix = np.load(GOLDEN / "inputs.npz")["w_heavy"]
    errors = [squared_error(quantised(f"fp4:block={block}", matrix), matrix) for block in (8, 16, 32, 64, 0)]
    assert errors == sorted(errors)


def test_blocks_and_bits() -> None:
    matrix = np.ones((5, 100), np.float32)
    assert quantised("fp4", matrix).scales.shape == (5, 4, 1)
    whole = quantised("fp4:block=0", matrix)
    assert whole.block == 104 and whole.scales.shape == (5, 1, 1)
    assert quantised("fp4", np.ones((64, 1024), np.float32)).bits_per_weight == pytest.approx(5, abs=0.02)
    assert quantised("fp4:scale=fp16", np.ones((64, 1024), np.float32)).bits_per_weight == pytest.approx(4.5, abs=0.02)


@pytest.mark.parametrize("size", [1e30, 1.0, 1e-30])
def test_half_scales_neither_overflow_nor_vanish(size: float) -> None:
    matrix = np.load(GOLDEN / "inputs.npz")["w_normal"] * np.float32(size)
    half, full = quantised("fp4:scale=fp16", matrix), quantised("fp4", matrix)
    assert half.scales.dtype == np.float16
    assert squared_error(half, matrix / size * size) < 1.01 * squared_error(full, matrix)


def test_the_largest_weight_keeps_its_value() -> None:
    matrix = np.array([[0.1, -3.0, 0.2, 1.0, 0, 0, 0, 0, 0.7]], np.float32)
    got = quantised("fp4:block=8", matrix).dequantise()
    assert got[0].tolist() == [0, -3, 0.25, 1, 0, 0, 0, 0, np.float32(0.7)]
    assert ml_dtypes.float4_e2m1fn(6) == _e2m1.LARGEST


def test_options() -> None:
    with pytest.raises(
        UsageError, match="option block=12: accepted are multiples of 8, and 0 for one scale per output"
    ):
        quantiser.parse("fp4:block=12")
    with pytest.raises(UsageError, match="option scale=fp8: accepted are fp32 and fp16"):
        quantiser.parse("fp4:scale=fp8")
