"""TensorRT-RTX builds the lowered graphs for architectures that have the format, and refuses them for others."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import edgetok
from edgetok import devices, lowering
from edgetok.errors import Refusal
from edgetok.tokenizer import head as heads
from tests import families
from tests.test_quantiser_heads import model_of, weights

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"),
]
DEVICES = {device.name: device for device in devices.load_all()}
BLACKWELL = DEVICES["rtx-4090"].model_copy(
    update={"name": "blackwell", "precisions": ("fp16", "bf16", "fp8", "fp4", "int8", "int4")}
)
HAS = {"SM75": (), "SM86": ("int8", "int4"), "SM89": ("fp8", "int8", "int4"), "SM120": BLACKWELL.precisions}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four inputs of the ViT."""
    folder = tmp_path_factory.mktemp("samples")
    for seed in range(4):
        feeds = families.feeds("vit", batch=1, seed=seed)
        np.savez(folder / f"{seed}.npz", **{name: value.numpy() for name, value in feeds.items()})
    return folder


def build(file: Path, capability: str) -> subprocess.CompletedProcess[str]:
    """Build it in a process of its own."""
    program = [sys.executable, Path(__file__).with_name("rtx_build.py"), file, capability]
    return subprocess.run(program, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("quantize", "activations", "builds", "refuses"),
    [
        ("nvfp4", None, "SM120", "SM89"),  # E4M3 block scales, dequantised by the global scale
        ("mxfp4", None, "SM120", "SM89"),
        ("fp8", None, "SM89", "SM86"),
        ("fp8:block=16", None, "SM89", "SM86"),
        ("int4:positive=true,block=16", None, "SM86", "SM75"),
        ("int8:positive=true", None, "SM86", None),
        ("int8:positive=true", "int8", "SM86", None),
        ("fp8", "fp8", "SM89", "SM86"),
        ("nvfp4", "fp4", "SM120", "SM89"),
        ("nvfp4", "fp4", "SM120", "SM86"),
    ],
)
def test_it_is_built_where_it_runs(
    quantize: str, activations: str | None, builds: str, refuses: str | None, samples: Path, tmp_path: Path
) -> None:
    """A ViT with merged tokens; what TensorRT-RTX would refuse, edgetok refuses before, by the device's precisions."""
    spec = f"{quantize}{',' if ':' in quantize else ':'}skip=head"
    bundle = edgetok.export(
        "tests.families:wide_vit", out=tmp_path / "bundle", quantize=[spec],
        activations=activations and f"{activations}:skip=head", reduce=["tome:r=4"], dtype="fp16", samples=samples,
        min_cosine=0.5,
    )  # fmt: skip
    model = ir.load(bundle.model_path)
    lowering.for_tensorrt(model, BLACKWELL)
    ir.save(model, tmp_path / "lowered.onnx")
    done = build(tmp_path / "lowered.onnx", builds)
    assert done.returncode == 0 and done.stdout.startswith("built "), done.stderr
    if refuses:
        done = build(tmp_path / "lowered.onnx", refuses)
        assert done.returncode == 1 and "HW-specific datatypes" in done.stderr, done.stderr
        without = BLACKWELL.model_copy(update={"name": refuses, "precisions": ("fp16", *HAS[refuses])})
        with pytest.raises(Refusal, match=f"{refuses} has no "):
            lowering.for_tensorrt(ir.load(bundle.model_path), without)


@pytest.mark.parametrize("name", heads.names())
def test_quantiser_heads_are_built(name: str, tmp_path: Path) -> None:
    """The first and the largest example of each, both ways, with the batch free."""
    head = heads.load(name)
    for config in (head.examples[0], max(head.examples, key=lambda each: sum(head.layout(each).sizes))):
        for what in ("encode", "decode"):
            model = model_of(head, what, weights(head, config), config, ("batch", 16))
            lowering.for_tensorrt(model, BLACKWELL)
            ir.save(model, tmp_path / "head.onnx")
            done = build(tmp_path / "head.onnx", "SM86")
            assert done.returncode == 0 and done.stdout.startswith("built "), f"{config} {what}: {done.stderr}"
