"""NF4: its thresholds, its blocks, and the errors that bitsandbytes' own codes have on the same weights."""

import numpy as np
import pytest

from edgetok.exporters.quantisers import nf4
from tests.matrices import GOLDEN, layers, quantised, squared_error


@pytest.mark.parametrize(("name", "wanted"), [("normal", 2.095e-5), ("heavy", 1.938e-5)])
def test_as_far_off_as_bitsandbytes(name: str, wanted: float) -> None:
    """A row of 128 holds two blocks of 64, so that its blocks do not cross rows either."""
    matrix = np.load(GOLDEN / "inputs.npz")[f"w_{name}"]
    assert squared_error(quantised("nf4", matrix), matrix) == pytest.approx(wanted, rel=5e-4)


def test_thresholds_are_strict() -> None:
    ends = np.array([1.0], np.float32)
    on, above = nf4.THRESHOLDS, np.nextafter(nf4.THRESHOLDS, np.float32(2))
    for values, codes in ((on, range(15)), (above, range(1, 16))):
        weight = quantised("nf4", np.concatenate([values, ends])[None])
        assert weight.codes[0, :15].tolist() == list(codes)


def test_levels_come_back() -> None:
    weight = quantised("nf4", nf4.LEVELS[None] * np.float32(0.25))
    assert weight.codes[0].tolist() == list(range(16))
    np.testing.assert_array_equal(weight.dequantise()[0], nf4.LEVELS * np.float32(0.25))


def test_blocks_end_with_the_row() -> None:
    matrix = np.random.default_rng(0).standard_normal((3, 100), np.float32)
    rows = [quantised("nf4", row[None]).dequantise()[0] for row in matrix]
    np.testing.assert_array_equal(quantised("nf4", matrix).dequantise(), rows)


def test_weights_below_the_normal_numbers() -> None:
    """The reciprocal of their scale is beyond fp32."""
    matrix = nf4.LEVELS[None] * np.float32(1e-39)
    np.testing.assert_allclose(quantised("nf4", matrix).dequantise(), matrix, atol=1e-44)


def test_nearer_than_fp4_at_the_same_bits() -> None:
    for layer in layers().values():
        ours, other = quantised("nf4", layer.matrix), quantised("fp4:block=64", layer.matrix)
        assert ours.bits_per_weight == pytest.approx(other.bits_per_weight)
        assert squared_error(ours, layer.matrix) < squared_error(other, layer.matrix)
