"""Runtimes: what they compute, and what they say about inputs and models that do not fit."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgetok import devices, runtimes
from edgetok.errors import DeviceError, InputError, MissingPackage, SourceError, UnknownName, UsageError
from edgetok.inputs import check_inputs
from edgetok.lowering import for_runtime
from edgetok.model import TensorSpec

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

INPUTS = (TensorSpec("image", "float32", ("batch", 3, 4)), TensorSpec("ids", "int64", ("batch", "length")))


def feeds(**changed):
    return {"image": np.ones((2, 3, 4), np.float32), "ids": np.ones((2, 5), np.int64)} | changed


def not_finite(value):
    image = np.ones((2, 3, 4), np.float32)
    image[1, 2, 3] = value
    return image


@pytest.fixture
def model(tmp_path):
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[batch, 2] x) => (float[batch, 2] y) { y = Add(x, x) }'
    )
    onnx.save(graph, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


X = (TensorSpec("x", "float32", ("batch", 2)),)


def test_feeds_that_fit():
    check_inputs(feeds(), INPUTS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"imge": np.ones(1)}, "no input 'imge': did you mean 'image'?"),
        ({"quantity": np.ones(1)}, "no input 'quantity': known: ids, image"),
        ({"image": [1.0]}, "input 'image' is a list: give a numpy array of float32"),
        (
            {"image": np.ones((2, 3, 4))},
            "input 'image' is float64, the model takes float32: convert it with .astype('float32')",
        ),
        ({"image": np.ones((3, 4), "f4")}, "input 'image' has shape (3, 4), the model takes (batch, 3, 4)"),
        (
            {"image": np.ones((2, 3, 5), "f4")},
            "input 'image' has shape (2, 3, 5), the model takes (batch, 3, 4)",
        ),
        ({"image": np.ones((0, 3, 4), "f4")}, "input 'image' has shape (0, 3, 4), the model takes (batch, 3, 4)"),
        (
            {"ids": np.ones((3, 5), "i8")},
            "input 'ids' has shape (3, 5), the model takes (batch, length), with batch = 2 as in the inputs before it",
        ),
        (
            {"image": not_finite(np.nan)},
            "input 'image' has NaN or infinite values in sample 1: mend or leave out these",
        ),
        (
            {"image": not_finite(np.inf)},
            "input 'image' has NaN or infinite values in sample 1: mend or leave out these",
        ),
    ],
)
def test_feeds_that_do_not_fit(given, message):
    with pytest.raises((InputError, UnknownName)) as error:
        check_inputs(feeds(**given), INPUTS)
    assert str(error.value) == message


def test_a_feed_that_is_missing():
    with pytest.raises(InputError, match="nothing was given for input 'ids': "):
        check_inputs({"image": np.ones((2, 3, 4), np.float32)}, INPUTS)


def test_names_and_a_misspelt_one():
    assert runtimes.names() == ["eager", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx"]
    with pytest.raises(UnknownName, match="no runtime 'onxruntime': did you mean 'onnxruntime'?"):
        runtimes.load("onxruntime")


@pytest.mark.parametrize("form", [Path, Path.read_bytes])
def test_onnxruntime_runs_a_file_and_bytes(model, form):
    with runtimes.load("onnxruntime")(form(model), X, threads=1) as runtime:
        outputs = runtime.run({"x": np.array([[1, 2]], np.float32)})
        described = runtime.describe()
    assert outputs["y"].tolist() == [[2, 4]]
    assert described["runtime"] == "onnxruntime" and described["threads"] == "1"


def test_the_base_class_checks_before_a_run(model):
    with runtimes.load("onnxruntime")(model, X) as runtime:
        with pytest.raises(UnknownName, match="no input 'z'"):
            runtime.run({"z": np.zeros((1, 2), np.float32)})
        with pytest.raises(InputError, match="has NaN or infinite values in sample 0"):
            runtime.profile({"x": np.full((1, 2), np.nan, np.float32)}, warm_up=0, runs=1)


def test_sessions_print_nothing(model):
    """An initializer that nobody uses makes ONNX Runtime warn on the terminal, unless it is told not to."""
    graph = onnx.load(model)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, np.float32), "unused"))
    onnx.save(graph, model)
    script = (
        "import sys; from pathlib import Path; from edgetok.runtimes.ort import session; session(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, model], cwd=Path(__file__).parent.parent, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_model_that_cannot_be_loaded(model, content):
    model.write_bytes(model.read_bytes()[:-20] if content is None else content)
    with (
        pytest.raises(SourceError, match=r"onnxruntime [\d.]+ cannot load model.onnx: .*"),
        runtimes.load("onnxruntime")(model, X),
    ):
        pass


def test_a_model_that_is_not_there(tmp_path):
    with (
        pytest.raises(SourceError, match="cannot load gone.onnx"),
        runtimes.load("onnxruntime")(tmp_path / "gone.onnx", X),
    ):
        pass


@pytest.mark.parametrize(
    ("package", "runtime", "form", "message"),
    [
        (
            "onnxruntime",
            "onnxruntime",
            Path,
            "running a model on the CPU needs 'onnxruntime': pip install 'onnxruntime'",
        ),
        ("torch", "eager", lambda model: dict, "running the PyTorch original needs 'torch': pip install 'torch'"),
    ],
)
def test_a_package_that_is_not_installed(model, monkeypatch, package, runtime, form, message):
    monkeypatch.setitem(sys.modules, package, None)  # what Python itself does to bar an import
    with pytest.raises(MissingPackage) as error, runtimes.load(runtime)(form(model), X):
        pass
    assert str(error.value) == message


def test_ids_beyond_the_vocabulary(tmp_path):
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (int64[batch] ids) => (float[batch] y) '
        "<float[2] table = {1, 2}> { y = Gather(table, ids) }"
    )
    onnx.save(graph, tmp_path / "model.onnx")
    inputs = (TensorSpec("ids", "int64", ("batch",)),)
    with (
        runtimes.load("onnxruntime")(tmp_path / "model.onnx", inputs) as runtime,
        pytest.raises(InputError, match=r"onnxruntime stopped on these inputs: .*out of data bounds"),
    ):
        runtime.run({"ids": np.array([2])})


def test_threads_are_counted_from_one(model):
    with pytest.raises(UsageError, match="threads=0: give a count of at least 1"):
        runtimes.load("onnxruntime")(model, X, threads=0)


def test_eager_runs_no_file(model):
    with pytest.raises(UsageError, match="the runtime 'eager' runs a captured PyTorch original, not a file"):
        runtimes.load("eager")(model, X).__enter__()


def test_eager_runs_the_original():
    torch = pytest.importorskip("torch")
    module, before = torch.nn.Linear(2, 3), torch.get_num_threads()

    def reference(feeds):
        return {"y": module(torch.from_numpy(feeds["x"])).numpy()}

    with runtimes.load("eager")(reference, X, threads=1) as runtime:
        assert torch.get_num_threads() == 1
        x = np.ones((4, 2), np.float32)
        np.testing.assert_allclose(runtime.run({"x": x})["y"], reference_numpy(module, x), rtol=1e-5)
        assert runtime.profile({"x": x}, warm_up=0, runs=1) == [] and runtime.steps({"x": x}) == ()
    assert torch.get_num_threads() == before


def reference_numpy(module, x):
    return x @ module.weight.detach().numpy().T + module.bias.detach().numpy()


ON_CARD = ("onnxruntime-gpu", "tensorrt", "tensorrt-rtx")


@pytest.mark.parametrize("name", ON_CARD)
def test_what_runs_on_a_card_says_what_is_missing(model, monkeypatch, name):
    """No package, and then no driver: one clear error."""
    monkeypatch.setattr("edgetok.engine.card.LIBRARY", "libnothing.so.1")
    with pytest.raises((MissingPackage, DeviceError)) as caught, runtimes.load(name)(model, X):
        pass
    expected = {
        "onnxruntime-gpu": "running a model on a card by ONNX Runtime needs 'onnxruntime-gpu'",
        "tensorrt": "building a tensorrt engine needs 'tensorrt'",
        "tensorrt-rtx": "no NVIDIA driver on this machine: libnothing.so.1 cannot be loaded; run it on a machine with",
    }
    assert expected[name] in str(caught.value)
    assert name not in runtimes.of_files()


@pytest.mark.parametrize("name", ON_CARD[1:])
def test_no_engine_on_a_processor(name):
    with pytest.raises(DeviceError, match=f"{name} computes on a card that edgetok devices lists: say --on auto"):
        for_runtime(None, name, "a32", devices.load("x86-cpu"))


def test_inputs_are_bound_once(model, monkeypatch):
    """The CUDA provider's way, on the processor's memory: what is bound stays, and outputs are made anew."""
    from edgetok.runtimes import onnxruntime_gpu

    monkeypatch.setattr(onnxruntime_gpu, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(onnxruntime_gpu, "DEVICE", "cpu")
    with runtimes.load("onnxruntime-gpu")(model, X) as runtime:
        run = runtime.prepare({"x": np.array([[1, 2]], np.float32)})
        first, second = run(), run()
        assert runtime.describe()["CUDA graphs"] == "no: the batch is open, export it with --batch"
        other = runtime.run({"x": np.array([[5, 6], [7, 8]], np.float32)})
        steps = runtime.steps({"x": np.array([[3, 4]], np.float32)})
        *_, handed = [step.run() for step in steps]
    assert [step.where for step in steps] == ["host", "copy", "device", "copy"] and handed[0].tolist() == [[6, 8]]
    assert first["y"].tolist() == second["y"].tolist() == [[2, 4]] and first["y"] is not second["y"]
    assert other["y"].tolist() == [[10, 12], [14, 16]]
    with (
        pytest.raises(SourceError, match=r"onnxruntime-gpu [\d.]+ cannot load the model: .*gone.onnx"),
        runtimes.load("onnxruntime-gpu")(model.with_name("gone.onnx"), X),
    ):
        pass


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_no_card_is_no_silent_processor(model, monkeypatch):
    """onnxruntime goes on without a provider that it cannot load, as this wheel cannot load CUDA's."""
    import onnxruntime

    from edgetok.runtimes import onnxruntime_gpu

    monkeypatch.setattr(onnxruntime_gpu, "_onnxruntime", lambda: onnxruntime)
    with (
        pytest.raises(DeviceError, match=r"no NVIDIA driver on this machine: .* or use --runtime onnxruntime"),
        runtimes.load("onnxruntime-gpu")(model, X),
    ):
        pass


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_a_missing_cuda_library_is_named(tmp_path):
    """By the system's loader: that of a provider which wants a library that is not there."""
    from edgetok.runtimes import onnxruntime_gpu

    (tmp_path / "capi").mkdir()
    build = ["gcc", "-shared", "-x", "c", "/dev/null", "-o"]
    subprocess.run([*build, tmp_path / "libcublasLt.so.99", "-Wl,-soname,libcublasLt.so.99"], check=True)
    subprocess.run([*build, tmp_path / "capi/libonnxruntime_providers_shared.so"], check=True)
    needs = ["-Wl,--no-as-needed", f"-L{tmp_path}", "-l:libcublasLt.so.99"]
    subprocess.run([*build, tmp_path / "capi/libonnxruntime_providers_cuda.so", *needs], check=True)
    assert onnxruntime_gpu.obstacle(tmp_path).startswith("libcublasLt.so.99: cannot open shared object file")
