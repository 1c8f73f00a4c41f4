"""HLQ against ELUTQ's arrays, and against rounding to nearest on real weights."""

import numpy as np
import pytest

from edgetok.errors import UsageError
from edgetok.lowbit import quantiser
from tests.matrices import GOLDEN, layers, quantised, squared_error


@pytest.mark.parametrize("group", [128, 32])
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("name", ["normal", "heavy"])
def test_as_elutq_has_it(name: str, bits: int, group: int) -> None:
    given, wanted = np.load(GOLDEN / "inputs.npz"), np.load(GOLDEN / "hlq.npz")
    weight = quantised(f"hlq:bits={bits},group={group},scale=fp32", given[f"w_{name}"])
    key = f"{name}_{bits}b_g{group}_alt"
    np.testing.assert_allclose(weight.scales[..., :-1], wanted[f"{key}_scale"], atol=2e-5)
    np.testing.assert_allclose(weight.scales[..., -1:], wanted[f"{key}_zero"], atol=2e-5)
    np.testing.assert_allclose(weight.dequantise(), wanted[f"{key}_deq"], atol=2e-5)
    planes = np.unpackbits(wanted[f"{key}_planes"], axis=-1, bitorder="little")  # (bits, N, K)
    np.testing.assert_array_equal(weight.codes, (planes << np.arange(bits)[:, None, None]).sum(axis=0))


def rounded(matrix: np.ndarray, bits: int, group: int) -> np.ndarray:
    """Rounding to nearest between each group's ends."""
    groups = matrix.reshape(len(matrix), -1, group)
    low = groups.min(axis=-1, keepdims=True)
    step = (groups.max(axis=-1, keepdims=True) - low) / (2**bits - 1)
    return (np.rint((groups - low) / step) * step + low).reshape(matrix.shape)


@pytest.mark.parametrize(("bits", "share"), [(2, 0.5), (3, 0.75)])
def test_nearer_than_equal_steps(bits: int, share: float) -> None:
    for layer in layers().values():
        weight = quantised(f"hlq:bits={bits}", layer.matrix)
        assert (
            squared_error(weight, layer.matrix)
            < share * np.square(rounded(layer.matrix, bits, 128) - layer.matrix).mean()
        )


@pytest.mark.parametrize("bits", [2, 3])
def test_samples_say_what_matters(bits: int) -> None:
    for name, layer in layers().items():
        importance = layer.seen.mean_square
        plain, weighted = (quantised(f"hlq:bits={bits}", layer.matrix, seen) for seen in (None, layer.seen))
        ratio = squared_error(weighted, layer.matrix, importance) / squared_error(plain, layer.matrix, importance)
        assert ratio < (0.8 if name == "query" else 0.97)
        assert layer.output_error(weighted) < layer.output_error(plain)


def test_bits_as_published() -> None:
    """2.375 with two bits in groups of 128, 2.75 in groups of 64, 3.5 with three bits."""
    matrix = np.random.default_rng(0).standard_normal((256, 1024), np.float32)
    for spec, wanted in (("hlq:bits=2", 2.375), ("hlq:bits=2,group=64", 2.75), ("hlq:bits=3", 3.5)):
        assert quantised(spec, matrix).bits_per_weight == pytest.approx(wanted, abs=0.01)


def test_four_levels_need_two_bits() -> None:
    """Sums of two scales and an offset, all of them found."""
    generator = np.random.default_rng(3)
    matrix = (0.3 * generator.integers(0, 2, (7, 64)) + 0.7 * generator.integers(0, 2, (7, 64)) - 0.4).astype(
        np.float32
    )
    np.testing.assert_allclose(quantised("hlq:bits=2,group=64,scale=fp32", matrix).dequantise(), matrix, atol=1e-6)


def test_groups_that_fill_no_block() -> None:
    """What fills up the last one counts for nothing: of 36 weights, 28 fill up 64, and 12 fill up 48."""
    matrix = np.random.default_rng(4).standard_normal((5, 100), np.float32)
    whole = quantised("hlq:bits=3,group=64,scale=fp32", matrix).dequantise()
    last = quantised("hlq:bits=3,group=48,scale=fp32", matrix[:, 64:]).dequantise()
    np.testing.assert_allclose(whole[:, 64:], last, atol=1e-6)


def test_options() -> None:
    with pytest.raises(UsageError, match="option bits=8: accepted are 2, 3 and 4"):
        quantiser.parse("hlq:bits=8")
    with pytest.raises(UsageError, match="option group=100: accepted are multiples of 8"):
        quantiser.parse("hlq:group=100")
