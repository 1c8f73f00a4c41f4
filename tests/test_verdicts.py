"""The table of verdicts: where token reduction works, and what it refuses, with node, reason and way out."""

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from edgetok import technique, transform
from edgetok.errors import Refusal
from edgetok.exporters.sources import CaptureOptions, capture
from edgetok.view import TransformerView
from tests import families
from tests.conftest import packaged

TECHNIQUES = ("tome", "mctf", "vtc-cls")  # behind attention, in front of a block, behind the encoder
PREFIX = {"deit": 2, "dinov2-registers": 5, "dinov3": 5, "whisper": 0, "wav2vec2": 0, "wav2vec2-masked": 0}  # else 1

REFUSALS = {
    "clip-text": ("attention is causal: a merged token has no place in the order", "token reduction works on encoders"),
    "llama": ("attention is causal: a merged token has no place in the order", "token reduction works on encoders"),
    "beit": ("attention adds a bias per pair of positions", "token reduction needs attention without one"),
    "wav2vec2-ctc": (
        "output 'logits' scores classes at every position, as for CTC: the order of the positions is the result",
        "a reduced model would repeat and misplace symbols: export it without --reduce",
    ),
    "swin": ("works within windows of the grid", "token reduction needs attention over all tokens"),
}


def model_of(family: str) -> ir.Model:
    return ir.from_proto(onnx.ModelProto.FromString(families.captured(family)[0]))


@pytest.mark.parametrize("name", ["tome", "random", "mctf"])
@pytest.mark.parametrize("family", families.FAMILIES)
def test_works(family: str, name: str):
    model = model_of(family)
    done = transform.transform(model, [technique.parse(f"{name}:r=2")], dtype="fp32", emit="full")
    assert [step.block for step in done.schedule] == [0, 1, 2, 3]
    assert done.schedule[-1].tokens_out == done.tokens - 8


@pytest.mark.parametrize("family", families.FAMILIES)
def test_prefix_tokens_are_counted(family: str):
    assert TransformerView.of(model_of(family)).prefix == PREFIX.get(family, 1)


@pytest.mark.parametrize("name", TECHNIQUES)
@pytest.mark.parametrize("family", families.REFUSED)
def test_refuses(family: str, name: str):
    reason, way_out = REFUSALS[family]
    with pytest.raises(Refusal) as caught:
        transform.transform(
            model_of(family), [technique.parse(technique.load(name).examples[0])], dtype="fp32", emit="full"
        )
    refusal = caught.value
    assert reason in refusal.reason
    assert refusal.way_out == way_out
    assert refusal.node and refusal.node in {node.name for node in model_of(family).graph}


def test_foreign_dinov2_works():
    """Opset 14, TorchScript: Shape/Gather/Concat chains, five nodes a LayerNorm, Erf."""
    for name in ("tome", "mctf"):
        asked = technique.parse(technique.load(name).examples[0])
        done = transform.transform(capture("zoo:dinov2-style-s14").model, [asked], dtype="fp32", emit="full")
        assert done.tokens == 257 and done.schedule[-1].tokens_out < 257


@pytest.mark.parametrize(
    ("size", "reason", "way_out"),
    [
        (
            (48, 320),
            "scores classes at every position, as for CTC",
            "would repeat and misplace symbols",
        ),
        (None, "the number of tokens is not fixed", "fix it with --size"),
    ],
)
def test_text_recogniser_is_refused(size: tuple[int, int] | None, reason: str, way_out: str):
    """The SVTR recogniser of rapidocr-onnxruntime: the order of its outputs is the text."""
    path: Path = packaged("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx")
    model = capture(str(path), CaptureOptions(size=size)).model
    with pytest.raises(Refusal) as caught:
        transform.transform(model, [technique.parse("tome:r=2")], dtype="fp32", emit="full")
    assert reason in caught.value.reason and caught.value.node
    assert caught.value.way_out and way_out in caught.value.way_out


def test_a_ctc_head_is_known_by_the_architecture_and_remembered(tmp_path: Path):
    """Its logits look like any others; a file that edgetok wrote says what they are."""
    module, _ = families.build("wav2vec2-ctc")
    module.save_pretrained(tmp_path / "folder")
    model = capture(str(tmp_path / "folder"), CaptureOptions(length=8000)).model
    ir.save(model, tmp_path / "model.onnx")
    for again in (model, capture(str(tmp_path / "model.onnx")).model):
        with pytest.raises(Refusal, match="as for CTC"):
            transform.transform(again, [technique.parse("tome:r=2")], dtype="fp32", emit="reduced")
