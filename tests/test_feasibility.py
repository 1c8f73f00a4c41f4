"""What cannot run on a device is refused before it is made, and told what can."""

import pytest

from edgetok import api, devices
from edgetok.errors import EdgetokError, Refusal
from edgetok.feasibility import refuse_formats, refuse_graph
from edgetok.lint_rules import Example
from edgetok.lowbit import activations, quantiser

ATTENTION = Example("", "g (float16[2,3,5,16] q) => (float16[2,3,5,16] y) { y = Attention(q, q, q) }", None).model


def formats(device: str, dtype: str = "fp32", weights: str | None = None, rounded: str | None = None) -> None:
    refuse_formats(
        devices.load(device),
        dtype,  # type: ignore[arg-type]
        [] if weights is None else [quantiser.parse(weights)],
        None if rounded is None else activations.parse(rounded),
    )


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            {"device": "jetson-orin-nx-16gb-jp62", "weights": "nvfp4"},
            "--quantize nvfp4: jetson-orin-nx-16gb-jp62 has no fp4 weights: it has int4, int8; "
            "quantise with --quantize int4:positive=true or --quantize int8:positive=true",
        ),
        (
            {"device": "a100-40gb-sxm", "rounded": "fp8"},
            "a100-40gb-sxm has no fp8 activations: it has int8; export with --activations int8",
        ),
        ({"device": "rtx-3090", "weights": "fp8"}, "has no fp8 weights: it has int4, int8"),
        ({"device": "h100-sxm", "weights": "mxfp4"}, "has no fp4 weights: it has fp8, int4, int8"),
        ({"device": "jetson-orin-nano-jp60", "weights": "int4"}, "has no int4 weights: it has int8"),
        ({"device": "jetson-nano-jp46", "weights": "int8"}, "it has none of few bits; export it without --quantize"),
        ({"device": "jetson-xavier-nx-jp51", "dtype": "bf16"}, "no bf16: it has fp16, fp32; export with --dtype fp16"),
    ],
)
def test_what_the_hardware_has_not(asked, says):
    with pytest.raises(Refusal) as error:
        formats(**asked)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "asked",
    [
        {"device": "jetson-thor-t5000-jp72", "weights": "nvfp4", "rounded": "fp4"},
        {"device": "jetson-orin-nano-jp62", "weights": "int4", "rounded": "int8"},
        {"device": "jetson-orin-nano-jp62", "weights": "lut:bits=3"},  # a table is an operator of its own
        {"device": "rtx-4060", "weights": "fp8", "dtype": "bf16"},
        {"device": "aarch64-cpu", "weights": "nvfp4"},
    ],
)
def test_what_can_be_had(asked):
    formats(**asked)


def test_every_quantiser_can_be_asked():
    for name in quantiser.names():
        formats("rtx-5090", weights=name)


def test_a_graph_that_no_runtime_takes():
    """Attention is spelt for a TensorRT without the node; a sum that counts distinct values has no such spelling."""
    assert refuse_graph(devices.load("jetson-orin-nano-jp62"), ATTENTION()) == []
    (told,) = refuse_graph(devices.load("jetson-orin-nano-jp51"), ATTENTION())
    assert told.startswith("onnxruntime 1.19.2 on jetson-orin-nano-jp51: the model has opset 23")
    unique = Example("", "g (float[9] x) => (float[n] y) { y = Unique(x) }", None).model
    with pytest.raises(Refusal) as error:
        refuse_graph(devices.load("jetson-orin-nano-jp51"), unique())
    assert "does not import Unique" in str(error.value) and "takes at most 21" in str(error.value)


def test_export_refuses_before_it_reads_anything(tmp_path):
    with pytest.raises(EdgetokError, match="no fp4 weights"):
        api.export("no/such/model", out=tmp_path / "out", quantize=["nvfp4"], target="jetson-agx-orin-64gb-jp62")
    assert not list(tmp_path.iterdir())
