"""Every rule on its own examples, the rules against onnxruntime itself, and what lint makes of files."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgetok import devices, lint_rules, plugins
from edgetok.errors import SourceError
from edgetok.lint import lint
from edgetok.lint_rules import Example, Graph, Target, kernels, too_new
from edgetok.lowbit import quantiser
from edgetok.lowbit.quantise import quantise
from tests.test_lowbit import model_of

EXAMPLES = [
    (rule, example) for rule in lint_rules.names() for example in getattr(lint_rules.load(rule), "EXAMPLES", ())
]
TESTED_BELOW = {"external_data", "functions", "memory"}  # what a text cannot hold, or no profile has


@pytest.mark.parametrize(("rule", "example"), EXAMPLES, ids=lambda x: x if isinstance(x, str) else x.device)
def test_a_rule_says_what_its_examples_say(rule, example):
    found = [f for f in lint(example.model(), devices.load(example.device)) if f.rule == rule]
    if example.severity is None:
        assert not found
    else:
        assert example.severity in {f.severity for f in found}
        assert any(example.says in f"{f.reason} -> {f.rewrite}" for f in found)


def test_every_rule_has_an_example_that_speaks_and_one_that_is_silent():
    for rule in set(lint_rules.names()) - TESTED_BELOW:
        severities = {example.severity for name, example in EXAMPLES if name == rule}
        assert None in severities and len(severities) > 1, rule
        assert "Measured" in (doc := lint_rules.load(rule).__doc__) or len(doc) > 100, rule


def test_a_rule_is_added_by_its_file_alone(tmp_path, monkeypatch):
    (tmp_path / "no_relu.py").write_text(
        "from edgetok.lint_rules import warning\n"
        "def check(graph, target):\n"
        "    yield from (warning(node, 'a Relu', 'drop it') for node in graph.nodes('Relu'))\n"
    )
    monkeypatch.setattr(lint_rules, "__path__", [*lint_rules.__path__, str(tmp_path)])
    text = "g (float[2] x) => (float[2] y) { z = Relu(x) y = Relu(z) }"
    (finding,) = lint(Example("", text, None).model(), devices.load("x86-cpu"))
    assert (finding.rule, finding.nodes) == ("no_relu", ("z", "y"))
    assert finding.runtimes == ("onnxruntime 1.32.0", "onnxruntime 1.23.2")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # onnx builds its cases with overflows
def test_the_kernel_tables_say_what_onnxruntime_does():
    """One in twenty of the small models of onnx's own test suite: lint is silent where onnxruntime loads them."""
    import onnxruntime
    from onnx.backend.test.case.node import collect_testcases

    offers = [r for r in devices.load("x86-cpu").runtimes if r.version == onnxruntime.__version__]
    if not offers:
        pytest.skip(f"no kernel table for onnxruntime {onnxruntime.__version__}")
    onnxruntime.set_default_logger_severity(4)
    target, differ, total = Target(devices.load("x86-cpu"), offers[0]), [], 0
    for case in collect_testcases(None)[::20]:
        if any(entry.domain not in ("", "ai.onnx.ml") for entry in case.model.opset_import):
            continue
        try:
            onnxruntime.InferenceSession(case.model.SerializeToString(), providers=["CPUExecutionProvider"])
            loads = True
        except Exception:
            loads = False
        graph = Graph(ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(case.model)))
        refused = any(f.severity == "error" for rule in (too_new, kernels) for f in rule.check(graph, target))
        total += 1
        if loads == refused:
            differ.append(case.name)
    assert total > 50
    assert len(differ) <= 0.02 * total + 1, differ


@pytest.mark.parametrize(
    ("graph", "feeds"),
    [
        (example.graph, example)
        for rule, example in EXAMPLES
        if rule in ("attention_inputs", "rotary_batch") and example.device == "x86-cpu" and "batch" not in example.graph
    ],
)
def test_onnxruntime_refuses_what_the_rules_say_it_refuses(graph, feeds):
    import onnxruntime

    proto = ir.serde.serialize_model(feeds.model())
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {value.name: np.zeros(value.shape, np.float32) for value in session.get_inputs()}
    if feeds.severity is None:
        session.run(None, inputs)
    else:
        with pytest.raises(Exception, match="Non-zero status code"):
            session.run(None, inputs)


