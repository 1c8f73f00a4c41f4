"""`edgetok build`: what is made for a device, what is to be done there, and what is refused before it is built."""

import json
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest

import edgetok
from edgetok.api import building
from edgetok.cli import main
from edgetok.errors import OutputError, Refusal, UnknownName
from edgetok.tensorrt.node import ATTRIBUTE_NAMES
from tests.tensorrt import installed

ORIN, DESKTOP = "jetson-orin-nano-jp62", "rtx-4090"
needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None or find_spec("polygraphy") is None, reason="tensorrt-rtx is not installed"
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EDGETOK_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A small ViT in fp16, of a free batch, whose tokens are merged."""
    out = tmp_path_factory.mktemp("bundles") / "vit"
    return edgetok.export("tests.families:wide_vit", out=out, reduce=["tome:r=2"], dtype="fp16").path


@pytest.fixture
def answer(capsys):
    """What a command answers as JSON."""

    def asked(*words):
        code = main([*map(str, words), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return asked


def ways(data):
    return {way["form"]: way for way in data["ways"]}


@needs_rtx
def test_a_desktop_card_gets_an_engine(bundle, tmp_path, answer):
    code, data = answer("build", bundle, "--for", DESKTOP, "-o", tmp_path / "built")
    assert code == 0 and data["device"] == DESKTOP
    made = ways(data)
    assert made["tensorrt-rtx"]["made"] == ["tensorrt-rtx/model.onnx", "tensorrt-rtx/model.engine"]
    assert (tmp_path / "built/tensorrt-rtx/model.engine").stat().st_size > 100_000
    assert made["tensorrt-rtx"]["missing"] is None and made["tensorrt-rtx"]["to_do"] == []
    assert made["tensorrt"]["missing"] == "no engine: tensorrt 11.4.1 builds on the device itself, by timing it"
    told = json.loads((tmp_path / "built/build.json").read_text())
    assert told["bundle"] == data["bundle"] and told["ways"] == data["ways"]
    for form in ("tensorrt", "tensorrt-rtx"):
        model = onnx.load(tmp_path / "built" / form / "model.onnx")
        assert {node.domain for node in model.graph.node} == {""} and not model.functions


def test_orin_gets_graphs_sources_and_commands(bundle, tmp_path, answer):
    """The commands are those for this graph; the plugin library's compiles the sources that came with it."""
    code, data = answer("build", bundle, "--for", ORIN, "-o", tmp_path / "built")
    assert code == 0
    plain = ways(data)["tensorrt"]
    (command,) = map(shlex.split, plain["to_do"])
    assert command[:4] == [
        "/usr/src/tensorrt/bin/trtexec", "--onnx=built/tensorrt/model.onnx",
        "--saveEngine=built/tensorrt/model.engine",
        "--stronglyTyped",
    ]  # fmt: skip
    (name,) = [tensor.name for tensor in onnx.load(bundle / "model.onnx").graph.input]
    assert command[4].startswith(f"--minShapes={name}:1x3x") and command[6].startswith(f"--maxShapes={name}:32x3x")
    if find_spec("triton") is None:
        missing = ways(data)["tensorrt-plugins"]
        assert missing["made"] == [] and "compiling kernels for TensorRT needs 'triton'" in missing["missing"]
        assert not (tmp_path / "built/tensorrt-plugins").exists()


