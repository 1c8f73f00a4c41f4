"""What a bundle accepts on a machine that rounds otherwise; of rounded activations: tests/test_activations.py."""

from pathlib import Path

import numpy as np
import pytest

import edgetok
from edgetok.errors import BundleError
from edgetok.promise import check_promised
from tests import families


def test_where_tokens_are_reduced_a_near_tie_may_move_rows(tmp_path: Path) -> None:
    """Fewer than half of them, and no farther from the promise than the original is; without, none."""
    (tmp_path / "vit.onnx").write_bytes(families.captured("vit")[0])
    reduced = edgetok.export(str(tmp_path / "vit.onnx"), out=tmp_path / "reduced", reduce=["tome:r=5"])
    plain = edgetok.export(str(tmp_path / "vit.onnx"), out=tmp_path / "plain")
    for bundle, merges in ((reduced, True), (plain, False)):
        expected = bundle.samples("expected")
        assert check_promised(bundle, expected, "a32") == dict.fromkeys(expected, 0.0)
        name = "last_hidden_state"
        scale, rows = np.abs(expected[name]).max(), expected[name].shape[1]
        few, all_of_them, much = (expected[name].copy() for _ in range(3))
        few[:, : rows // 4] += 0.01 * scale
        all_of_them += 0.01 * scale
        much[:, : rows // 4] += 10 * scale
        if merges:
            assert check_promised(bundle, {**expected, name: few}, "a32")[name] == 0
        for wrong in (all_of_them, much, *(() if merges else (few,))):
            with pytest.raises(BundleError, match="last_hidden_state' is off by|chosen otherwise"):
                check_promised(bundle, {**expected, name: wrong}, "a32")
