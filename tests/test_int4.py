"""INT4 against ONNX Runtime's quantiser bit for bit, and against the errors of GGUF's Q4_1."""

import numpy as np
import pytest

from edgetok.errors import UsageError
from edgetok.lowbit import quantiser
from tests.matrices import GOLDEN, layers, quantised, squared_error


@pytest.mark.parametrize("name", ["normal", "heavy"])
def test_as_onnxruntime_has_it(name: str) -> None:
    given, wanted = np.load(GOLDEN / "inputs.npz"), np.load(GOLDEN / "matmulnbits.npz")
    weight = quantised("int4", given[f"w_{name}"])
    np.testing.assert_array_equal(weight.codes, wanted[f"{name}_4b_sym_code"])
    np.testing.assert_array_equal(weight.scales[..., 0], wanted[f"{name}_4b_sym_scales"])
    np.testing.assert_array_equal(weight.dequantise(), wanted[f"{name}_4b_sym_deq"])


def test_what_positive_scales_cost() -> None:
    for layer in layers().values():
        either, positive = quantised("int4", layer.matrix), quantised("int4:positive=true", layer.matrix)
        assert (positive.scales > 0).all() and 0.4 < (either.scales < 0).mean() < 0.6
        ratio = squared_error(positive, layer.matrix) / squared_error(either, layer.matrix)
        assert 1.25 < ratio < 1.35


def test_the_largest_weight_is_exact() -> None:
    matrix = np.array([[0.5, -0.25, 8, 1, 0, 0, 0, -7.6]], np.float32)
    weight = quantised("int4", matrix)
    assert weight.scales.item() == -1 and weight.codes[0, 2] == 0
    assert weight.dequantise()[0, [2, 3, 4, 7]].tolist() == [8, 1, 0, -7]  # 7.6 would be step 8 on the other side
    assert quantised("int4:positive=true", matrix).dequantise()[0, [2, 7]].tolist() == [8, -8]


def test_a_block_of_equal_weights() -> None:
    matrix = np.full((2, 40), 0.3, np.float32)
    np.testing.assert_allclose(quantised("int4", matrix).dequantise(), matrix, rtol=1e-6)


def test_options() -> None:
    with pytest.raises(UsageError, match="option block=20: accepted are multiples of 8"):
        quantiser.parse("int4:block=20")
    with pytest.raises(UsageError, match="option positive='yes': accepted are true and false"):
        quantiser.parse("int4:positive=yes")
