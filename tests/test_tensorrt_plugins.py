"""TensorRT plugins without TensorRT: NVIDIA's own validation and launch arithmetic, its registry, and the C++ form.

What a plugin launches is KeepTokens in Triton (tests/tensorrt/keep_tokens.py), compiled for sm_80 and newer.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgetok import devices
from edgetok import graph as g
from edgetok.api import plugins as api
from edgetok.errors import EdgetokError, InputError, Refusal, UsageError
from edgetok.lowering import plugins as lowering
from edgetok.plugins import add_functions
from edgetok.tensorrt import library
from edgetok.tensorrt.node import ATTRIBUTE_NAMES, PluginNode, without_scratch
from edgetok.tensorrt.term import evaluate, line, size
from tests.tensorrt import installed

PTX = (installed.HERE / "keep_tokens.ptx").read_text()
DEVICES = {device.name: device for device in devices.load_all()}
ORIN, DESKTOP = DEVICES["jetson-orin-nano-jp62"], DEVICES["rtx-4090"]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


def keep_tokens(x: tuple, order: tuple, kind: str = "float") -> PluginNode:
    """The kernel's launch for these sizes."""
    (batch, count, width), kept = x, order[1]
    result = (kind, (batch, kept, width))
    return PluginNode.of(
        "keep_tokens", PTX, (kept, batch), 128, 0, (count, kept, width), (kind, "int64"), (result,)
    )


NODE = keep_tokens(tuple(size(0, axis) for axis in range(3)), tuple(size(1, axis) for axis in range(2)))


def kernel_of(node: ir.Node, sm: str) -> lowering.Plan | None:
    """KeepTokens alone has a kernel here."""
    if node.op_type != "KeepTokens":
        return None
    shapes = [
        [size(at, axis) if axis == 0 else length for axis, length in enumerate(value.shape)]
        for at, value in enumerate(node.inputs)
    ]
    launch = keep_tokens(*shapes)
    return lowering.Plan((lowering.Step("KeepTokens", launch, (0, 1), (2,)),), (2,))


def model() -> ir.Model:
    """KeepTokens of a free batch."""
    x = ir.Value(name="x", shape=ir.Shape(["batch", 31, 8]), type=ir.TensorType(ir.DataType.FLOAT))
    index = ir.Value(name="index", shape=ir.Shape(["batch", 12]), type=ir.TensorType(ir.DataType.INT64))
    graph = ir.Graph([x, index], [], nodes=[], opset_imports={"": g.OPSET, "edgetok": 1}, name="one")
    kept = g.Emitter(graph).KeepTokens(x, index, domain="edgetok")
    graph.outputs.append(g.Emitter(graph).Identity(kept))
    made = ir.Model(graph, ir_version=g.IR_VERSION)
    add_functions(made)
    return made


