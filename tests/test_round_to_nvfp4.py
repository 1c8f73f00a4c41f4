"""RoundToNVFP4 bit for bit: its function, its reference, the quantiser of the same format, and ml_dtypes' casts."""

import ml_dtypes
import numpy as np
import pytest
import torch

from edgetok.exporters.quantisers import nvfp4
from edgetok.plugins import round_to_nvfp4
from tests.test_operators import run_function

CASES = dict(round_to_nvfp4.cases())


def by_casts(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The same by the casts of ml_dtypes, a block at a time."""
    result = np.empty_like(x)
    for row, rounded in zip(x.reshape(-1, x.shape[-1]), result.reshape(-1, x.shape[-1]), strict=True):
        for start in range(0, len(row), 16):
            block = row[start : start + 16]
            small = np.minimum(np.abs(block).max() / (np.float32(6) * scale), np.float32(448))
            unit = small.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale
            if unit == 0:
                rounded[start : start + 16] = 0
                continue
            codes = np.clip(block / unit, -6, 6).astype(ml_dtypes.float4_e2m1fn)
            rounded[start : start + 16] = codes.astype(np.float32) * unit
    return result


@pytest.mark.parametrize("case", CASES)
def test_bit_for_bit(case: str) -> None:
    x, scale = CASES[case]
    (got,) = run_function("round_to_nvfp4", (x, scale), {})
    np.testing.assert_array_equal(got, round_to_nvfp4.reference(x, scale).numpy())
    np.testing.assert_array_equal(got, by_casts(x.numpy(), scale.numpy()))


def test_ties_go_to_the_even_code() -> None:
    x, scale = CASES["ties"]
    (got,) = run_function("round_to_nvfp4", (x, scale), {})
    assert got[0, :8].tolist() == [0, 1, 1, 2, 2, 4, 4, 6]


@pytest.mark.parametrize("inner", [48, 37])
def test_as_the_quantiser_has_it(inner: int) -> None:
    x = torch.randn(30, inner, generator=torch.Generator().manual_seed(1)) ** 3
    weight = nvfp4.quantise(x.numpy(), None, nvfp4.Config())
    (got,) = run_function("round_to_nvfp4", (x, torch.tensor(weight.global_scale)), {})
    np.testing.assert_array_equal(got, weight.dequantise())


def test_half_precision_is_computed_in_fp32() -> None:
    x, scale = CASES["tokens"]
    half = round_to_nvfp4.reference(x.half(), scale)
    assert half.dtype == torch.float16
    assert torch.equal(half, round_to_nvfp4.reference(x.half().float(), scale).half())


def test_what_is_not_finite() -> None:
    """NaN stays, infinity becomes the largest value, and nothing else of the tensor is touched by a NaN."""
    x, scale = CASES["tokens"]
    broken = x.clone()
    broken[0, 0, 3], broken[1, 2, 20] = torch.nan, -torch.inf
    (got,) = run_function("round_to_nvfp4", (broken, scale), {})
    np.testing.assert_array_equal(got, round_to_nvfp4.reference(broken, scale).numpy())
    assert np.isnan(got[0, 0, 3]) and np.isnan(got).sum() == 1
    assert got[1, 2, 20] == pytest.approx(-6 * 448 * scale.item())
    silent = x.clone()
    silent[0, 0, 3] = 0
    (without,) = run_function("round_to_nvfp4", (silent, scale), {})
    rest = np.delete(np.arange(16), 3)
    np.testing.assert_array_equal(got[0, 0, rest], without[0, 0, rest])
