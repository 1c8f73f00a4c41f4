"""Learnt tables: k-means against exhaustive search, and against NF4 on real weights."""

from itertools import combinations

import numpy as np
import pytest

from edgetok.errors import UsageError
from edgetok.exporters.quantisers import _blocks, _kmeans
from edgetok.lowbit import quantiser
from tests.matrices import GOLDEN, layers, quantised, squared_error


def cost(values: np.ndarray, weights: np.ndarray, centres: np.ndarray) -> float:
    return float((weights * np.square(values[:, None] - centres).min(axis=1)).sum())


def best(values: np.ndarray, weights: np.ndarray, count: int) -> float:
    """The least cost of all ways of cutting the sorted numbers into ranges."""
    order = np.argsort(values)
    values, weights = values[order], weights[order]
    found = np.inf
    for cuts in combinations(range(1, len(values)), count - 1):
        parts = zip((0, *cuts), (*cuts, len(values)), strict=True)
        centres = np.array([np.average(values[a:b], weights=weights[a:b]) for a, b in parts])
        found = min(found, cost(values, weights, centres))
    return found


def test_near_the_best_of_all() -> None:
    generator = np.random.default_rng(0)
    values, weights = generator.standard_t(3, (20, 14)), generator.random((20, 14)) + 0.1
    centres = _kmeans.centres(values, weights, 4)
    got = [cost(*row) for row in zip(values, weights, centres, strict=True)]
    wanted = [best(v, w, 4) for v, w in zip(values, weights, strict=True)]
    ratio = np.array(got) / wanted
    assert (ratio > 1 - 1e-9).all() and ratio.mean() < 1.2 and (ratio < 1 + 1e-9).sum() >= 8


def test_each_centre_is_the_mean_of_what_is_nearest() -> None:
    generator = np.random.default_rng(1)
    values, weights = generator.standard_normal((3, 500)), generator.random((3, 500))
    centres = _kmeans.centres(values, weights, 8)
    assert (np.diff(centres) > 0).all()
    for v, w, c in zip(values, weights, centres, strict=True):
        nearest = np.abs(v[:, None] - c).argmin(axis=1)
        np.testing.assert_allclose([np.average(v[nearest == i], weights=w[nearest == i]) for i in range(8)], c)


def test_few_numbers_and_huge_ones() -> None:
    few = _kmeans.centres(np.array([[1.0, 1, 1, 2, 2, 2]]), np.ones((1, 6)), 4)
    assert np.isfinite(few).all() and {1, 2} <= set(few[0])
    ten = _kmeans.centres(np.repeat(np.arange(10.0), 7)[None] ** 2, np.ones((1, 70)), 10)
    np.testing.assert_allclose(ten[0], np.arange(10.0) ** 2)
    huge = np.concatenate([np.random.default_rng(0).standard_normal(500), [1e6]])[None]
    centres = _kmeans.centres(huge, np.ones(huge.shape), 16)[0]
    assert centres[-1] == 1e6 and (np.abs(centres) < 10).sum() == 15


@pytest.mark.parametrize("spec", ["lut", "lut:per=output"])
def test_nearer_than_nf4(spec: str) -> None:
    for layer in layers().values():
        importance = layer.seen.mean_square
        learnt, fixed = quantised(spec, layer.matrix, layer.seen), quantised("nf4", layer.matrix)
        assert squared_error(learnt, layer.matrix, importance) < squared_error(fixed, layer.matrix, importance)
        assert layer.output_error(learnt) < layer.output_error(fixed)


@pytest.mark.parametrize("spec", ["lut:bits=3", "lut:bits=2,per=output"])
def test_samples_say_what_matters(spec: str) -> None:
    layer = layers()["query"]
    importance = layer.seen.mean_square
    plain, weighted = quantised(spec, layer.matrix), quantised(spec, layer.matrix, layer.seen)
    assert squared_error(weighted, layer.matrix, importance) < 0.9 * squared_error(plain, layer.matrix, importance)
    assert squared_error(weighted, layer.matrix) > squared_error(plain, layer.matrix)
    assert layer.output_error(weighted) < layer.output_error(plain)


def test_a_table_for_each_output() -> None:
    """Four values in a row need no more than two bits."""
    generator = np.random.default_rng(2)
    tables = generator.standard_normal((5, 4)).astype(np.float32)
    matrix = np.take_along_axis(tables, generator.integers(0, 4, (5, 100)), axis=1)
    weight = quantised("lut:bits=2,per=output", matrix)
    assert weight.codebook.shape == (5, 1, 4)
    np.testing.assert_allclose(weight.dequantise(), matrix, rtol=1e-6)


def test_the_scale_takes_the_sign_of_the_largest() -> None:
    matrix = np.load(GOLDEN / "inputs.npz")["w_normal"]
    blocks = _blocks.filled(matrix, 64)
    scales = quantised("lut:scale=fp32", matrix).scales[..., 0]
    np.testing.assert_array_equal(np.abs(scales), np.abs(blocks).max(axis=-1))
    assert 0.3 < (scales < 0).mean() < 0.7


def test_options() -> None:
    with pytest.raises(UsageError, match="option bits=5: accepted are 2, 3 and 4"):
        quantiser.parse("lut:bits=5")
    with pytest.raises(UsageError, match="option per=row: accepted are tensor and output"):
        quantiser.parse("lut:per=row")