@pytest.mark.parametrize(
    "version",
    [
        "11.4.0.106",
        *(pytest.param(older, marks=pytest.mark.more) for older in ("10.9.0.34", "10.13.3.9", "10.16.1.11")),
    ],
)
def test_nvidia_takes_the_plugin_and_computes_its_launch(version: str) -> None:
    shapes = [[[3, 31, 8], [3, 12]], [[1, 197, 384], [1, 197]], [[2, 9, 4], [2, 0]]]
    nodes = [
        {"operator": "KeepTokens", "attributes": NODE.attributes(), "types": ["float", "int64"], "shapes": pair}
        for pair in shapes
    ]
    text = json.dumps(nodes)
    script = [sys.executable, "-W", "ignore", str(installed.HERE / "bindings.py")]
    done = subprocess.run(script, input=text, env=installed.bindings(version), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["version"] == version
    for ((batch, count, width), (_, kept)), got in zip(shapes, told["nodes"], strict=True):
        assert got["fields"] == list(ATTRIBUTE_NAMES)  # the order in which aot_impl gets them
        assert got["outputs"] == [["float", [batch, kept, width]]]
        assert got["combination"] == ["float", "int64", "float"]
        block = {"block_x": 128, "block_y": 1, "block_z": 1, "shared_mem": 0}
        assert got["launch"] == {"grid_x": kept, "grid_y": batch, "grid_z": 1, **block}
        assert got["scalars"] == [count, kept, width]
        assert (got["kernel"], got["ptx"]) == ("keep_tokens", PTX)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, as the command builds it."""
    headers = [word for folder in installed.headers() for word in ("--headers", str(folder))]
    folder = tmp_path_factory.mktemp("library")
    command = [sys.executable, "-m", "edgetok", "build-plugins", "-o", str(folder), *headers, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(json.loads(done.stdout)["library"])


@needs_compiler
def test_the_library_registers_with_nvidias_registry(built: Path) -> None:
    good = {name: NODE.attributes()[name] for name in ATTRIBUTE_NAMES}
    wrong = {
        "kernel": "another", "ptx": "", "grid": "1, 1", "block": "1025", "shared": "49153",
        "inputs": "complex", "results": "float 1",
    }  # fmt: skip
    given = [good, *({**good, name: text} for name, text in wrong.items()), {**good, "block": 128}, {}]
    command = [sys.executable, str(installed.HERE / "registry.py"), str(built), "KeepTokens"]
    done = subprocess.run(command, input=json.dumps(given), env=installed.registry(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert {"BipartiteMatch", "KeepTokens", "LutMatMul", "MergeTokens"} <= set(told["creators"])
    assert told["fields"] == list(ATTRIBUTE_NAMES) and told["stranger"]
    assert told["plugins"] == [["KeepTokens", "edgetok", 1], *[None] * (len(given) - 1)]
    for name, text in wrong.items():
        assert f"edgetok::KeepTokens: {name}" in done.stderr or text in done.stderr


@needs_compiler
def test_the_library_launches_what_the_node_says(tmp_path: Path) -> None:
    folders = [f"-isystem{folder}" for folder in installed.headers()]
    program, driver = tmp_path / "harness", tmp_path / "libcuda.so.1"
    sources = [installed.HERE / "harness.cpp", *sorted(library.SOURCES.glob("*.cpp"))]
    flags = ["-std=c++17", "-Wno-deprecated-declarations", '-DEDGETOK_OPERATORS="KeepTokens"', f"-I{library.SOURCES}"]
    subprocess.run(["g++", *flags, *folders, *map(str, sources), "-o", program, "-ldl"], check=True)
    attributes = [f"{name}={text}" for name, text in NODE.attributes().items()]
    without = subprocess.run([program, *attributes], capture_output=True, text=True)
    assert without.stdout.endswith("enqueue -1\n" * 3) and "libcuda.so.1 was not found" in without.stderr
    subprocess.run(["gcc", "-shared", "-fPIC", installed.HERE / "stub_driver.c", "-o", driver], check=True)
    own = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([program, *attributes], env=own, capture_output=True, text=True)
    launch = "0 bytes, stream 0x40: 0x10 0x20 31 12 8 0x30"
    assert done.stdout.split("\n") == [
        "types 0 0", "shapes 0: 3 12 8", "formats 1 1 1 0",
        "function keep_tokens",
        f"launch 12 3 1, 128 1 1, {launch}", "enqueue 0",
        f"launch 12 5 1, 128 1 1, {launch}", "enqueue 0", "enqueue 0", "unloaded", "",
    ]  # fmt: skip


def test_a_bundle_gets_plugin_nodes() -> None:
    lowered = model()
    assert lowering.lower(lowered, ORIN, kernel_of) == {"KeepTokens": 1}
    node = next(node for node in lowered.graph if node.op_type == "KeepTokens")
    assert lowered.graph.outputs[0].producer().inputs[0].producer() is node
    written = {name: attribute.value for name, attribute in node.attributes.items()}
    assert written["plugin_namespace"] == "edgetok" and written["plugin_version"] == "1"
    assert written["grid"] == "12, 0.0, 1" and written["scalars"] == "31, 12, 8"  # only the batch is left open
    assert written["results"] == "float: 0.0, 12, 8" and not lowered.functions
    assert list(written)[: len(ATTRIBUTE_NAMES)] == list(ATTRIBUTE_NAMES)


def test_what_a_plugin_gives_out_tells_the_shapes_behind_it() -> None:
    """Nothing is known of the first operator's result until it is a plugin; the batch keeps its name."""
    lowered = model()
    (first,) = [node for node in lowered.graph if node.op_type == "KeepTokens"]
    first.op_type = "Hidden"
    op = g.Emitter(lowered.graph)
    kept = op.KeepTokens(op.Relu(lowered.graph.outputs[0]), lowered.graph.inputs[1], domain="edgetok")
    lowered.graph.outputs.append(kept)

    def kernel(node: ir.Node, sm: str) -> lowering.Plan | None:
        if any(value is None or value.shape is None for value in node.inputs):
            return None
        launch = keep_tokens(*([size(at, 0), *value.shape[1:]] for at, value in enumerate(node.inputs)))
        return lowering.Plan((lowering.Step(node.op_type, launch, (0, 1), (2,)),), (2,))

    assert lowering.lower(lowered, ORIN, kernel) == {"Hidden": 1, "KeepTokens": 1}
    assert [str(value.shape) for value in lowered.graph.outputs] == ["[batch,12,8]"] * 2


def test_real_kernels_become_nodes() -> None:
    """Apart: torch in this process would find Triton too, once it was imported here."""
    if find_spec("triton") is None:
        own = installed.environment(Path.cwd(), installed.package("triton==3.9.0"))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}", "-k", "with_triton"]
        done = subprocess.run(command, env=own | {"TRITON_DEFAULT_FP_FUSION": "1"}, capture_output=True, text=True)
        assert done.returncode == 0 and "6 passed" in done.stdout, done.stdout


