"""Engines: the real TensorRT-RTX builds them, once however many ask, whole or not at all."""

import os
import re
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import numpy_helper

from edgetok.engine import build as engines
from edgetok.engine import card, layers
from edgetok.engine.order import Order, order
from edgetok.errors import BuildError, DeviceError, MissingPackage, OutputError, Refusal, UsageError
from edgetok.model import TensorSpec

pytestmark = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None or find_spec("polygraphy") is None, reason="tensorrt-rtx is not installed"
)
ROOT = Path(__file__).parent.parent
X = (TensorSpec("x", "float16", ("batch", 256)),)
ASK = """
import sys
from pathlib import Path
from edgetok.engine import build, order
from edgetok.model import TensorSpec
size = int(sys.argv[2])
asked = order.order(Path(sys.argv[1]), "tensorrt-rtx", "8.6", [TensorSpec("x", "float16", ("batch", size))])
print(build.build(asked, lambda text, share: print(text, flush=True)))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGETOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def written(folder: Path, body: str = "y = MatMul(x, w)", size: int = 256, layers: int = 1) -> Path:
    """A model of one input (batch, size) in fp16, and of a weight."""
    if layers > 1:
        steps = [f"h{i} = MatMul({f'h{i - 1}' if i else 'x'}, w)" for i in range(layers)]
        body = " ".join([*steps, f"y = Relu(h{layers - 1})"])
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 23, "edgetok": 1]> '
        f"g (float16[batch, {size}] x) => (float16[batch, {size}] y) {{ {body} }}"
    )
    for node in model.graph.node:
        node.name = f"blocks.0/{node.op_type}"
    weight = np.random.default_rng(0).standard_normal((size, size)).astype(np.float16)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def asked(folder: Path, **changed) -> Order:
    return replace(order(written(folder), "tensorrt-rtx", "8.6", X, batch=(1, 2, 4)), **changed)


def asking(model: Path, size: int = 256) -> subprocess.Popen[str]:
    """Another process that wants this engine, and prints what it is told."""
    path = os.pathsep.join(filter(None, [str(ROOT), *sys.path]))
    return subprocess.Popen(
        [sys.executable, "-c", ASK, str(model), str(size)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def kept(cache: Path) -> list[Path]:
    """Everything in the cache but the locks."""
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_an_engine_is_built_once(tmp_path, cache):
    told = []
    engine = engines.build(asked(tmp_path), lambda text, share: told.append((text, share)))
    assert engine.stat().st_size > 256 * 256 * 2  # it holds the weights
    assert told[0][0].startswith("building: may take 0.2 GB of ") and told[1][0] == "parsing"
    assert all(0 <= share <= 1 for _, share in told)
    assert engines.build(asked(tmp_path), lambda *_: pytest.fail("it is there")) == engine
    assert kept(cache) == [engine]


def test_another_order_is_another_engine(tmp_path):
    own = asked(tmp_path)
    keys = {own.key(), replace(own, capability="8.9").key(), replace(own, card="NVIDIA L4").key()}
    keys.add(order(own.model, "tensorrt-rtx", "8.6", X, batch=(1, 2, 8)).key())
    library = tmp_path / "library.so"
    library.write_bytes(b"1")
    keys.add(replace(own, library=library).key())
    library.write_bytes(b"2")
    keys.add(replace(own, library=library).key())
    written(tmp_path, "y = Relu(x)")
    keys.add(own.key())
    (tmp_path / "model.onnx.data").write_bytes(b"weights")
    keys.add(own.key())
    assert len(keys) == 8


def test_another_version_is_another_engine(tmp_path, monkeypatch):
    own = asked(tmp_path)
    before = own.key()
    monkeypatch.setattr("edgetok.engine.order.version", lambda package: "1.8.0")
    assert own.key() != before


def test_eight_processes_make_one_build(tmp_path, cache):
    model = written(tmp_path, size=1024, layers=8)
    processes = [asking(model, 1024) for _ in range(8)]
    told = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, told
    assert sum("parsing" in lines for lines in told) == 1
    assert len({lines[-1] for lines in told}) == 1
    assert kept(cache) == [Path(told[0][-1])]


@pytest.mark.parametrize("who", ["asker", "builder"])
def test_a_killed_build_leaves_no_engine(tmp_path, cache, who):
    """kill -9 in the middle, of the process that asks or of the one that builds; the next call builds."""
    model = written(tmp_path, size=4096, layers=4)
    process = asking(model, 4096)
    assert process.stdout is not None
    while "Building engine" not in process.stdout.readline():
        assert process.poll() is None
    (builder,) = psutil.Process(process.pid).children()
    os.kill(process.pid if who == "asker" else builder.pid, signal.SIGKILL)
    told = process.communicate(timeout=60)[0]
    if who == "builder":
        assert "BuildError" in told and "was ended by signal 9" in told and "where memory runs out" in told
    psutil.wait_procs([builder], timeout=10)
    assert not builder.is_running()
    folders = [path for path in cache.glob("engines/*/*") if path.is_dir() and not path.name.startswith(".")]
    assert folders == []
    again = asking(model, 4096)
    told = again.communicate(timeout=120)[0]
    assert again.returncode == 0 and "parsing" in told, told
    assert kept(cache) == [Path(told.splitlines()[-1])]  # what the killed one left is gone


def test_what_the_parser_does_not_take(tmp_path, cache):
    """Its own words, and our name of the node."""
    model = written(tmp_path, "u = Relu(x) y = Unheard(u)")
    with pytest.raises(Refusal) as caught:
        engines.build(order(model, "tensorrt-rtx", "8.6", X))
    told = str(caught.value)
    assert caught.value.node == "blocks.0/Unheard"
    assert "tensorrt-rtx 1.7.1" in told and "does not take Unheard" in told and "Plugin not found" in told
    assert "edgetok lint" in told and kept(cache) == []


def test_what_the_builder_does_not_build(tmp_path, cache):
    eight = "q = QuantizeLinear <output_dtype = 17> (x, s) d = DequantizeLinear(q, s) y = MatMul(d, w)"
    model = written(tmp_path, f"s = Constant <value = float16 {{1}}> () {eight}")
    with pytest.raises(BuildError, match=r"tensorrt-rtx [\d.]+ builds no engine of model.onnx for 8.6: .*fp8_e4m3"):
        engines.build(order(model, "tensorrt-rtx", "8.6", X))
    assert kept(cache) == []


def test_a_disk_that_is_full(tmp_path, cache):
    """A limit on the size of files stands in for it: the engine is built, and cannot be written."""
    wanted = asked(tmp_path)
    usual, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, most))
    try:
        with pytest.raises(OutputError, match="cannot be written to the cache, .*: File too large; make room there"):
            engines.build(wanted)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (usual, most))
    assert kept(cache) == []


def test_a_build_that_takes_too_long(tmp_path, cache):
    with pytest.raises(BuildError, match=r"was not done after 0.01 s: give it more time"):
        engines.build(asked(tmp_path), timeout=0.01)
    assert kept(cache) == []


def test_impossible_orders_are_refused(tmp_path):
    model = written(tmp_path)
    with pytest.raises(Refusal, match=r"for no compute capability 8.7: it knows 7.5, 8.0, .*; use TensorRT there"):
        order(model, "tensorrt-rtx", "8.7", X)
    with pytest.raises(Refusal, match="axis 1 of the input 'x', 'length', is open"):
        order(model, "tensorrt-rtx", "8.6", [TensorSpec("x", "float16", ("batch", "length"))])
    with pytest.raises(UsageError, match=r"batch \(2, 1, 4\): give the least"):
        order(model, "tensorrt-rtx", "8.6", X, batch=(2, 1, 4))
    with pytest.raises(Refusal, match="takes no plugins, and model.onnx has nodes of MergeTokens"):
        order(written(tmp_path, "y = edgetok.MergeTokens(x)"), "tensorrt-rtx", "8.6", X)


def test_packages_that_are_not_there(tmp_path, monkeypatch):
    own = asked(tmp_path)
    with pytest.raises(MissingPackage, match="building a tensorrt engine needs 'tensorrt'"):
        engines.build(replace(own, builder="tensorrt"))
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="building a tensorrt-rtx engine needs"):
        engines.build(own)


# As TensorRT 10's inspector lists layers, by NVIDIA's documentation and by listings of others; written by hand.
PLUGIN = {
    "Name": "blocks.0/reduce/MergeTokens", "LayerType": "PluginV3", "PluginType": "MergeTokens",
    "Inputs": [{"Name": "x", "Dimensions": [1, 256], "Format/Datatype": "Half"}],
    "Outputs": [{"Name": "m", "Dimensions": [1, 256], "Format/Datatype": "Half"}],
    "Metadata": "[ONNX Layer: blocks.0/reduce/MergeTokens]",
}  # fmt: skip
GEMM = {
    "Name": "__myl_Fc_myl0_3", "LayerType": "gemm", "TacticName": "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n",
    "Inputs": [{"Name": "m", "Format/Datatype": "N/A due to dynamic shapes"}],
    "Metadata": "[ONNX Layer: blocks.0/MatMul]\x1e[ONNX Layer: blocks.0/Add]",
}  # fmt: skip


def read(spelling: str, **more: object) -> dict[str, object]:
    """A layer that reads such a tensor."""
    return {"Name": "fc", "LayerType": "CaskGemmMatrixMultiply", "Inputs": [{"Format/Datatype": spelling}], **more}


def with_weights(folder: Path, kind: int) -> Path:
    """A model with weights of that type, and a plugin node."""
    model = written(folder, "m = edgetok.MergeTokens(x) y = MatMul(m, w)")
    graph = onnx.load(model)
    graph.graph.node[0].name = "blocks.0/reduce/MergeTokens"
    graph.graph.initializer[0].data_type = kind
    onnx.save(graph, model)
    return model


@pytest.mark.parametrize(
    ("kind", "there", "not_there"),
    [
        ("FLOAT16", [GEMM], [read("Row major linear BF16 format (kLINEAR)", TacticName="sm80_xmma_gemm_bf16bf16")]),
        ("FLOAT16", [read("Half(64,1:8,...)")], [read("Float", TacticName="sm80_xmma_gemm_f32f32_tf32f32_f32")]),
        ("FLOAT16", [read("Row major linear FP16 format (kLINEAR)")], [read("N/A due to dynamic shapes")]),
        ("BFLOAT16", [read("BFloat16")], [GEMM]),
        ("INT8", [read("Half", TacticName="sm80_xmma_gemm_i8i8_i8i32_f32_tn")], [read("UInt8"), GEMM]),
        ("INT8", [{"Name": "conv", "LayerType": "CaskConvolution", "Weights": {"Type": "Int8"}}], [read("Int32")]),
        ("FLOAT8E4M3FN", [read("Row major linear FP8 format (kLINEAR)")], [read("Int8"), GEMM]),
        ("FLOAT8E4M3FN", [read("Half", TacticName="sm89_xmma_gemm_e4m3e4m3_e4m3f32_f32_tn")], [GEMM]),
    ],
)
def test_an_engine_computes_with_what_was_asked_for(tmp_path, kind, there, not_there):
    """Of what the inspector lists, which needs a card."""
    model = with_weights(tmp_path, onnx.TensorProto.DataType.Value(kind))
    plugin = {**PLUGIN, "Inputs": [], "Outputs": []}
    layers.check([plugin, *there], model)
    with pytest.raises(BuildError, match="its weights are .*, and no layer of the engine computes or reads"):
        layers.check([plugin, *not_there], model)


def test_an_engine_has_its_plugins(tmp_path):
    model = with_weights(tmp_path, onnx.TensorProto.FLOAT16)
    layers.check([PLUGIN, GEMM], model)
    layers.check([{**PLUGIN, "Name": "{ForeignNode[...]}"}, GEMM], model)  # which is in its metadata
    other = {**PLUGIN, "Name": "blocks.0/reduce/MergeTokens_2", "Metadata": ""}
    for listed in ([GEMM], [other, GEMM]):
        with pytest.raises(BuildError, match="1 plugin nodes are not in it, such as 'blocks.0/reduce/MergeTokens'"):
            layers.check(listed, model)


def test_a_machine_without_a_card(monkeypatch):
    monkeypatch.setattr(card, "LIBRARY", "libnothing.so.1")
    with pytest.raises(DeviceError, match=r"no NVIDIA driver on this machine: libnothing.so.1 cannot be loaded"):
        card.here()


def test_a_driver_is_asked_for_its_card(tmp_path, monkeypatch):
    """A library that answers as NVIDIA's driver would; one whose cuInit fails."""
    source = """
        #include <string.h>
        int cuInit(unsigned flags) { return STATUS; }
        int cuDeviceGet(int *device, int at) { *device = 3; return at != 0; }
        int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "A card", length); return device != 3; }
        int cuDeviceGetAttribute(int *value, int what, int device) { *value = what == 75 ? 8 : 6; return device != 3; }
    """
    for status, says in ((0, None), (100, "gives no card (CUDA error 100)")):
        library = tmp_path / f"driver{status}.so"
        command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", f"-DSTATUS={status}", "-o", library]
        subprocess.run(command, input=source, text=True, check=True)
        monkeypatch.setattr(card, "LIBRARY", str(library))
        if says is None:
            assert card.here() == card.Card("A card", "8.6")
        else:
            with pytest.raises(DeviceError, match=re.escape(says)):
                card.here()
