"""Operators that a runtime lacks, spelt by others: ONNX's own evaluator of the operator against onnxruntime's."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import ShapeInferencePass

from edgetok import devices, lowering
from edgetok.lint_rules import Example
from edgetok.lowering import opset

ORIN, RTX = devices.load("jetson-orin-nano-jp62"), devices.load("rtx-3090")
APART = "float[b,4,7,8] q, float[b,4,9,8] k, float[b,4,9,6] v"
ATTENTIONS = {
    "apart": (f"({APART}) => (float[b,4,7,6] y) {{ y = Attention(q, k, v) }}"),
    "joined": (
        "(float[b,7,32] q, float[b,9,32] k, float[b,9,24] v) => (float[b,7,24] y) "
        "{ y = Attention <q_num_heads = 4, kv_num_heads = 4, scale: float = 0.7> (q, k, v) }"
    ),
    "shared keys": (
        "(float[b,7,32] q, float[b,9,16] k, float[b,9,12] v, float[7,9] m) => (float[b,7,24] y) "
        "{ y = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v, m) }"
    ),
    "shared keys, a mask each": (
        "(float[b,4,7,8] q, float[b,2,9,8] k, float[b,2,9,6] v, float[b,1,7,9] m) => (float[b,4,7,6] y) "
        "{ y = Attention(q, k, v, m) }"
    ),
    "mask of heads": f"({APART}, float[b,4,7,9] m) => (float[b,4,7,6] y) {{ y = Attention(q, k, v, m) }}",
    "barring": f"({APART}, bool[7,9] m) => (float[b,4,7,6] y) {{ y = Attention(q, k, v, m) }}",
    "causal": f"({APART}) => (float[b,4,7,6] y) {{ y = Attention <is_causal = 1> (q, k, v) }}",
    "softcap": f"({APART}) => (float[b,4,7,6] y) {{ y = Attention <softcap: float = 2.0> (q, k, v) }}",
}
NORM = "(float[b,5,8] x, float[8] s) => (float[b,5,8] y) { y = RMSNormalization <epsilon: float = 0.01> (x, s) }"


def feeds_of(model: ir.Model, batch: int) -> dict[str, np.ndarray]:
    """Seeded numbers; of masks that bar, each query's first key is left."""
    random = np.random.default_rng(batch)
    feeds: dict[str, np.ndarray] = {}
    for value in model.graph.inputs:
        shape = [dim if isinstance(dim, int) else batch for dim in value.shape or ()]
        numbers = random.standard_normal(shape)
        barring = value.dtype == ir.DataType.BOOL
        feeds[value.name or ""] = numbers > 0 if barring else numbers.astype(value.dtype.numpy())
        if barring:
            feeds[value.name or ""][..., 0] = True
    return feeds


def spelt(text: str, half: bool = False) -> tuple[ir.Model, ir.Model]:
    """A graph as it stands, and for TensorRT 10.3."""
    model = Example("", "g " + (text.replace("float[", "float16[") if half else text), None).model()
    lowered = model.clone()
    lowering.spell(lowered, [offer for offer in ORIN.runtimes if offer.name == "tensorrt"])
    return model, lowered


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("name", [*ATTENTIONS, "norm"])
def test_gives_the_operators_numbers(name: str, half: bool) -> None:
    model, lowered = spelt(ATTENTIONS.get(name, NORM), half)
    assert not {"Attention", "RMSNormalization"} & {node.op_type for node in lowered.graph}
    assert lowered.opset_imports[""] == 20
    proto = ir.to_proto(lowered)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        feeds = feeds_of(model, batch)
        (wanted,) = ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)
        (got,) = session.run(None, feeds)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=4e-3 if half else 2e-6)


