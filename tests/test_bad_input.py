"""What users get wrong, through the real command line: one line, the right exit code, and nothing left behind."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgetok import cli
from edgetok.manifest import canonical_json

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of libraries, when a command first loads them

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must fail in an empty folder, twice: for people and with --json."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, code: int, kind: str) -> str:
        words, before = [str(argument) for argument in arguments], tree(tmp_path)
        assert cli.main(words) == code
        shown = capsys.readouterr()
        assert shown.out == "" and shown.err.count("\n") == 1, shown.err
        assert shown.err.startswith("error: ")
        assert cli.main([*words, "--json"]) == code
        error = json.loads(capsys.readouterr().out)["error"]
        assert (error["kind"], error["exit_code"]) == (kind, code)
        assert shown.err == f"error: {error['message']}\n"
        assert tree(tmp_path) == before, "something was left behind"
        return str(error["message"])

    return run


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() if file.is_file() else b"" for file in sorted(folder.rglob("*"))}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bundle of a real text encoder."""
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("bundles") / "texts"
    assert cli.main(["export", "zoo:minilm", "--length", "16", "-o", str(out), "--json"]) == 0
    return out


@pytest.fixture
def bundle(ready: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(ready, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that eats pictures."""
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("bundles") / "pictures"
    assert cli.main(["export", "zoo:dinov2-style-s14", "-o", str(out), "--json"]) == 0
    return out


def adds(path: Path) -> onnx.ModelProto:
    text = """<ir_version: 10, opset_import: ["": 23]> g (float[batch, 4] x) => (float[batch, 4] y) { y = Add(x, w) }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 4), np.float32), "w"))
    onnx.save(model, path)
    return model


@pytest.mark.parametrize("command", [("run",), ("profile",)])
def test_no_bundle(refused: Refused, command: tuple[str, ...]) -> None:
    assert refused(*command, "nowhere", code=1, kind="BundleError") == "nowhere: there is no such folder"


def test_no_source(refused: Refused) -> None:
    told = refused("export", "nowhere.onnx", "-o", "out", code=1, kind="SourceError")
    assert told == "'nowhere.onnx' is missing: there is no such file"
    told = refused("export", "nowhere", "-o", "out", code=1, kind="SourceError")
    assert "neither a file nor a folder; accepted are zoo:NAME, FILE.onnx" in told


def test_missing_input_file(refused: Refused, pictures: Path) -> None:
    told = refused("run", pictures, "--input", "photo.jpg", code=1, kind="InputError")
    assert told == "photo.jpg is missing: there is no such file"


