"""OpenVINO beside ONNX Runtime: the same outputs, the same blocks, bf16 only where the bundle says so."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from edgetok import api, runtimes
from edgetok.api import measuring
from edgetok.api.every_runtime import on_every_runtime
from edgetok.bundle import open_bundle
from edgetok.errors import InputError, SourceError, UsageError
from edgetok.fidelity import compare_outputs
from edgetok.layers import layer_table
from edgetok.report import ProfileReport
from tests.test_cli import edgetok
from tests.test_profiling import FEEDS, INPUTS, TOKENS, transformer

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvino")
    for dtype in ("fp32", "bf16"):
        api.export("zoo:minilm", out=folder / dtype, reduce=["tome:r=4"], length=32, dtype=dtype)
    api.export("zoo:minilm", out=folder / "nvfp4", quantize=["nvfp4"], length=32, min_cosine=0.8)
    return folder


def on(name, path, inputs, feeds):
    with runtimes.load(name)(path, inputs, threads=1) as runtime:
        return runtime.run(feeds), runtime.describe()


@pytest.mark.parametrize("name", ["fp32", "nvfp4"])
def test_the_outputs_are_onnxruntime_s(bundles, name):
    bundle = open_bundle(bundles / name)
    feeds = bundle.samples("inputs")
    wanted, _ = on("onnxruntime", bundle.model_path, bundle.manifest.inputs, feeds)
    got, told = on("openvino", bundle.model_path, bundle.manifest.inputs, feeds)
    assert told["precision"] == "f32" and got.keys() == wanted.keys()
    for output, array in wanted.items():
        np.testing.assert_allclose(got[output], array, rtol=0, atol=1e-4 * np.abs(array).max())


def test_bf16_is_computed_where_the_bundle_has_it(bundles):
    import openvino

    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    bundle = open_bundle(bundles / "bf16")
    got, told = on("openvino", bundle.model_path, bundle.manifest.inputs, bundle.samples("inputs"))
    assert told["precision"] == ("bf16" if able else "f32")
    mask = bundle.samples("inputs")["attention_mask"]
    assert all(each.cosine > 0.99 for each in compare_outputs(got, bundle.samples("expected"), mask))


def test_nodes_are_placed_in_their_blocks(tmp_path):
    path = transformer(tmp_path / "model.onnx", reduce=True)
    with runtimes.load("openvino")(path, INPUTS, threads=1) as runtime:
        runs = runtime.profile(FEEDS, warm_up=1, runs=4)
        assert runtime.run(FEEDS)["y"].shape == (2, TOKENS - 24, 10)
    names = {layer.name for layer in layer_table(runs).layers}
    assert len(runs) == 4 and {"blocks.0", "blocks.1", "blocks.2"} <= names


def test_a_model_with_external_data(tmp_path):
    plain = transformer(tmp_path / "plain.onnx", reduce=True)
    (tmp_path / "apart").mkdir()
    path = tmp_path / "apart" / "model.onnx"
    onnx.save(onnx.load(plain), path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    (wanted, _), (got, _) = (on("openvino", each, INPUTS, FEEDS) for each in (plain, path))
    np.testing.assert_array_equal(got["y"], wanted["y"])


def test_outputs_are_not_overwritten_by_the_next_run(tmp_path):
    path = transformer(tmp_path / "model.onnx", reduce=False)
    with runtimes.load("openvino")(path, INPUTS) as runtime:
        first = runtime.run(FEEDS)["y"]
        kept = first.copy()
        runtime.run({"x": FEEDS["x"] + 1})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_model_that_cannot_be_loaded(tmp_path, content):
    path = transformer(tmp_path / "model.onnx", reduce=False)
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    with (
        pytest.raises(SourceError, match=r"OpenVINO [\d.]+ cannot load model.onnx: ."),
        runtimes.load("openvino")(path, INPUTS),
    ):
        pass


def test_inputs_that_do_not_fit(tmp_path):
    path = transformer(tmp_path / "model.onnx", reduce=False)
    with runtimes.load("openvino")(path, INPUTS) as runtime, pytest.raises(InputError, match="has shape"):
        runtime.run({"x": FEEDS["x"][:, :5]})


def test_every_runtime_in_turns(bundles, tmp_path):
    report = api.profile(bundles / "fp32", all_runtimes=True, out=tmp_path / "report")
    first, second = report.runtimes
    assert first.runtime["runtime"] == "onnxruntime" and first.speedup is None and first.fidelity == ()
    assert second.runtime["runtime"] == "openvino" and second.speedup.claimed
    assert all(each.cosine > 0.9999 for each in second.fidelity) and second.fidelity
    assert ProfileReport.model_validate_json((tmp_path / "report" / "report.json").read_text()) == report
    promised = {each.output: each.cosine for each in report.fidelity}
    for each in (first, second):  # on either, as near to the original as at the export
        assert {found.output: found.cosine for found in each.original} == pytest.approx(promised, abs=1e-5)
    assert report.runtime_why == "the default, which runs every bundle; openvino can be asked for by --runtime"
    page = (tmp_path / "report" / "report.html").read_text()
    assert "On each runtime" in page and report.runtime_why in page


def test_a_runtime_that_does_not_run_it_is_told(bundles, monkeypatch):
    """The others are compared all the same; what ONNX Runtime itself cannot run is an error."""
    bundle, side = open_bundle(bundles / "fp32"), measuring.side
    feeds = measuring.first_sample(bundle)

    def broken(name):
        def made(*given, runtime):
            found = side(*given, runtime=runtime)
            return replace(found, model=found.model.with_name("gone.onnx")) if runtime == name else found

        return made

    monkeypatch.setattr(measuring, "side", broken("openvino"))
    first, second = on_every_runtime(bundle, feeds, None)
    assert first.median > 0 and second.median is None and "OpenVINO" in second.refused and "gone.onnx" in second.refused
    monkeypatch.setattr(measuring, "side", broken("onnxruntime"))
    with pytest.raises(SourceError, match="onnxruntime .* cannot load gone.onnx"):
        on_every_runtime(bundle, feeds, None)


def test_why_a_runtime_was_used():
    assert runtimes.why("openvino") == "as asked for by --runtime; the default is onnxruntime"


def test_what_cannot_be(bundles):
    with pytest.raises(UsageError, match="arithmetic a8 is computed by edgetok's operators for onnxruntime"):
        api.load(bundles / "nvfp4", arithmetic="a8", runtime="openvino")
    with pytest.raises(UsageError, match="'eager' runs captured PyTorch originals; bundles run on onnxruntime and op"):
        api.load(bundles / "fp32", runtime="eager")
    done = edgetok("run", str(bundles / "fp32"), "--runtime", "openvino", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["runtime"] == "openvino"
