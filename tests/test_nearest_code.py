"""NearestCode at full size: which codes it finds, and what it holds while it searches."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import nearest_code as benchmark

ROOT = Path(__file__).parent.parent
CODES, TOKENS = 16384, 1024


@pytest.mark.parametrize("width", [8, 256])
def test_what_it_finds_is_nearest_in_fp64(width: int) -> None:
    """A code that is not the nearest lies as far from the token, to within the rounding of the product."""
    rows = benchmark.codebook(CODES, width)
    x = np.random.default_rng(1).standard_normal((1, TOKENS, width)).astype(np.float32)
    found = benchmark.search("NearestCode", rows, threads=1)(x)[0]
    exact = rows.astype(np.float64)
    scores = x[0].astype(np.float64) @ exact.T - np.square(exact).sum(axis=1) / 2
    short = scores.max(axis=1) - scores[np.arange(TOKENS), found]
    size = np.linalg.norm(x[0], axis=1) * np.linalg.norm(exact, axis=1).max()
    assert (short <= 4 * np.finfo(np.float32).eps * size).all()
    assert (found != scores.argmax(axis=1)).mean() <= 1e-3


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")
def test_it_holds_a_tenth_of_the_distances_at_most() -> None:
    """If a runtime computed the blocks all at once, this would show; with all distances it is twice the matrix."""
    held = {}
    for side in ("NearestCode", "products"):
        command = [sys.executable, benchmark.__file__, "--one", side, str(CODES), "16", str(TOKENS), "1"]
        environment = {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True)
        held[side] = max(map(float, done.stdout.split()))
    matrix = CODES * TOKENS * 4 / 1e6
    assert held["NearestCode"] <= matrix / 10 and held["products"] > matrix


@pytest.mark.parametrize("codes", [1, 5, 767, 768, 1000])
def test_rows_that_only_fill_up_are_never_found(codes: int) -> None:
    """Where x is not finite their score is no lower than any other."""
    rows = benchmark.codebook(codes, 3)
    x = np.zeros((1, 64, 3), np.float32)
    values = [np.nan, np.inf, -np.inf, 3e38, 1.0, -1.0, 0.0]
    x[0] = np.random.default_rng(codes).choice(values, (64, 3))
    found = benchmark.search("NearestCode", rows, threads=1)(x)
    assert found.min() >= 0 and found.max() < codes
