"""Lint against the real TensorRT-RTX: what it passes is built, and what it refuses is not."""

import json
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from edgetok import devices, lowering, technique, transform
from edgetok.device import Device
from edgetok.errors import Refusal
from edgetok.lint import lint
from edgetok.plugins import add_functions
from tests import families, random_graphs

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"),
]
CARDS = {"SM80": "a100-40gb-sxm", "SM86": "rtx-3090", "SM89": "rtx-4090", "SM120": "rtx-5090"}
GRAPHS = 200
ONLY_FP32 = {"zoo-prune"}  # what refuses half precision by itself


class Builder:
    """One process after the other: what crashes it counts as not built, and the next one goes on."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def obstacle(self, file: Path, capability: str) -> str | None:
        """Why it is not built; None where it is."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("rtx_build.py")], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps([str(file), capability]), file=self.process.stdin, flush=True)
        if answer := self.process.stdout.readline():
            return json.loads(answer)
        self.close()
        return "it crashed"

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.communicate()
            self.process = None


@pytest.fixture
def builder() -> Iterable[Builder]:
    made = Builder()
    yield made
    made.close()


def card(capability: str) -> Device:
    return devices.load(CARDS[capability]).only("tensorrt-rtx")


def refusals(file: Path, device: Device) -> list[str]:
    """What lint says against it."""
    return [f"{each.op}: {each.reason}" for each in lint(file, device) if each.severity == "error"]


@pytest.mark.parametrize("name", technique.names())
def test_lint_agrees_on_techniques(name: str, builder: Builder, tmp_path: Path) -> None:
    """Lowered without plugins, in fp16, with the batch free."""
    model = ir.from_proto(onnx.ModelProto.FromString(families.captured("vit")[0]))
    asked = technique.parse(technique.load(name).examples[0])
    try:
        transform.transform(model, [asked], dtype="fp16", emit="full")
    except Refusal:
        assert name in ONLY_FP32
        return
    add_functions(model)
    for capability in CARDS:
        lowered = model.clone()
        lowering.for_tensorrt(lowered, card(capability))
        ir.save(lowered, tmp_path / "model.onnx")
        told, obstacle = refusals(tmp_path / "model.onnx", card(capability)), builder.obstacle(
            tmp_path / "model.onnx", capability
        )
        assert bool(told) == bool(obstacle), f"{capability}: lint says {told}, TensorRT-RTX {obstacle}"


def test_lint_agrees_on_generated_graphs(builder: Builder, tmp_path: Path) -> None:
    """Valid graphs of the operators that techniques use."""
    made, seed, built, apart = 0, 0, 0, []
    while made < GRAPHS:
        seed += 1
        if (model := random_graphs.graph(seed)) is None:
            continue
        made += 1
        onnx.save(model, tmp_path / "model.onnx")
        capability = list(CARDS)[made % len(CARDS)]
        told = refusals(tmp_path / "model.onnx", card(capability))
        obstacle = builder.obstacle(tmp_path / "model.onnx", capability)
        built += obstacle is None
        if bool(told) != bool(obstacle):
            ops = [node.op_type for node in model.graph.node]
            apart.append(f"seed {seed}, {capability}, {ops}: lint says {told}, TensorRT-RTX {obstacle}")
    assert GRAPHS // 4 < built < GRAPHS  # the test tries both
    assert not apart, "\n".join(apart)
