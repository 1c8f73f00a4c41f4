"""Where tokens are behind each reduction, and the picture of it."""

import base64
import io

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from PIL import Image

from edgetok import plugins, technique, token_trace, transform
from edgetok.page.pictures import SIDE, token_pictures
from tests import families

INSIDE = [
    pytest.param(spec, marks=[pytest.mark.more] if number else [])
    for name in technique.names()
    if technique.load(name).where != "output"
    for number, spec in enumerate(technique.load(name).examples)
]


@pytest.mark.parametrize("spec", INSIDE)
def test_the_rows_are_those_that_the_graph_gives_out(tmp_path, spec):
    """`--emit reduced` composes them in the graph, by other nodes."""
    data, _ = families.captured("vit")
    model = ir.from_proto(onnx.ModelProto.FromString(data))
    done = transform.transform(model, [technique.parse(spec)], dtype="fp32", emit="reduced")
    plugins.add_functions(done.model)
    ir.save(done.model, tmp_path / "model.onnx")
    graph, applied = token_trace.watched(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(graph)
    names = [name for each in applied for name in each.outputs]
    feeds = {key: value.numpy() for key, value in families.feeds("vit", 1).items()}
    *found, wanted = session.run([*names, "token_rows"], feeds)
    rows = token_trace.compose(applied, dict(zip(names, found, strict=True)), done.tokens)
    assert list(rows) == [step.block for step in done.schedule]
    kept = sorted(set(rows[max(rows)][rows[max(rows)] >= 0].tolist()))
    assert kept == list(range(len(kept)))
    left = rows[max(rows)] >= 0  # the graph gives what was dropped a row as well, to restore it by
    np.testing.assert_array_equal(rows[max(rows)][left], wanted[0][left])


def test_three_reductions_by_hand():
    """Merge 4 > 3 (token 3 into row 0), keep rows 2 and 0, merge 2 > 1."""
    steps = [("o", "d", "k"), ("i",), ("x", "y", "z")]
    applied = [token_trace.Applied(block, names) for block, names in enumerate(steps)]
    outputs = {
        "o": [[1, 0, 2, 3]], "d": [[0]], "k": [3], "i": [[2, 0]], "x": [[1, 0]], "y": [[0]], "z": [1],
    }  # fmt: skip
    rows = token_trace.compose(applied, {name: np.array(value) for name, value in outputs.items()}, 4)
    assert {block: row.tolist() for block, row in rows.items()} == {
        0: [1, 0, 2, 0], 1: [-1, 1, 0, 1], 2: [-1, 0, 0, 0],
    }  # fmt: skip
    assert token_trace.compose(applied, {name: np.array(value) for name, value in outputs.items()}, 3) == {}


def test_the_picture():
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("black", (0, 0, 32, 64))
    rows = np.array([0, 1, 1, -1, 2])  # a class token, then 2 x 2: black and white in one, black gone, white alone
    original, drawn = token_pictures(picture, {5: rows})
    assert drawn.caption == "behind block 5: 2 left" and original.caption == "what the model sees: 2 x 2 tokens"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.source.split(",")[1]))))
    quarter = SIDE // 4
    assert pixels[quarter, quarter].tolist() == pixels[quarter, 3 * quarter].tolist() == [127, 127, 127]
    assert pixels[3 * quarter, quarter].tolist() == [0, 0, 0] and pixels[3 * quarter, 3 * quarter].tolist() == [255] * 3
    assert token_pictures(picture, {}) == () and token_pictures(picture.crop((0, 0, 64, 32)), {5: rows}) == ()