@pytest.mark.more
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_the_librarys_command_compiles_it(tmp_path):
    built = tmp_path / "built"
    (built / "tensorrt-plugins").mkdir(parents=True)
    way = building._with_library_source(building.Way("tensorrt-plugins", "tensorrt 10.3.0"), built, Path("built"))
    (command,) = map(shlex.split, way.to_do)
    headers = [f"-isystem{folder}" for folder in installed.headers()]
    done = subprocess.run([*command, *headers], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (built / "tensorrt-plugins/libedgetok_tensorrt.so").is_file()
    assert "tensorrt-plugins/source/plugin.cpp" in way.made


@pytest.mark.more
def test_kernels_go_along(bundle, tmp_path):
    """Apart, because torch in this process would find Triton; for both forms of plugins."""
    own = installed.environment(Path.cwd(), installed.package("triton==3.9.0"))
    for device, source in ((ORIN, True), (DESKTOP, False)):
        out = tmp_path / device
        command = [sys.executable, "-m", "edgetok", "build", bundle, "--for", device, "-o", out, "--json"]
        done = subprocess.run(command, env=own, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        way = ways(json.loads(done.stdout))["tensorrt-plugins"]
        assert way["plugins"] == {"BipartiteMatch": 4, "MergeTokens": 4}
        assert (out / "tensorrt-plugins/source/plugin.cpp").is_file() == source
        there = "/usr/src/tensorrt/bin/trtexec" if source else f"edgetok build {bundle.name} --for {device}"
        assert way["to_do"][-1].startswith(there)
        if not source:  # in a folder that holds the bundle and this build
            shutil.copytree(bundle, tmp_path / bundle.name)
            words = [sys.executable, "-m", *shlex.split(way["to_do"][-1])]
            again = subprocess.run(words, env=own, cwd=tmp_path, capture_output=True, text=True)
            assert again.returncode == 0, again.stderr
        model = onnx.load(out / "tensorrt-plugins/model.onnx")
        nodes = [node for node in model.graph.node if node.domain]
        assert {node.op_type for node in nodes} == {"BipartiteMatch_nearest", "BipartiteMatch_ranks", "MergeTokens"}
        for node in nodes:
            assert set(ATTRIBUTE_NAMES) < {attribute.name for attribute in node.attribute}
        assert not model.functions


def test_what_has_no_tensorrt_is_refused(bundle, tmp_path):
    with pytest.raises(Refusal, match="nothing is built for x86-cpu: it has no TensorRT; it runs bundles as they are"):
        edgetok.build(bundle, target="x86-cpu", out=tmp_path / "built")
    with pytest.raises(UnknownName, match="no device 'rtx-4900': did you mean 'rtx-4090'"):
        edgetok.build(bundle, target="rtx-4900", out=tmp_path / "built")
    assert list(tmp_path.iterdir()) == []


def test_the_impossible_is_refused_before_anything_is_built(tmp_path, monkeypatch):
    """Weights of 8-bit floats on Orin: with the reason of each form, and what is possible."""
    monkeypatch.setattr("edgetok.engine.build.build", lambda *_: pytest.fail("it builds"))
    path = edgetok.export(
        "tests.families:wide_vit", out=tmp_path / "bundle", quantize=["fp8:skip=head"], dtype="fp16", min_cosine=0.5
    ).path
    with pytest.raises(Refusal) as caught:
        edgetok.build(path, target=ORIN, out=tmp_path / "built")
    told = str(caught.value)
    assert "tensorrt: at node 'blocks.0/" in told and "has no fp8 weights" in told and "--quantize int4" in told
    assert "tensorrt-plugins: " in told
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


def test_nothing_half_written_is_left(bundle, tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "_with_engine", stopped)
    with pytest.raises(KeyboardInterrupt):
        edgetok.build(bundle, target=ORIN, out=tmp_path / "built")
    assert list(tmp_path.iterdir()) == []


def test_only_builds_are_replaced(bundle, tmp_path):
    out = tmp_path / "built"
    edgetok.build(bundle, target=ORIN, out=out)
    with pytest.raises(OutputError, match="built exists; choose another output folder, or replace it with --force"):
        edgetok.build(bundle, target=ORIN, out=out)
    (out / "tensorrt/model.onnx").unlink()
    assert edgetok.build(bundle, target=ORIN, out=out, force=True).path == out
    assert (out / "tensorrt/model.onnx").is_file()
    (out / "build.json").unlink()
    with pytest.raises(OutputError, match="holds no build.json: --force replaces only what this command wrote"):
        edgetok.build(bundle, target=ORIN, out=out, force=True)
    with pytest.raises(OutputError, match="is no folder; name one that does not exist yet"):
        edgetok.build(bundle, target=ORIN, out=bundle / "model.onnx", force=True)


@pytest.mark.more
def test_a_tokenizer_has_two_graphs(tmp_path):
    path = edgetok.export("zoo:photo-fsq", out=tmp_path / "bundle").path
    built = edgetok.build(path, target=DESKTOP, out=tmp_path / "built")
    rtx = next(way for way in built.ways if way.form == "tensorrt-rtx")
    assert {"tensorrt-rtx/encode/model.onnx", "tensorrt-rtx/decode/model.onnx"} <= set(rtx.made)
    assert "is open, and an engine is built for sizes; export it with --size or --length" in rtx.missing