def write(path, location="weights.bin", size=16):
    """A model whose one weight lies in another file."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> '
        "g (float[4] x) => (float[4] y) <float[4] w = {1,2,3,4}> { y = Add(x, w) }"
    )
    weight = model.graph.initializer[0]
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="length", value=str(size))
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "sub/../../secret.bin", "C:\\x.bin", "..\\x.bin"])
def test_data_outside_the_folder(tmp_path, location):
    (finding,) = lint(write(tmp_path / "model.onnx", location), devices.load("x86-cpu"))
    assert (finding.severity, finding.rule) == ("error", "external_data")
    assert finding.reason == f"weights are read from {location!r}, outside the model's folder"


def test_data_through_a_link_or_missing(tmp_path):
    path = write(tmp_path / "model.onnx")
    (finding,) = lint(path, devices.load("x86-cpu"))
    assert finding.reason == "weights are read from 'weights.bin', which is not there"
    (tmp_path / "weights.bin").symlink_to("/etc/passwd")
    (finding,) = lint(tmp_path, devices.load("x86-cpu"))
    assert finding.reason == "weights are read from 'weights.bin', a link out of the model's folder"
    (tmp_path / "weights.bin").unlink()
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    assert not lint(path, devices.load("x86-cpu"))


@pytest.mark.parametrize(("gigabytes", "severity"), [(1e-9, "error"), (3e-8, "error"), (4e-8, "warning"), (1, None)])
def test_weights_against_memory(gigabytes, severity):
    orin = devices.load("jetson-orin-nano-jp72")
    small = orin.model_copy(update={"memory": orin.memory.model_copy(update={"gigabytes": gigabytes})})
    text = "g (float[8] x) => (float[8] y) <float[8] w = {1,2,3,4,5,6,7,8}> { y = Add(x, w) }"  # 32 bytes
    found = [f.severity for f in lint(Example("", text, None).model(), small) if f.rule == "memory"]
    assert found == ([severity] if severity else [])


def test_local_functions_on_a_parser_before_9():
    orin = devices.load("jetson-orin-nano-jp62")
    old = orin.model_copy(update={"runtimes": (orin.runtimes[0].model_copy(update={"version": "8.6.2"}),)})
    text = (
        '<ir_version: 10, opset_import: ["": 20, "mine": 1]> g (float[2] x) => (float[2] y) { y = mine.f(x) } '
        '<domain: "mine", opset_import: ["": 20]> f (x) => (y) { y = Relu(x) }'
    )
    model = Example("", text, None).model()
    (finding,) = [f for f in lint(model, old) if f.rule == "functions"]
    assert finding.reason == "tensorrt 8.6.2 reads no model-local functions: they came with 9.0"
    assert not [f for f in lint(model, orin) if f.rule == "functions"]


def test_faults_inside_a_function_and_a_subgraph_are_found():
    text = (
        '<ir_version: 10, opset_import: ["": 23, "mine": 1]> g (float[2,4] x) => (float[2,4] y) { y = mine.f(x) } '
        '<domain: "mine", opset_import: ["": 23]> f (x) => (y) { y = LpNormalization(x) }'
    )
    assert [f.op for f in lint(Example("", text, None).model(), devices.load("x86-cpu"))] == ["LpNormalization"]
    text = (
        "g (bool c, float[2,4] x) => (float[2,4] y) { y = If (c) <"
        "then_branch = a () => (float[2,4] p) { p = LpNormalization(x) }, "
        "else_branch = b () => (float[2,4] q) { q = Relu(x) }> }"
    )
    assert "LpNormalization" in [f.op for f in lint(Example("", text, None).model(), devices.load("x86-cpu"))]


@pytest.mark.parametrize("device", ["rtx-4090", "jetson-orin-nano-jp62", "x86-cpu"])
def test_weights_of_few_bits(device, tmp_path, caplog):
    """Their shapes are inferred, and what is told is of the nodes that the user knows, not of LutMatMul's body."""
    model = model_of(np.random.default_rng(0).standard_normal((48, 64), np.float32))
    quantise(model, [quantiser.parse("int4:positive=true")], None)
    plugins.add_functions(model)
    ir.save(model, tmp_path / "model.onnx")
    found = lint(tmp_path / "model.onnx", devices.load(device))
    assert not caplog.records, caplog.text
    assert {name for finding in found for name in finding.nodes} <= {node.name for node in model.graph}


@pytest.mark.parametrize("content", [b"", b"no model", bytes(100)])
def test_a_file_that_is_no_model(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(SourceError, match="'model.onnx' is not an ONNX model"):
        lint(tmp_path / "model.onnx", devices.load("x86-cpu"))


def test_a_truncated_model(tmp_path):
    whole = write(tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="'model.onnx' is not an ONNX model"):
        lint(tmp_path / "model.onnx", devices.load("x86-cpu"))


def test_no_file(tmp_path):
    with pytest.raises(SourceError, match="no file .*: lint takes an .onnx file or a bundle's folder"):
        lint(tmp_path, devices.load("x86-cpu"))