def one(operator: str, inputs: dict[str, tuple[ir.DataType, list[int | str]]], **attributes: int | float) -> ir.Model:
    """A graph of one operator, with its function."""
    values = [ir.Value(name=n, shape=ir.Shape(s), type=ir.TensorType(kind)) for n, (kind, s) in inputs.items()]
    graph = ir.Graph(values, [], nodes=[], opset_imports={"": g.OPSET, "edgetok": 1}, name="one")
    outputs = 3 if operator == "BipartiteMatch" else 1
    made = getattr(g.Emitter(graph), operator)(*values, outputs=outputs, domain="edgetok", **attributes)
    graph.outputs.extend(made if outputs > 1 else [made])
    model = ir.Model(graph, ir_version=g.IR_VERSION)
    add_functions(model)
    return model


def matching(kind: ir.DataType = ir.DataType.FLOAT) -> ir.Model:
    shapes = {"a": ["batch", 98, 64], "b": ["batch", 99, 64], "bias_a": [1, 98], "bias_b": ["batch", 99]}
    return one("BipartiteMatch", {name: (kind, shape) for name, shape in shapes.items()})


def product(x: list[int | str]) -> ir.Model:
    kinds = {"codes": (ir.DataType.UINT8, [48, 32]), "codebook": (ir.DataType.FLOAT, [1, 1, 16])}
    inputs = {"x": (ir.DataType.FLOAT, x), **kinds, "scales": (ir.DataType.FLOAT, [48, 4, 1])}
    return one("LutMatMul", inputs, bits=4, inner=64)


@pytest.mark.skipif(find_spec("triton") is None, reason="test_real_kernels_become_nodes runs it")
def test_several_launches_of_a_free_batch_with_triton() -> None:
    from edgetok.plugins import gpu

    made = matching()
    sizes = {
        value.name: tuple(length if isinstance(length, int) else 7 for length in value.shape)
        for value in made.graph.inputs
    }
    assert lowering.lower(made, ORIN, api.kernel_of) == {"BipartiteMatch": 1}
    assert {node.op_type for node in made.graph} <= set(api.operators())
    launches, outputs = gpu.load("bipartite_match").launches(*(torch.empty(shape) for shape in sizes.values()))
    for node, launch in zip(made.graph, launches, strict=True):
        written = PluginNode(**{name: node.attributes[name].value for name in ATTRIBUTE_NAMES})
        given = [sizes.get(value.name, (7, 98)) for value in node.inputs]
        grid, scalars = ([evaluate(term, given) for term in terms] for terms in written.terms())
        assert grid == [*launch.grid, 1] and scalars == [v for v in launch.arguments.values() if isinstance(v, int)]
        assert ".target sm_87" in written.ptx and ".file" not in written.ptx
    results = [[evaluate(term, given) for term in shape] for _, shape in written.outputs()]
    assert results == [list(output.shape) for output in outputs]


