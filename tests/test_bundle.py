"""Bundles on disk: equal bytes, and nothing damaged, foreign or unfinished is accepted."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgetok import bundle as bundles
from edgetok import serialize
from edgetok.bundle import check_output, is_bundle, open_bundle, write_bundle
from edgetok.errors import BundleError, OutputError, UnknownName, UsageError
from edgetok.manifest import BuiltOn, FileDigest, Manifest, Recipe, encode
from edgetok.model import Origin, TensorSpec
from edgetok.verify import digest

ARRAYS = {
    "x": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4),
    "half": np.float16([1.5, np.nan]),
    "brain": np.arange(6).reshape(2, 3).T.astype(ml_dtypes.bfloat16),
    "scalar": np.array(7),
    "none": np.zeros((0, 3), bool),
}
F8_HEADER = b'{"x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}'
FILES = ("manifest.json", "model.onnx", "samples/expected.safetensors", "samples/inputs.safetensors")


def graph(width: int = 4) -> onnx.ModelProto:
    """A linear layer."""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 23]>'
        f"linear (float[b, {width}] x) => (float[b, {width}] y) {{ y = MatMul(x, weight) }}"
    )
    weight = np.random.default_rng(0).standard_normal((width, width), dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    return model


def manifest(name: str = "linear.onnx") -> Manifest:
    return Manifest(
        source=Origin("onnx", name),
        recipe=Recipe(),
        tokens=4,
        inputs=(TensorSpec("x", "float32", ("b", 4)),),
        outputs=(TensorSpec("y", "float32", ("b", 4)),),
        tools={"onnx": onnx.__version__},
        built_on=BuiltOn(machine="x86_64", cpu_features=()),
    )


def write(out: Path, name: str = "linear.onnx", force: bool = False, model=None):
    samples = {"inputs": ARRAYS, "expected": {"y": ARRAYS["x"]}}
    return write_bundle(out, model or graph().SerializeToString(), manifest(name), samples, force)


def rewrite(folder: Path, **files: bytes | None) -> None:
    """Change files and seal the manifest again, as an attacker would."""
    listed = open_bundle(folder).manifest.files
    for name, data in files.items():
        (folder / name).write_bytes(data)
        listed = listed | {name: digest(folder / name)}
    sealed = manifest().model_copy(update={"files": listed})
    (folder / "manifest.json").write_bytes(encode(sealed))


@pytest.fixture
def folder(tmp_path) -> Path:
    return write(tmp_path / "small").path


# ---- writing and reading back


def test_round_trip(folder):
    opened = open_bundle(folder)
    assert sorted(opened.manifest.files) == list(FILES[1:])
    assert opened.model_path.read_bytes() == graph().SerializeToString()
    read = opened.samples("inputs")
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        assert read[name].tobytes() == array.tobytes()
    assert is_bundle(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["small"]
    assert folder.stat().st_mode & 0o777 == (folder / "samples").stat().st_mode & 0o777, "as the umask says"


def test_model_runs_in_onnxruntime(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    opened = write(tmp_path / "small", model=ir.from_proto(graph()))
    (y,) = onnxruntime.InferenceSession(opened.model_path).run(None, {"x": ARRAYS["x"]})
    weight = onnx.numpy_helper.to_array(graph().graph.initializer[0])
    np.testing.assert_allclose(y, ARRAYS["x"] @ weight, rtol=1e-5)


def test_large_model_keeps_its_weights_beside(tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(serialize, "INLINE_LIMIT", 10_000)  # the real one needs 2 GB
    model = ir.from_proto(graph(64))
    one, two = (write(tmp_path / name, model=model) for name in ("one", "two"))
    assert one.id == two.id
    assert one.manifest.files["model.onnx.data"].bytes == 64 * 64 * 4
    assert one.manifest.files["model.onnx"].bytes < 1000
    x = np.eye(64, dtype=np.float32)
    (y,) = onnxruntime.InferenceSession(one.model_path).run(None, {"x": x})
    np.testing.assert_allclose(y, onnx.numpy_helper.to_array(graph(64).graph.initializer[0]), rtol=1e-5)


def test_weights_that_lie_in_files_are_taken_along(tmp_path):
    onnx.save(graph(64), tmp_path / "source.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    opened = write(tmp_path / "small", model=ir.load(tmp_path / "source.onnx"))
    (tmp_path / "w.bin").unlink()
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(onnx.load(opened.model_path).graph.initializer[0]),
        onnx.numpy_helper.to_array(graph(64).graph.initializer[0]),
    )


def test_equal_bytes_from_two_processes_in_two_places(tmp_path):
    program = (
        "import sys; sys.path[:0] = sys.argv[1:3]; from pathlib import Path; import test_bundle as t; "
        "import onnx_ir as ir; print(t.write(Path(sys.argv[3]), model=ir.from_proto(t.graph())).id)"
    )
    contents, ids = [], []
    for seed, out in ((1, tmp_path / "here"), (2, tmp_path / "some" / "where" / "else")):
        result = subprocess.run(
            [sys.executable, "-c", program, str(Path(__file__).parent), str(Path(__file__).parent.parent), str(out)],
            env=os.environ | {"PYTHONHASHSEED": str(seed)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        ids.append(result.stdout)
        contents.append({name: (out / name).read_bytes() for name in FILES})
    assert contents[0] == contents[1] and ids[0] == ids[1]
    assert not any(str(tmp_path).encode() in data for data in contents[0].values())


def test_samples_of_another_kind(folder):
    with pytest.raises(UnknownName, match="no sample set 'input': did you mean 'inputs'?"):
        open_bundle(folder).samples("input")


def test_samples_changed_after_opening(folder):
    opened = open_bundle(folder)
    (folder / FILES[3]).write_bytes(b"x")
    with pytest.raises(BundleError, match="inputs.safetensors was changed since the bundle was opened; copy the"):
        opened.samples("inputs")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"garbage", "samples/inputs.safetensors: not a safetensors file: "),
        (
            len(F8_HEADER).to_bytes(8, "little") + F8_HEADER + b"0",
            "samples/inputs.safetensors: array 'x' has the type F8_E4M3; accepted: BOOL, I8, ",
        ),
    ],
)
def test_hostile_samples(folder, data, message):
    rewrite(folder, **{"samples/inputs.safetensors": data})
    with pytest.raises(BundleError, match=message):
        open_bundle(folder).samples("inputs")


# ---- what is not accepted


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0, 0.5, -1])
def test_one_flipped_byte(folder, name, where):
    data = bytearray((folder / name).read_bytes())
    data[int(where * len(data)) if where > 0 else where] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError, match=re.escape(str(folder)) + rf".*: {name} (was changed|is not JSON)"):
        open_bundle(folder)


@pytest.mark.parametrize("name", FILES)
def test_missing_or_cut_file(folder, name):
    with open(folder / name, "r+b") as file:
        file.truncate(60)
    size = (folder / name).stat().st_size
    with pytest.raises(BundleError, match=rf"{name} (has {size} bytes, the manifest says \d+; copy|is not JSON)"):
        open_bundle(folder)
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing; copy the bundle anew or export it again"):
        open_bundle(folder)


def test_changed_byte_names_both_digests(folder):
    model = folder / "model.onnx"
    said = open_bundle(folder).manifest.files["model.onnx"].sha256[:12]
    model.write_bytes(model.read_bytes()[::-1])
    message = f"model.onnx was changed: its sha256 is {digest(model).sha256[:12]}, the manifest says {said}; copy"
    with pytest.raises(BundleError, match=message):
        open_bundle(folder)


def test_not_a_bundle_at_all(tmp_path):
    with pytest.raises(BundleError, match="nowhere: there is no such folder"):
        open_bundle(tmp_path / "nowhere")
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="model.onnx is a file; a bundle is a folder with model.onnx and manifest"):
        open_bundle(tmp_path / "model.onnx")
    with pytest.raises(BundleError, match="manifest.json is missing"):
        open_bundle(tmp_path)
    assert not is_bundle(tmp_path) and not is_bundle(tmp_path / "model.onnx") and not is_bundle(tmp_path / "nowhere")


def test_newer_version(folder):
    body = json.loads((folder / "manifest.json").read_bytes()) | {"schema_version": 7}
    (folder / "manifest.json").write_text(json.dumps(body))
    with pytest.raises(BundleError, match=f"^{folder}: the bundle has schema version 7; .* version 1: upgrade: pip"):
        open_bundle(folder)
    assert is_bundle(folder)


def test_insisting_on_an_id(folder):
    opened = open_bundle(folder)
    assert open_bundle(folder, opened.id[:8]) == open_bundle(folder, opened.id) == opened
    other = "0" * 8
    with pytest.raises(BundleError, match=f"{folder} is the bundle {opened.id[:12]}, not {other}$"):
        open_bundle(folder, other)
    for wrong in ("abc", "not hex!", opened.id + "0"):
        with pytest.raises(UsageError, match=f"bundle id '{wrong}': give 8 to 64 hexadecimal digits"):
            open_bundle(folder, wrong)


def test_files_that_the_manifest_does_not_list(folder):
    (folder / ".DS_Store").write_bytes(b"")
    open_bundle(folder)
    (folder / "samples" / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="'samples/model.onnx' is not in the manifest: move it out of the bundle"):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["model.onnx", "samples"])
def test_links(folder, name):
    shutil.move(folder / name, folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")
    with pytest.raises(BundleError, match=f"'{name}' is a link; a bundle holds plain files only"):
        open_bundle(folder)


def test_special_files(folder):
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(BundleError, match="manifest.json is not a plain file"):
        open_bundle(folder)
    assert not is_bundle(folder)


def test_sizes_are_looked_at_before_reading(folder):
    os.truncate(folder / "manifest.json", 2**40)  # a terabyte of nothing
    with pytest.raises(BundleError, match="manifest.json has 1099511627776 bytes; at most 16777216 are read"):
        open_bundle(folder)
    assert not is_bundle(folder)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "weights.bin", "model.onnx.data"])
@pytest.mark.parametrize("place", ["initializer", "subgraph", "function"])
def test_weights_elsewhere(folder, location, place):
    tensor = onnx.TensorProto(name="w", dims=[4, 4], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    model, constant = graph(), onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "function":
        model.functions.append(onnx.helper.make_function("d", "f", [], ["c"], [constant], []))
    else:
        branch = onnx.helper.make_graph([constant], "then", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["x"], ["z"], then_branch=branch))
    rewrite(folder, **{"model.onnx": model.SerializeToString()})
    with pytest.raises(BundleError, match=f"model.onnx keeps weights in '{location}'; only a model.onnx.data that the"):
        open_bundle(folder)


def test_model_that_is_none(folder):
    rewrite(folder, **{"model.onnx": b"location, but no protobuf"})
    with pytest.raises(BundleError, match="model.onnx is not an ONNX model; export it again"):
        open_bundle(folder)


def test_manifest_without_model(folder):
    files = {"samples/inputs.safetensors": FileDigest(sha256="0" * 64, bytes=0)}
    (folder / "manifest.json").write_bytes(encode(manifest().model_copy(update={"files": files})))
    with pytest.raises(BundleError, match="the manifest lists no model.onnx; export it again"):
        open_bundle(folder)


# ---- outputs that exist


def test_existing_output(folder):
    with pytest.raises(OutputError, match=f"{folder} exists; choose another output folder, or replace it with --force"):
        write(folder)
    assert write(folder, "other.onnx", force=True).manifest.source.name == "other.onnx"
    assert open_bundle(folder).manifest.source.name == "other.onnx"
    assert [path.name for path in folder.parent.iterdir()] == ["small"]


def test_force_replaces_damaged_bundles_empty_folders_and_what_links_lead_to(folder, tmp_path):
    (folder / "model.onnx").write_bytes(b"damaged")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "link", tmp_path / "empty"):
        write(out, force=True)
        open_bundle(out)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("name", ["thesis.tex", ".git/config", "samples/photo.jpg"])
def test_force_deletes_nothing_else(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("dear")
    with pytest.raises(OutputError, match=f"holds '{name}', which is no part of a bundle: --force replaces bundles"):
        write(folder, force=True)
    assert (folder / name).read_text() == "dear"


def test_force_spares_files_and_other_models(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"dear")
    with pytest.raises(OutputError, match="is not a bundle, and --force replaces bundles only; choose another"):
        check_output(tmp_path, force=True)
    with pytest.raises(OutputError, match="model.onnx is a file; name a folder that does not exist yet"):
        check_output(tmp_path / "model.onnx", force=True)
    with pytest.raises(OutputError, match="model.onnx/small cannot be written: Not a directory; nothing was left"):
        write(tmp_path / "model.onnx" / "small")
    assert (tmp_path / "model.onnx").read_bytes() == b"dear"


def test_whatever_else_the_system_says(tmp_path):
    with pytest.raises(OutputError, match="cannot be written: File name too long; nothing was left behind"):
        write(tmp_path / ("x" * 250))
    assert not list(tmp_path.iterdir())
    assert bundles._why(OSError(errno.EDQUOT, "Quota exceeded"), tmp_path).endswith("full; nothing was left behind")
