"""A tokenizer's folder says how its files are read: preprocessor_config.json over the family's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetok.errors import SourceError
from edgetok.exporters.sources.tokenizer import _as_stored
from edgetok.exporters.tokenizers import encodec, vq_image
from tests import codecs
from tests.test_tokenizers import vqgan

FILE = "preprocessor_config.json"


def test_size_mean_and_std_of_pictures(tmp_path: Path) -> None:
    """Chameleon's file as transformers writes it, at another size; a user's own size is kept."""
    model = vqgan("chameleon")
    parts = vq_image.parts(model, None, None)
    assert _as_stored(parts, tmp_path, lambda size: vq_image.parts(model, None, size)).signal == parts.signal
    stored = {"crop_size": {"height": 24, "width": 32}, "size": {"shortest_edge": 40}, "do_center_crop": True}
    stored |= {"image_mean": [0.5, 0.25, 0.125], "image_std": [0.5, 0.5, 0.25], "do_normalize": True}
    (tmp_path / FILE).write_text(json.dumps(stored))
    made = _as_stored(parts, tmp_path, lambda size: vq_image.parts(model, None, size))
    assert made.shape == (3, 24, 32)
    assert made.signal.preprocess.size == (24, 32) and made.signal.preprocess.box == (40, 40)
    assert made.signal.preprocess.mean == (0.5, 0.25, 0.125) and made.signal.preprocess.std == (0.5, 0.5, 0.25)
    asked = vq_image.parts(model, None, (16, 16))
    assert _as_stored(asked, tmp_path, None).signal.preprocess.size == (16, 16)
    (tmp_path / FILE).write_text(json.dumps(stored | {"image_std": [0, 1, 1]}))
    with pytest.raises(SourceError, match="malformed: std"):
        _as_stored(parts, tmp_path, None)


def test_the_rate_of_recordings(tmp_path: Path) -> None:
    parts = encodec.parts(codecs.encodec(), None, None)
    (tmp_path / FILE).write_text(json.dumps({"feature_size": 1, "sampling_rate": 32000}))
    assert _as_stored(parts, tmp_path, None).signal.rate == 32000
    for wrong in (0, -1, "24000", True, 10**9):
        (tmp_path / FILE).write_text(json.dumps({"sampling_rate": wrong}))
        with pytest.raises(SourceError, match="sampling_rate"):
            _as_stored(parts, tmp_path, None)