@pytest.mark.skipif(find_spec("triton") is None, reason="test_real_kernels_become_nodes runs it")
def test_a_grid_that_grows_in_steps_keeps_its_body_with_triton() -> None:
    """Tiles of 64 rows over 197 rows a sample: ceil(197 B / 64) is a line over B = 2, 3 and 5, and is none."""
    for rows in (["batch", 64], ["batch", 197, 64]):
        with pytest.raises(Refusal, match="no operator of this graph has a kernel"):
            lowering.lower(product(rows), ORIN, api.kernel_of)
    assert lowering.lower(product([4, 197, 64]), ORIN, api.kernel_of) == {"LutMatMul": 1}
    fits = product(["batch", 64, 64])  # whole tiles in every sample
    assert lowering.lower(fits, ORIN, api.kernel_of) == {"LutMatMul": 1}
    (node,) = fits.graph
    assert node.attributes["grid"].value == "1, 0.0, 1" and node.attributes["results"].value == "float: 0.0, 64, 48"


@pytest.mark.skipif(find_spec("triton") is None, reason="test_real_kernels_become_nodes runs it")
def test_types_and_sizes_that_plugins_do_not_take_keep_their_body_with_triton() -> None:
    for made in (matching(ir.DataType.DOUBLE), product(["batch", "tokens", 64])):
        with pytest.raises(Refusal, match="no operator of this graph has a kernel"):
            lowering.lower(made, ORIN, api.kernel_of)


@pytest.mark.skipif(find_spec("triton") is None, reason="test_real_kernels_become_nodes runs it")
def test_the_library_has_every_node_with_triton() -> None:
    """That of FarthestPoints among them, whose second kernel is GreedySelect's."""
    kinds = {"x": [2, 40, 32], "weight": [1, 1], "bias": [1, 1]}
    made = one("FarthestPoints", {name: (ir.DataType.FLOAT, shape) for name, shape in kinds.items()})
    count = g.constant(made.graph, np.array([6]))
    farthest = next(node for node in made.graph if node.op_type == "FarthestPoints")
    farthest.resize_inputs(4)
    farthest.replace_input_with(3, count)
    assert lowering.lower(made, ORIN, api.kernel_of) == {"FarthestPoints": 1}
    assert [node.op_type for node in made.graph] == ["FarthestPoints_distances", "GreedySelect_select"]
    assert {node.op_type for node in made.graph} <= set(api.operators())


