"""Q4_1: a scale and an offset for each block."""

import numpy as np
import pytest

from tests.matrices import GOLDEN, quantised, squared_error


@pytest.mark.parametrize(("name", "wanted"), [("normal", 1.475e-5), ("heavy", 1.207e-5)])
def test_as_far_off_as_published(name: str, wanted: float) -> None:
    matrix = np.load(GOLDEN / "inputs.npz")[f"w_{name}"]
    weight = quantised("q4-1", matrix)
    assert weight.scales.dtype == np.float16 and weight.scales.shape[-1] == 2
    assert squared_error(weight, matrix) == pytest.approx(wanted, rel=1e-3)


def test_a_block_of_equal_weights() -> None:
    matrix = np.full((2, 40), 0.3, np.float32)
    np.testing.assert_allclose(quantised("q4-1", matrix).dequantise(), matrix, rtol=5e-4)


def test_what_fills_up_a_block_is_no_weight() -> None:
    """Six weights between 5 and 6: a zero among them would stretch the range."""
    matrix = np.linspace(5, 6, 6, dtype=np.float32)[None]
    np.testing.assert_allclose(quantised("q4-1", matrix).dequantise(), matrix, atol=1 / 30 + 3e-3)
