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


@pytest.mark.parametrize(("name", "wanted"), [("normal", 1.475e-5), ("heavy", 1.207e-5)])
def test_a_minimum_is_as_far_off_as_q4_1(name: str, wanted: float) -> None:
    matrix = np.load(GOLDEN / "inputs.npz")[f"w_{name}"]
    weight = quantised("int4:asymmetric=true", matrix)
    assert weight.scales.dtype == np.float16 and weight.scales.shape[-1] == 2
    assert squared_error(weight, matrix) == pytest.approx(wanted, rel=1e-3)


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
    np.testing.assert_allclose(quantised("int4:asymmetric=true", matrix).dequantise(), matrix, rtol=5e-4)
    np.testing.assert_allclose(quantised("int4", matrix).dequantise(), matrix, rtol=1e-6)


def test_what_fills_up_a_block_is_no_weight() -> None:
    """Six weights between 5 and 6: a zero among them would stretch the range."""
    matrix = np.linspace(5, 6, 6, dtype=np.float32)[None]
    np.testing.assert_allclose(quantised("int4:asymmetric=true", matrix).dequantise(), matrix, atol=1 / 30 + 3e-3)


def test_options() -> None:
    with pytest.raises(
        UsageError, match="asymmetric=true: its scales are positive and fp16 as it is; leave out the ot"
    ):
        quantiser.parse("int4:asymmetric=true,positive=true")
    with pytest.raises(UsageError, match="option block=20: accepted are multiples of 8"):
        quantiser.parse("int4:block=20")
    with pytest.raises(UsageError, match="option positive='yes': accepted are true and false"):
        quantiser.parse("int4:positive=yes")
