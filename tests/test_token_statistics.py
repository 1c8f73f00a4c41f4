"""What profile and inspect say of a tokenizer: both directions' times, the rate, and how codebooks are used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgetok import api
from edgetok.profiling import Effort
from edgetok.tokenizer.usage import codebook_use
from tests.test_cli import edgetok


def test_codebook_use() -> None:
    """Entropies that are known: uniform, one code only, a quarter and three quarters; a level that was left out."""
    ids = np.array([[[0, 5, 1, -1], [1, 5, 1, -1], [2, 5, 1, -1], [3, 5, 0, -1]]])
    found = codebook_use(ids, (4, 8, 2, 4))
    assert [book.used for book in found] == [4, 1, 2, 0] and [book.ids for book in found] == [4, 4, 4, 0]
    assert [book.entropy for book in found] == pytest.approx([2, 0, 0.8113, 0], abs=1e-4)
    assert codebook_use(ids[..., 0], (4,)) == found[:1]


def test_profile_and_inspect(tmp_path: Path) -> None:
    api.export("zoo:speech-pq", out=tmp_path / "b")
    report = api.profile(tmp_path / "b", out=tmp_path / "p", effort=Effort(0.5, 0.2, 2.0, 1.0, 3, 0.3))
    found = report.tokenizer
    assert found is not None and found.decode is not None and found.encode == report.model.latency.median
    assert found.decode.value > 0 and found.batch == found.decode_batch == 1 and found.units == 2.0
    sizes = [book.size for book in found.codebooks]
    assert found.rate == pytest.approx(found.tokens * np.log2(sizes).sum() / 2)
    saved = json.loads((tmp_path / "p/report.json").read_text())["tokenizer"]
    assert saved["rate"] == found.rate and len(saved["codebooks"]) == len(sizes)
    page = (tmp_path / "p/report.html").read_text()
    assert 'id="codebooks"' in page and "11.31 kbit a second" in page
    told = json.loads(edgetok("inspect", tmp_path / "b", "--json").stdout)
    assert told["codebooks"] == saved["codebooks"]
    text = edgetok("inspect", tmp_path / "b").stdout
    used = [book.used for book in found.codebooks]
    assert f"codes used    {min(used)} to {max(used)} of 256 in each of 28 codebooks" in text
