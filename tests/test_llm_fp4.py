"""LLM-FP4: the format that is chosen, and what the search gains over plain FP4 for each output."""

import numpy as np
import pytest

from edgetok.exporters.quantisers import llm_fp4
from edgetok.lowbit.quantiser import Activations
from tests.matrices import GOLDEN, layers, quantised, squared_error


def chosen(matrix: np.ndarray, seen: Activations | None = None) -> str:
    levels = quantised("llm-fp4", matrix, seen).codebook[0, 0]
    (name,) = (name for name, sizes in llm_fp4.SIZES.items() if np.array_equal(levels[:8], sizes))
    return name


@pytest.mark.parametrize("name", ["normal", "heavy"])
def test_outputs_are_nearer_than_with_plain_fp4(name: str) -> None:
    given = np.load(GOLDEN / "inputs.npz")
    matrix, x = given[f"w_{name}"], given["x_act"]
    searched, plain = quantised("llm-fp4", matrix, Activations(x)), quantised("fp4:block=0", matrix)
    errors = [np.linalg.norm(x @ (weight.dequantise() - matrix).T) for weight in (searched, plain)]
    assert errors[0] < 0.8 * errors[1]
    assert searched.bits_per_weight == plain.bits_per_weight


def test_real_outputs_are_nearer_on_a_photograph_it_has_not_seen() -> None:
    for name, layer in layers().items():
        searched, plain = quantised("llm-fp4", layer.matrix, layer.seen), quantised("fp4:block=0", layer.matrix)
        assert layer.output_error(searched) < (0.95 if name == "fc1" else 0.8) * layer.output_error(plain)


@pytest.mark.parametrize("name", ["normal", "heavy"])
def test_without_samples_weights_are_nearer(name: str) -> None:
    matrix = np.load(GOLDEN / "inputs.npz")[f"w_{name}"]
    assert squared_error(quantised("llm-fp4", matrix), matrix) < 0.95 * squared_error(
        quantised("fp4:block=0", matrix), matrix
    )


def test_the_format_that_fits() -> None:
    generator = np.random.default_rng(0)
    assert chosen(generator.uniform(-1, 1, (16, 256)).astype(np.float32)) == "E1M2"
    assert chosen(generator.standard_normal((16, 256), np.float32)) == "E2M1"
    powers = (2.0 ** generator.integers(-6, 1, (16, 256)) * generator.choice([-1, 1], (16, 256))).astype(np.float32)
    assert chosen(powers) == "E3M0"
    np.testing.assert_allclose(quantised("llm-fp4", powers).dequantise(), powers)


def test_large_outputs_choose_the_format() -> None:
    generator = np.random.default_rng(2)
    matrix = generator.uniform(-1, 1, (16, 256)).astype(np.float32)
    matrix[0] = 100 * 2.0 ** generator.integers(-6, 1, 256)
    assert chosen(matrix) == "E3M0" and chosen(matrix[1:]) == "E1M2"


def test_a_large_weight_on_a_channel_that_is_silent_is_clipped() -> None:
    """Its error does not show in the outputs, and the others get smaller steps."""
    generator = np.random.default_rng(1)
    matrix, x = generator.standard_normal((4, 64), np.float32), generator.standard_normal((200, 64), np.float32)
    matrix[:, 0], x[:, 0] = 8, 0
    searched = quantised("llm-fp4", matrix, Activations(x)).dequantise()
    assert (searched[:, 0] < 5).all() and (quantised("fp4:block=0", matrix).dequantise()[:, 0] == 8).all()


def test_fifteen_levels() -> None:
    for sizes in llm_fp4.SIZES.values():
        assert len(sizes) == 8 and (np.diff(sizes) > 0).all()
    weight = quantised("llm-fp4", np.load(GOLDEN / "inputs.npz")["w_normal"])
    assert len(np.unique(weight.codebook)) == 15 and not (weight.codes == 8).any()
