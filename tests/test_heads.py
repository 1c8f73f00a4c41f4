"""Attention that splits its heads itself."""

import onnx
import onnx_ir as ir
import pytest

from edgetok import technique
from edgetok.transform import transform
from tests import families
from tests.comparison import run, session
from tests.families import captured


@pytest.mark.parametrize("spec", ["", "tome:r=4"])
@pytest.mark.parametrize("family", ["vit", "dinov2-registers", "clip-vision", "whisper", "wav2vec2-masked", "bert"])
def test_heads_stay_joined(family: str, spec: str):
    """No transposition is left around attention; `test_families.py` compares the outputs of reduced graphs."""
    data, _ = captured(family)
    model = ir.from_proto(onnx.ModelProto.FromString(data))
    transform(model, [technique.parse(spec)] if spec else [], dtype="fp32", emit="full")
    nodes = [node for node in model.graph if node.op_type in ("Attention", "ProportionalAttention")]
    assert len(nodes) == 4
    for node in nodes:
        assert [len(value.shape) for value in (*node.inputs[:3], node.outputs[0])] == [3] * 4
    if not spec:
        feeds = families.feeds(family, 3)
        before, after = run(session(data), feeds), run(session(model), feeds)
        for name, value in before.items():
            assert (value - after[name]).abs().max() <= 1e-5 * value.abs().max()


def test_heads_that_something_else_reads_stay_apart():
    text = """<ir_version: 10, opset_import: ["" : 23]> g (float[2,5,12] x) => (float[2,5,12] y, float[2,3,5,4] z) {
        apart = Constant <value_ints = [0, 5, 3, 4]> ()
        joined = Constant <value_ints = [0, 5, 12]> ()
        rows = Reshape(x, apart)
        heads = Transpose <perm = [0, 2, 1, 3]> (rows)
        z = Attention(heads, heads, heads)
        back = Transpose <perm = [0, 2, 1, 3]> (z)
        y = Reshape(back, joined)
    }"""
    model = ir.from_onnx_text(text)
    transform(model, [], dtype="fp32", emit="full")
    assert [node.op_type for node in model.graph].count("Transpose") == 2
