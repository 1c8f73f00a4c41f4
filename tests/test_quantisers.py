"""What every quantiser does, whatever its format: it is tested by being there."""

import numpy as np
import pytest
import torch

from edgetok.errors import UnknownName, UsageError
from edgetok.lowbit import quantiser
from edgetok.lowbit.quantiser import Activations
from edgetok.lowbit.weight import Weight, pack, unpack
from tests.matrices import GOLDEN, quantised, squared_error
from tests.test_operators import run_function

# `auto` has no `quantise`: it chooses among the others.
NAMES = [name for name in quantiser.names() if quantiser.load(name).quantise is not None]
SPECS = [spec for name in NAMES for spec in quantiser.load(name).examples]
SHAPES = [(5, 100), (1, 8), (3, 7), (4, 1)]
LARGEST_ERROR = {2: 0.13, 3: 0.04, 4: 0.016, 8: 6e-5}  # of normal weights, relative, squared
FLOAT_ERROR = (1 / 8) ** 2 / 12  # of fp8: its steps are an eighth of the smallest number of a binade


def most(weight: Weight, matrix: np.ndarray) -> float:
    """The squared error that a weight's bits allow."""
    share = FLOAT_ERROR if np.isnan(weight.codebook).any() else LARGEST_ERROR[weight.bits]
    return float(share * np.square(matrix).mean())


def random(shape: tuple[int, int]) -> tuple[np.ndarray, Activations]:
    generator = np.random.default_rng(shape)
    return generator.standard_normal(shape, np.float32), Activations(
        generator.standard_normal((50, shape[1]), np.float32)
    )


def packed(weight: Weight) -> np.ndarray:
    """The codes as LutMatMul has them, whole blocks."""
    codes = np.pad(weight.codes, ((0, 0), (0, -weight.shape[1] % weight.block)))
    stream = pack(codes, weight.bits)
    np.testing.assert_array_equal(unpack(stream, weight.bits), codes)
    return stream


def test_the_files_are_the_quantisers() -> None:
    assert {"fp4", "fp8", "hlq", "int4", "int8", "llm-fp4", "lut", "mxfp4", "nf4", "nvfp4"} <= set(quantiser.names())
    for name in NAMES:
        found = quantiser.load(name)
        assert found.summary and found.paper and found.examples[0].partition(":")[0] == name


@pytest.mark.parametrize("spec", SPECS)
def test_the_spelling_comes_back(spec: str) -> None:
    parsed = quantiser.parse(spec)
    assert str(parsed) == spec and quantiser.parse(str(parsed)) == parsed


@pytest.mark.parametrize("spec", SPECS)
def test_the_error_is_that_of_its_bits(spec: str) -> None:
    matrix = np.load(GOLDEN / "inputs.npz")["w_normal"]
    weight = quantised(spec, matrix)
    assert 0 < squared_error(weight, matrix) < most(weight, matrix)
    assert weight.codes.max() < 2**weight.bits <= 2**8
    assert weight.bits <= weight.bits_per_weight


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spec", SPECS)
def test_odd_shapes_run(spec: str, shape: tuple[int, int]) -> None:
    """Packed, in plain onnxruntime, where a code has at most 4 bits; the same twice."""
    matrix, seen = random(shape)
    weight = quantised(spec, matrix, seen)
    again = quantised(spec, matrix.copy(), Activations(seen.rows.copy()))
    np.testing.assert_array_equal(weight.codes, again.codes)
    decoded = weight.dequantise()
    np.testing.assert_array_equal(decoded, again.dequantise())
    assert decoded.shape == shape and np.isfinite(decoded).all()
    assert squared_error(weight, matrix) < 3 * most(weight, matrix)
    codes = packed(weight)
    if weight.bits > 4:
        return
    arrays = (seen.rows, codes, weight.codebook, weight.wide_scales)
    (got,) = run_function("lut_matmul", tuple(map(torch.from_numpy, arrays)), {"bits": weight.bits, "inner": shape[1]})
    wanted = seen.rows.astype(np.float64) @ decoded.T.astype(np.float64)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("spec", SPECS)
def test_zeros_stay(spec: str) -> None:
    assert not quantised(spec, np.zeros((3, 40), np.float32)).dequantise().any()
    matrix, seen = random((6, 200))
    matrix[2], matrix[4, 64:128] = 0, 0
    decoded = quantised(spec, matrix, seen).dequantise()
    assert not decoded[2].any()
    assert np.abs(decoded[4, 64:128]).max() < 0.5


@pytest.mark.parametrize("spec", SPECS)
def test_edges(spec: str) -> None:
    """Zeros, ties, powers of two, numbers below the normal ones, blocks of 1e-4 beside blocks of 100."""
    matrix = np.load(GOLDEN / "inputs.npz")["w_edge"]
    decoded = quantised(spec, matrix).dequantise()
    assert np.isfinite(decoded).all()
    assert (np.square(decoded - matrix).sum(axis=1) <= 0.2 * np.square(matrix).sum(axis=1) + 1e-30).all()


@pytest.mark.parametrize("size", [1e30, 1e-30, 1e-41])
@pytest.mark.parametrize("spec", SPECS)
def test_one_weight_of_another_size(spec: str, size: float) -> None:
    matrix, seen = random((3, 96))
    matrix *= np.float32(min(1, size))
    matrix[1, 50] = np.float32(-3 * size)
    decoded = quantised(spec, matrix, seen).dequantise()
    assert np.isfinite(decoded).all()
    if size > 1e-40 or spec.startswith(("fp", "nf4", "int", "lut")):
        assert decoded[1, 50] == pytest.approx(-3 * size, rel=0.4)


@pytest.mark.parametrize("name", NAMES)
def test_silent_channels(name: str) -> None:
    """What feeds the layer is zero in half the channels, or in all of them."""
    matrix, seen = random((4, 64))
    for channels in (slice(32), slice(None)):
        seen.rows[:, channels] = 0
        weight = quantised(name, matrix, Activations(seen.rows.copy()))
        assert squared_error(weight, matrix) < 3 * most(weight, matrix)


def test_names_that_do_not_exist() -> None:
    with pytest.raises(UnknownName, match="no quantiser 'nf5': did you mean 'nf4'"):
        quantiser.parse("nf5")
    with pytest.raises(UnknownName, match="no quantiser 'llm-fp8': did you mean 'llm-fp4'"):
        quantiser.parse("llm-fp8")
    with pytest.raises(UnknownName, match="no option of 'int4' 'blocks': did you mean 'block'"):
        quantiser.parse("int4:blocks=32")
    with pytest.raises(UnknownName, match="no option of 'nvfp4' 'bits': known: skip"):
        quantiser.parse("nvfp4:bits=3")
    with pytest.raises(UsageError, match="option bits='three': accepted is of type int, such as 4"):
        quantiser.parse("hlq:bits=three")
    with pytest.raises(UsageError, match="'lut:3': '3' is no option; write key=value, as in 'lut:bits=3,skip=head'"):
        quantiser.parse("lut:3")