@pytest.mark.parametrize("command", [("export", "-o", "out"), ("inspect",), ("lint", "--for", "x86-cpu")])
def test_truncated_onnx(refused: Refused, ready: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    whole = (ready / "model.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    told = refused(command[0], "cut.onnx", *command[1:], code=1, kind="SourceError")
    assert told.startswith("'cut.onnx' is not an ONNX")


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd"])
@pytest.mark.parametrize("command", [("export", "-o", "out"), ("inspect",)])
def test_external_data_outside_its_folder(
    refused: Refused, tmp_path: Path, location: str, command: tuple[str, ...]
) -> None:
    model = adds(tmp_path / "model.onnx")
    (weights,) = model.graph.initializer
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    told = refused(command[0], "model.onnx", *command[1:], code=1, kind="SourceError")
    assert told == f"tensor 'w' lies in {location!r}, outside the model's folder: it is not read"


def npz(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    """Inputs of the text encoder, some of them replaced."""
    sound = {name: np.ones((1, 16), np.int64) for name in ("input_ids", "attention_mask")}
    return sound | arrays


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        ({"input_ids": np.ones((1, 17), np.int64)}, "has shape (1, 17), the model takes (batch, 16)"),
        ({"input_ids": np.ones(16, np.int64)}, "has shape (16), the model takes (batch, 16)"),
        (
            {"input_ids": np.ones((1, 16), np.float32)},
            "is float32, the model takes int64: convert it with .astype('int64')",
        ),
        ({"input_ids": np.ones((2, 16), np.int64)}, "with batch = 2 as in the inputs before it"),
    ],
)
def test_arrays_that_do_not_fit(
    refused: Refused, ready: Path, tmp_path: Path, spoilt: dict[str, np.ndarray], says: str
) -> None:
    np.savez(tmp_path / "in.npz", **npz(**spoilt))
    assert says in refused("run", ready, "--input", "in.npz", code=1, kind="InputError")


def test_a_misspelt_input(refused: Refused, ready: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", input_idz=np.ones((1, 16), np.int64))
    told = refused("run", ready, "--input", "in.npz", code=2, kind="UnknownName")
    assert told == "no input 'input_idz': did you mean 'input_ids'?"


def test_an_image_that_is_none(refused: Refused, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"no picture at all")
    told = refused("run", pictures, "--input", "photo.png", code=1, kind="InputError")
    assert told.startswith("photo.png")


def test_nan_in_the_inputs(refused: Refused, pictures: Path, tmp_path: Path) -> None:
    image = np.zeros((2, 3, 224, 224), np.float32)
    image[1, 0, 5, 5] = np.nan
    np.savez(tmp_path / "in.npz", input_image=image)
    told = refused("run", pictures, "--input", "in.npz", code=1, kind="InputError")
    assert told == "input 'input_image' has NaN or infinite values in sample 1: mend or leave out these"


@pytest.mark.parametrize(
    ("spec", "kind", "says"),
    [
        ("tome:r=40", "UsageError", "40 tokens cannot go from block 0: it has 64, 1 of them prefix; give at most 31"),
        ("tome:r=4,layers=2-11", "UsageError", "layers=2-11: block 11 does not exist; the model has blocks 0-5"),
        ("tom:r=4", "UnknownName", "no technique 'tom': did you mean 'tome'"),
        ("tome:r=4,layer=2", "UnknownName", "no option of 'tome' 'layer': did you mean 'layers'?"),
        ("tome:r=four", "UsageError", "r='four': accepted is a count such as 16"),
        ("tome", "UsageError", "give exactly one of r=16 (tokens per block), keep=0.5, tokens=64, ratio=0.9 or"),
    ],
)
def test_reductions_that_cannot_be(refused: Refused, spec: str, kind: str, says: str) -> None:
    command = ("export", "zoo:minilm", "--length", 64, "--reduce", spec, "-o", "out")
    assert says in refused(*command, code=2, kind=kind)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("exprot zoo:minilm", "No such command 'exprot'. Did you mean 'export'? see edgetok --help"),
        ("run x --inptu y", "--input"),
        ("export zoo:minilm", "Missing option '-o' / '--out'; see edgetok export --help"),
        ("export zoo:minilm -o out --batch 0", "Invalid value for '--batch'"),
        ("export zoo:minilm -o out --dtype fp61", "dtype 'fp61': accepted are fp32, fp16, bf16"),
        ("export zoo:minilm -o out --emit all", "emit 'all': accepted are full, reduced"),
        (
            "export zoo:minilm -o out --size 0x4",
            "--size '0x4': accepted is one number of pixels, 224, or height x width",
        ),
        ("compare one", "compare takes two or more, bundles or saved profiles: each is set against the last"),
    ],
)
def test_options_that_do_not_exist(refused: Refused, command: str, says: str) -> None:
    assert says in refused(*command.split(), code=2, kind="UsageError")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("export zoo:minilm2 -o out", "no zoo model 'minilm2': did you mean 'minilm'?"),
        ("lint model.onnx --for rtx4090", "no device 'rtx4090': did you mean 'rtx-4090' or 'rtx-5090' or 'rtx-4060'?"),
    ],
)
def test_names_that_do_not_exist(refused: Refused, command: str, says: str) -> None:
    assert refused(*command.split(), code=2, kind="UnknownName") == says


@pytest.mark.parametrize("command", ["run", "profile"])
def test_a_device_that_is_not_this_machine(refused: Refused, ready: Path, command: str) -> None:
    told = refused(command, ready, "--on", "rtx-4090", code=1, kind="DeviceError")
    assert told.startswith("'rtx-4090' is not this machine: this machine is ")
    assert "run it there, or choose one that matches" in told
    told = refused(command, ready, "--on", "rtx-409", code=2, kind="UnknownName")
    assert told == "no device 'rtx-409': did you mean 'rtx-4090' or 'rtx-5090' or 'rtx-4060'?"


