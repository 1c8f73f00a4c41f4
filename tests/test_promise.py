"""What a bundle accepts on a machine that rounds otherwise; of rounded activations: tests/test_activations.py."""

from pathlib import Path

import numpy as np
import pytest

import edgetok
from edgetok.errors import BundleError
from edgetok.promise import check_promised, halved
from tests import families

OUTPUT = "last_hidden_state"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    for seed in range(5):
        feeds = {name: value.numpy() for name, value in families.feeds("vit", batch=1, seed=seed).items()}
        np.savez(folder / f"{seed}.npz", **feeds)
    return folder


@pytest.mark.parametrize(("reduce", "dtype", "half"), [
    (["tome:r=5"], "fp16", "samples"), (["tome:r=5"], "fp32", None), ([], "fp16", None),
])  # fmt: skip
def test_near_ties_of_a_reduction_move_samples(reduce, dtype, half, samples: Path, tmp_path: Path) -> None:
    """In half precision, fewer than half of them, and no farther than the original is; otherwise none."""
    (tmp_path / "vit.onnx").write_bytes(families.captured("vit")[0])
    source, out = str(tmp_path / "vit.onnx"), tmp_path / "bundle"
    bundle = edgetok.export(source, out=out, reduce=reduce, dtype=dtype, samples=samples)
    assert halved(bundle) == half
    expected = bundle.samples("expected")
    assert check_promised(bundle, expected, "a32") == dict.fromkeys(expected, 0.0)
    scale, count = np.abs(expected[OUTPUT]).max(), len(expected[OUTPUT])
    assert count >= 5

    def off(by: float, *where: int | slice) -> dict[str, np.ndarray]:
        moved = expected[OUTPUT].copy()
        moved[where] += by * scale
        return expected | {OUTPUT: moved}

    some = off(0.05, slice(2))
    if half:
        assert check_promised(bundle, some, "a32")[OUTPUT] == 0
    in_every_sample, far = off(0.05, slice(None), 0), off(10, slice(2))  # of each its class token alone
    for wrong in (in_every_sample, far, off(np.nan, 0), off(0.05, slice(3)), *(() if half else (some,))):
        with pytest.raises(BundleError, match=f"{OUTPUT}' is off by"):
            check_promised(bundle, wrong, "a32")
