"""INT8 against ONNX Runtime's quantiser bit for bit, and what positive scales cost."""

import numpy as np
import pytest

from tests.matrices import GOLDEN, layers, quantised, squared_error


@pytest.mark.parametrize("name", ["normal", "heavy"])
def test_as_onnxruntime_has_it(name: str) -> None:
    given, wanted = np.load(GOLDEN / "inputs.npz"), np.load(GOLDEN / "matmulnbits.npz")
    weight = quantised("int8:block=32", given[f"w_{name}"])
    np.testing.assert_array_equal(weight.codes, wanted[f"{name}_8b_sym_code"])
    np.testing.assert_array_equal(weight.scales[..., 0], wanted[f"{name}_8b_sym_scales"])
    np.testing.assert_array_equal(weight.dequantise(), wanted[f"{name}_8b_sym_deq"])


def test_a_scale_for_each_output() -> None:
    matrix = (
        np.random.default_rng(0).standard_normal((6, 100), np.float32) * 10 ** np.arange(6.0, dtype=np.float32)[:, None]
    )
    weight = quantised("int8", matrix)
    assert weight.scales.shape == (6, 1, 1) and weight.block == 104
    step = np.abs(matrix).max(axis=1, keepdims=True) / 128
    lost = np.abs(weight.dequantise() - matrix)
    assert (lost <= step * np.float32(1.0001)).all()  # a whole step at the end that has 127 of them
    assert (
        lost[np.abs(matrix) < 127 * step] <= np.broadcast_to(step, lost.shape)[np.abs(matrix) < 127 * step] * 0.501
    ).all()


def test_positive_scales_cost_next_to_nothing() -> None:
    for layer in layers().values():
        either, positive = quantised("int8", layer.matrix), quantised("int8:positive=true", layer.matrix)
        assert (positive.scales > 0).all()
        assert squared_error(positive, layer.matrix) < 1.03 * squared_error(either, layer.matrix)
        assert layer.output_error(positive) < 0.01


def test_levels_are_the_codes() -> None:
    weight = quantised("int8", np.ones((2, 8), np.float32))
    assert weight.codebook[0, 0].tolist() == list(range(-128, 128))
    assert weight.bits_per_weight == 8 + 32 / 8  # a scale for each output, no codebook
