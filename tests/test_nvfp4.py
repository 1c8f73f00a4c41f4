"""NVFP4 against Model Optimizer's arrays, against ONNX's own decoder, and by hand."""

from pathlib import Path

import numpy as np
import pytest

from edgetok.exporters.quantisers import nvfp4
from edgetok.exporters.quantisers.nvfp4 import Config

GOLDEN = Path(__file__).parent / "golden" / "low-bit"


@pytest.mark.parametrize("name", ["normal", "heavy", "edge"])
def test_as_model_optimizer_has_it(name: str) -> None:
    given, wanted = np.load(GOLDEN / "inputs.npz"), np.load(GOLDEN / "nvfp4.npz")
    weight = nvfp4.quantise(given[f"w_{name}"], None, Config())
    assert np.float32(weight.global_scale) == wanted[f"{name}_global_scale"].reshape(())
    np.testing.assert_array_equal(weight.scales[..., 0].view(np.uint8), wanted[f"{name}_block_scale_e4m3"])
    np.testing.assert_array_equal(weight.dequantise(), wanted[f"{name}_deq"])