def test_rounded_queries_stay_integers_up_to_the_product() -> None:
    """Orin multiplies int8: no node of floats may stand between the DequantizeLinear and the MatMul."""
    model, lowered = spelt(
        f"({APART}) => (float[b,4,7,6] y) <float step = {{0.05}}, int8 zero = {{0}}> {{"
        " small = QuantizeLinear(q, step, zero) rounded = DequantizeLinear(small, step, zero)"
        " y = Attention(rounded, k, v) }"
    )
    scores = next(node for node in lowered.graph if node.op_type == "MatMul")
    assert scores.inputs[0].producer().op_type == "DequantizeLinear"
    feeds = feeds_of(model, 2)
    (wanted,) = ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)
    (got,) = ReferenceEvaluator(ir.to_proto(lowered)).run(None, feeds)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "text",
    [
        f"({APART}, float[b,4,2,8] pk, float[b,4,2,6] pv) => (float[b,4,7,6] y) {{ y = Attention(q, k, v, , pk, pv) }}",
        f"({APART}) => (float[b,4,7,6] y, float[b,4,7,9] w) {{ y, , , w = Attention(q, k, v) }}",
        "(float[b,4,7,8] q, float[b,2,9,8] k, float[b,4,7,9] m) => (float[b,4,7,8] y) { y = Attention(q, k, k, m) }",
    ],
    ids=["past keys", "scores too", "shared keys, a mask for each head"],
)
def test_other_forms_stay(text: str) -> None:
    _, lowered = spelt(text)
    assert [node.op_type for node in lowered.graph] == ["Attention"] and lowered.opset_imports[""] == 23


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("(float[2] x) => (float[2] y) { y = Relu(x) }", 20),
        ("(float[2,4] x, float[4] s) => (float[2,4] y) { y = GroupNormalization <num_groups = 2> (x, s, s) }", 23),
        ("(int8[2,4] x, float[2,2] s) => (float[2,4] y) { y = DequantizeLinear <block_size = 2> (x, s) }", 23),
        ("(int4[4] x) => (int4[2,2] y) <int64[2] s = {2, 2}> { y = Reshape(x, s) }", 23),
        ("(float[4] x) => (float[2,2] y) <int64[2] s = {2, 2}> { y = Reshape(x, s) }", 20),
    ],
    ids=["older", "other numbers", "other attributes", "newer types", "known types"],
)
def test_the_opset_is_lowered_where_nothing_changes(text: str, wanted: int) -> None:
    model = Example("", f"g {text}", None).model()
    assert opset.lower(model, 20) == (wanted == 20)
    assert model.opset_imports[""] == wanted


def test_what_functions_choose_by_their_strings_is_decided() -> None:
    """TensorRT has no strings: what remains gives the operator's numbers."""
    from edgetok.plugins import add_functions

    for objective in ("max_sum", "max_min"):
        text = (
            '<ir_version: 10, opset_import: ["": 23, "edgetok": 1]> g (float[2,9,9] gain, float[2,9] start) =>'
            f' (int64[2,4] y) {{ y = edgetok.GreedySelect <count = 4, objective = "{objective}"> (gain, start) }}'
        )
        model = Example("", text, None).model()
        add_functions(model)
        whole = model.clone()
        lowering.for_tensorrt(model, RTX)
        assert not any("value_string" in node.attributes for node in model.graph.all_nodes())
        feeds = feeds_of(whole, 2)
        wanted, got = (
            onnxruntime.InferenceSession(ir.to_proto(each).SerializeToString()).run(None, feeds)[0]
            for each in (whole, model)
        )
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("shape", ["float[2,3,5,64]", "float16[2,3,5,8]"], ids=["fp32", "narrow heads"])
def test_rtx_builds_what_it_refuses_as_one_node(shape: str, tmp_path) -> None:
    from tests.test_tensorrt_rtx import build

    pytest.importorskip("tensorrt_rtx")
    model = Example("", f"g ({shape} q) => ({shape} y) {{ y = Attention(q, q, q) }}", None).model()
    ir.save(model, tmp_path / "node.onnx")
    assert build(tmp_path / "node.onnx", "SM86").returncode != 0  # of fp32 it dies
    lowering.spell(model, RTX.runtimes)
    ir.save(ShapeInferencePass()(model).model, tmp_path / "spelt.onnx")
    done = build(tmp_path / "spelt.onnx", "SM86")
    assert done.returncode == 0, done.stderr
