"""Input that is not finite, and tokens that are all equal, in every form that a graph is lowered to: run on a CPU.

The forms: ONNX Runtime's, and those for TensorRT 10.3, without an Attention node, and for TensorRT-RTX.
"""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from edgetok import devices, lowering, technique, transform
from edgetok.errors import Refusal
from edgetok.plugins import add_functions
from tests import families

ORIN = devices.load("jetson-orin-nano-jp62").only("tensorrt")
RTX = devices.load("rtx-3090").only("tensorrt-rtx")
FORMS = {
    "onnxruntime": (None, "fp32"), "tensorrt-fp32": (ORIN, "fp32"), "tensorrt-fp16": (ORIN, "fp16"),
    "rtx-fp32": (RTX, "fp32"), "rtx-fp16": (RTX, "fp16"),
}  # fmt: skip
ONE = (1, 0, 5, 5)  # a point of the second picture


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


@pytest.mark.parametrize("name", technique.names())
def test_a_sample_that_is_not_finite_stays_alone(name, form):
    """The others keep every bit; of itself nothing is finite. Equal tokens give numbers."""
    device, dtype = form
    model = ir.from_proto(onnx.ModelProto.FromString(families.captured("vit")[0]))
    asked = technique.parse(technique.load(name).examples[0])
    try:
        transform.transform(model, [asked], dtype=dtype, emit="full")
    except Refusal as refusal:
        assert dtype == "fp16" and "vanishes in half precision" in str(refusal)
        return
    add_functions(model)
    if device is not None:
        lowering.for_tensorrt(model, device)
    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    pictures = families.feeds("vit", 3)["pixel_values"].numpy()

    def run(x):
        return session.run(None, {session.get_inputs()[0].name: x})

    clean = run(pictures)
    for value in (np.nan, np.inf, -np.inf):
        for where in (1, ONE):
            spoilt = pictures.copy()
            spoilt[where] = value
            for got, wanted in zip(run(spoilt), clean, strict=True):
                np.testing.assert_array_equal(got[[0, 2]], wanted[[0, 2]])
                assert got.dtype.kind != "f" or not np.isfinite(got[1]).all()
                assert got.dtype.kind != "f" or where == ONE or not np.isfinite(got[1]).any()
    for value in (0.0, 1.0):
        for got in run(np.full_like(pictures, value)):
            assert np.isfinite(got).all()
