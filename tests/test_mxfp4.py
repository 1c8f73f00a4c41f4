"""MXFP4 against microxcaling's arrays, and the search against both of its rules."""

import numpy as np
import pytest

from edgetok.errors import UsageError
from edgetok.lowbit import quantiser
from tests.matrices import GOLDEN, layers, quantised, squared_error


@pytest.mark.parametrize("name", ["normal", "heavy", "edge"])
def test_as_microxcaling_has_it(name: str) -> None:
    given, wanted = np.load(GOLDEN / "inputs.npz"), np.load(GOLDEN / "mxfp4.npz")
    weight = quantised("mxfp4", given[f"w_{name}"])
    np.testing.assert_array_equal(weight.scales[..., 0].view(np.uint8), wanted[f"{name}_e8m0"])
    np.testing.assert_array_equal(weight.dequantise(), wanted[f"{name}_deq"])


@pytest.mark.parametrize("name", ["normal", "heavy", "edge"])
def test_the_search_is_at_least_as_good_in_every_block(name: str) -> None:
    """As the floor rule, and as Model Optimizer's ceil rule."""
    matrix, golden = np.load(GOLDEN / "inputs.npz")[f"w_{name}"], np.load(GOLDEN / "mxfp4.npz")

    def errors(decoded: np.ndarray) -> np.ndarray:
        return np.square(decoded.astype(np.float64) - matrix).reshape(len(matrix), -1, 32).sum(axis=-1)

    searched = errors(quantised("mxfp4:rule=search", matrix).dequantise())
    for other in (golden[f"{name}_deq"], golden[f"{name}_modelopt_deq"]):
        assert (searched <= errors(other) * (1 + 1e-5)).all()
        assert searched.sum() < 0.99 * errors(other).sum() or name == "edge"


def test_the_search_helps_real_weights() -> None:
    for layer in layers().values():
        floor, searched = (quantised(f"mxfp4:rule={rule}", layer.matrix) for rule in ("floor", "search"))
        assert squared_error(searched, layer.matrix) < 0.97 * squared_error(floor, layer.matrix)
        assert layer.output_error(searched) < layer.output_error(floor)


def test_scales_are_powers_of_two() -> None:
    matrix = np.array([[7.0] + [0] * 31 + [4.0] + [0] * 31 + [3.9]], np.float32)
    weight = quantised("mxfp4", matrix)
    assert weight.wide_scales[0, :, 0].tolist() == [1, 1, 0.5]
    assert weight.dequantise()[0, [0, 32, 64]].tolist() == [6, 4, 3]  # 7 clips; 3.9 does too: 6 / 2
    # 7 stays, since 8 is as far away; 3.9 is nearer to 4.
    assert quantised("mxfp4:rule=search", matrix).dequantise()[0, [0, 32, 64]].tolist() == [6, 4, 4]


def test_the_ends_of_the_range() -> None:
    matrix = np.array([[2.4e38], [1e-45], [-1e-38], [0.0]], np.float32)
    for rule in ("floor", "search"):
        got = quantised(f"mxfp4:rule={rule}", matrix).dequantise()
        np.testing.assert_allclose(got, matrix, rtol=0.26, atol=3e-39)  # half a level of the smallest scale, 2^-127


def test_options() -> None:
    with pytest.raises(UsageError, match="option rule=ceil: accepted are floor and search"):
        quantiser.parse("mxfp4:rule=ceil")
