"""Weights of few bits stay packed: what a process holds that loads and runs a bundle."""

import ctypes
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from textwrap import dedent

import numpy as np
import onnx_ir as ir
import pytest
from rich.console import Console

import edgetok
from edgetok import graph as g
from edgetok import native
from edgetok.api import side
from edgetok.bundle import open_bundle
from edgetok.profiling import Effort
from edgetok.render import render
from edgetok.worker import Side, Worker

WIDTH, LAYERS = 2048, 6
IN_FP32 = 4 * LAYERS * WIDTH**2  # bytes: 101 million


def linear(path: Path, width: int = WIDTH, layers: int = LAYERS) -> None:
    """Write an .onnx file: linear layers, one behind the other."""
    rng = np.random.default_rng(0)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", width]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": g.OPSET}, name="layers")
    op, y = g.Emitter(graph), x
    for layer in range(layers):
        y = op.MatMul(y, rng.standard_normal((width, width), np.float32) / np.float32(np.sqrt(width)))
        y.producer().name = f"blocks.{layer}/mlp/MatMul"
        y = op.Tanh(y)
    y.name = "y"
    graph.outputs.append(g.typed(y, ir.DataType.FLOAT, ["batch", width]))
    ir.save(ir.Model(graph, ir_version=g.IR_VERSION), path)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a file, of 101 MB in fp32."""
    path = tmp_path_factory.mktemp("memory") / "layers.onnx"
    linear(path)
    return path


@pytest.fixture(scope="module")
def bundle(source: Path) -> Path:
    """Its bundle, in 4 bits."""
    out = source.parent / "bundle"
    edgetok.export(str(source), out=out, quantize=["int4"], min_cosine=0.5)
    return out


@pytest.mark.parametrize("arithmetic", ["a32", "a8"])
def test_the_kernels_never_expand_the_weights(
    bundle: Path, arithmetic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that loading and running takes is less than the weights alone would in fp32; the report says so."""
    if native.library() is None:
        pytest.skip(native.status().detail)
    monkeypatch.setenv("EDGETOK_CACHE", str(tmp_path))
    effort = Effort(min_seconds=0, max_seconds=0.5, warm_up_seconds=0.5, layer_seconds=0.1)
    report = edgetok.profile(bundle, arithmetic=arithmetic, effort=effort)
    memory = report.model_dump(mode="json")["model"]["memory"]
    assert 0 < memory["peak"] - memory["before_loading"] < IN_FP32
    console = Console(record=True, file=StringIO())
    render(report, console)
    assert re.search(rf"peak memory, MB\W+{memory['peak'] / 1e6:.0f}\W", console.export_text())


def test_int8_products_keep_a_byte_for_each_weight(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MatMulIntegerToFloat: codes as they are stored, and as the kernel packs them."""
    monkeypatch.setenv("EDGETOK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "samples").mkdir()
    for seed in range(64):  # rows, one a sample
        x = np.random.default_rng(seed).standard_normal((1, WIDTH), np.float32)
        np.savez(tmp_path / "samples" / f"{seed:02}.npz", x=x)
    out = edgetok.export(
        str(source), out=tmp_path / "int8", quantize=["int8"], activations="int8", samples=tmp_path / "samples"
    )
    lowered = side(out, out.samples("inputs"))
    with Worker(lowered) as worker:
        worker.sample(3)
        assert 0 < worker.peak_memory() - worker.memory_before < IN_FP32


def test_plain_onnxruntime_does(bundle: Path) -> None:
    """The measurement sees an expanded matrix."""
    opened = open_bundle(bundle)
    plain = Side("plain", bundle / "model.onnx", opened.manifest.inputs, opened.samples("inputs"))
    with Worker(plain) as worker:
        worker.sample(3)
        assert worker.peak_memory() - worker.memory_before > IN_FP32


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="asks glibc")
def test_what_loading_freed_is_given_back(bundle: Path) -> None:
    """Without the C++ operators a matrix is expanded once, and no step on the way to it stays resident."""
    script = f"""
        from pathlib import Path
        import psutil
        from edgetok.runtimes.ort import session
        import onnxruntime
        resident = lambda: psutil.Process().memory_info().rss
        before = resident()
        kept = session(Path({str(bundle / "model.onnx")!r}), plain=True)
        print(resident() - before)
    """
    ran = subprocess.run([sys.executable, "-c", dedent(script)], check=True, capture_output=True, text=True)
    assert int(ran.stdout) < 1.5 * IN_FP32