def attending(operator: str, **attributes: int | float) -> ir.Model:
    """Sparse attention of 3 heads over 197 tokens, lists per head, in a free batch; attributes in no order of note."""
    rows = -(-197 // int(attributes["block_q"]))
    tokens = (ir.DataType.FLOAT16, ["batch", 3, 197, 64])
    lists = {"i": (ir.DataType.INT32, ["batch", 3, rows, 2]), "c": (ir.DataType.INT32, ["batch", 3, rows])}
    bias = {"bias": (ir.DataType.FLOAT, ["batch", 197])}
    return one(operator, {"q": tokens, "k": tokens, "v": tokens, **lists, **bias}, **attributes)


@pytest.mark.skipif(find_spec("triton") is None, reason="test_real_kernels_become_nodes runs it")
@pytest.mark.parametrize("operator", ["BlockSparseAttention", "TokenSparseAttention"])
def test_a_fraction_is_passed_by_its_bits_with_triton(operator: str) -> None:
    """The scale, times log2(e), where the kernel's PTX takes an fp32: TensorRT has scalars of int32 only."""
    given = {"scale": 0.125, "causal": 0, "block_q": 64}
    if operator == "BlockSparseAttention":
        given |= {"pinned": 0, "window": -1, "block_k": 64}
    made = attending(operator, **given)
    assert lowering.lower(made, ORIN, api.kernel_of) == {operator: 1}
    (node,) = made.graph
    written = PluginNode(**{name: node.attributes[name].value for name in ATTRIBUTE_NAMES})
    grid, scalars = ([evaluate(term, [(7, 3, 197, 64)] * 6) for term in terms] for terms in written.terms())
    assert grid == [4, 21, 1] and written.results == "half: 0.0, 3, 197, 64"
    entry = written.ptx.partition(".entry")[2].partition(")")[0]
    kinds = [line.split()[1] for line in entry.splitlines() if ".param" in line]
    fractions = [scalar for scalar, kind in zip(scalars, kinds[6:-1], strict=True) if kind == ".f32"]
    assert np.array(fractions, np.int32).view(np.float32) == pytest.approx([0.125 * np.log2(np.e)])
    assert all(kind == ".u32" for kind in kinds[6:-1] if kind != ".f32")


def test_devices_that_take_no_plugins_are_refused() -> None:
    assert (lowering.form(ORIN), lowering.form(DESKTOP)) == ("library", "decorator")
    rtx = DESKTOP.runtimes[0].model_copy(update={"name": "tensorrt-rtx", "version": "1.7"})
    old = DESKTOP.runtimes[0].model_copy(update={"name": "tensorrt", "version": "8.5"})
    for offer, told in ((rtx, "TensorRT-RTX takes no plugins"), (old, "TensorRT 8.5 is older than 10.0")):
        with pytest.raises(Refusal, match=rf"rtx-4090 takes no plugins.*: {told}; leave them out"):
            lowering.lower(model(), DESKTOP.model_copy(update={"runtimes": (offer,)}), kernel_of)
    with pytest.raises(Refusal, match="x86-cpu takes no plugins: it has no TensorRT"):
        lowering.form(DEVICES["x86-cpu"])
    with pytest.raises(Refusal, match="no operator of this graph has a kernel"):
        lowering.lower(model(), ORIN, lambda node, sm: None)


def test_terms() -> None:
    assert [line("0.0", *each) for each in ((0, 7), (1, 0), (1, 2), (197, 0), (3, 1))] == [
        7, "0.0", "0.0 2 +", "0.0 197 *", "0.0 3 * 1 +"
    ]  # fmt: skip
    assert [evaluate("0.1 3 * 1.0 +", [[2, n], [5]]) for n in (0, 1, 197)] == [5, 8, 596]
    for text in ("", "1 2", "1 +", "2.0", "0.9", "1 2 -", "x", "0.0.0"):
        with pytest.raises(InputError, match="is no size over inputs of ranks"):
            evaluate(text, [[3, 4]])


def test_a_launch_that_cannot_be_is_refused() -> None:
    for change, told in (
        ({"threads": 0}, "block: got '0', expected 1 to 1024 threads"),
        ({"shared": 49153}, "shared: got '49153'"),
        ({"kernel": "another"}, "kernel: got 'another', expected the name of an entry"),
        ({"scalars": (1, 2)}, "ptx: got 'an entry of 6 parameters', expected 5: inputs, scalars, outputs"),
        ({"inputs": ("double", "int64")}, "inputs or results: got 'double'"),
    ):
        launch = {
            "kernel": "keep_tokens", "ptx": PTX, "grid": (1,), "threads": 128, "shared": 0, "scalars": (1, 2, 3),
            "inputs": ("float", "int64"), "results": (("float", (1, 2)),),
        }  # fmt: skip
        with pytest.raises(InputError, match=told):
            PluginNode.of(**{**launch, **change})
    with pytest.raises(InputError, match="reads keep_tokens_param_4, scratch memory"):
        without_scratch(PTX)


def test_build_plugins_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "PLACES", (str(tmp_path),))
    with pytest.raises(UsageError, match=r"no NvInferRuntime.h \(TensorRT\) in .*: give its folder with --headers"):
        library.build(tmp_path, ["KeepTokens"])
    for name in library.HEADERS:
        (tmp_path / name).write_text("#error not these")
    if shutil.which("g++"):
        with pytest.raises(EdgetokError, match="failed on the plugin library"):
            library.build(tmp_path / "out", ["KeepTokens"])
        assert not list((tmp_path / "out").iterdir())
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match="no C\\+\\+ compiler 'no-such-compiler'"):
        library.build(tmp_path, ["KeepTokens"])