@pytest.mark.parametrize("command", ["run", "profile", "inspect"])
def test_a_bundle_from_a_newer_version(refused: Refused, bundle: Path, command: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["schema_version"], manifest["tools"]["edgetok"] = 2, "9.0"
    (bundle / "manifest.json").write_bytes(canonical_json(manifest))
    told = refused(command, bundle, code=1, kind="BundleError")
    assert "the bundle has schema version 2, written by edgetok '9.0'" in told
    assert told.endswith("upgrade: pip install -U edgetok")


@pytest.mark.parametrize("file", ["model.onnx", "manifest.json", "tokenizer.json", "samples/expected.safetensors"])
def test_one_changed_byte(refused: Refused, bundle: Path, file: str) -> None:
    data = bytearray((bundle / file).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / file).write_bytes(data)
    told = refused("run", bundle, code=1, kind="BundleError")
    assert file in told and "export it again" in told


def test_another_bundle_than_the_one_insisted_on(refused: Refused, ready: Path) -> None:
    assert "00000000" in refused("run", ready, "--id", "00000000", code=1, kind="BundleError")
    assert "8 to 64 hexadecimal digits" in refused("run", ready, "--id", "xyz", code=2, kind="UsageError")


def test_an_output_folder_that_exists(refused: Refused, bundle: Path, tmp_path: Path) -> None:
    export = ("export", "zoo:minilm", "--length", 16, "-o")
    told = refused(*export, "bundle", code=1, kind="OutputError")
    assert told.endswith("bundle exists; choose another output folder, or replace it with --force")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    told = refused(*export, "mine", "--force", code=1, kind="OutputError")
    assert "holds 'thesis.txt', which is no part of a bundle: --force replaces bundles only" in told
    assert cli.main([*map(str, export), str(bundle), "--force", "--json"]) == 0


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("outputs.txt", "outputs are written as .npz; name the file outputs.npz"),
        ("nowhere/outputs.npz", "there is no folder nowhere"),
        ("folder.npz", "folder.npz is a folder; name a file"),
    ],
)
def test_outputs_that_cannot_be_written(refused: Refused, ready: Path, tmp_path: Path, out: str, says: str) -> None:
    (tmp_path / "folder.npz").mkdir()
    assert says in refused("run", ready, "-o", out, code=1, kind="OutputError")


def test_samples_that_are_none(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export = ("export", "zoo:minilm", "--length", 16, "-o", "out", "--samples")
    assert "empty holds no files" in refused(*export, "empty", code=1, kind="InputError")
    assert "nowhere is no folder" in refused(*export, "nowhere", code=1, kind="InputError")


def test_too_far_from_the_original(refused: Refused) -> None:
    command = ("export", "zoo:minilm", "--length", 64, "--reduce", "tome:r=20", "--min-cosine", 0.99, "-o", "out")
    assert "0.99" in refused(*command, code=1, kind="ParityError")


def test_the_traceback_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "nowhere", "--verbose"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback") and told.endswith("error: nowhere: there is no such folder\n")


def command_line(*arguments: str, cwd: Path, **more: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "edgetok", *arguments], cwd=cwd, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}, **more,
    )  # type: ignore[call-overload]  # fmt: skip


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_in_the_middle(tmp_path: Path, as_json: bool) -> None:
    pytest.importorskip("torch")
    (tmp_path / "slow.py").write_text(
        "import sys, threading\n"
        "def model():\n"
        "    print('building', file=sys.stderr, flush=True)\n"
        "    threading.Event().wait()\n"
    )

    def heeds() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it

    given = ("export", "slow:model", "-o", "out", *["--json"] * as_json)
    with command_line(*given, cwd=tmp_path, preexec_fn=heeds) as process:
        assert process.stderr is not None and process.stderr.readline() == "building\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130
    if as_json:
        error = {"kind": "KeyboardInterrupt", "message": "interrupted", "exit_code": 130}
        assert json.loads(out) == {"error": error} and err == ""
    else:
        assert (out, err) == ("", "error: interrupted\n")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["slow.py"]


def test_a_full_disk(ready: Path, tmp_path: Path) -> None:
    """No file may grow beyond a thousand bytes, which ends a write as a full disk does: in its middle."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    with command_line("run", str(ready), "-o", "out.npz", cwd=tmp_path, preexec_fn=limit) as process:
        out, err = process.communicate()
    assert process.returncode == 1 and out == ""
    assert err == "error: out.npz cannot be written: File too large; nothing was left behind\n"
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_cannot_be_printed() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgetok", "devices"], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: [Errno 28] No space left on device")
