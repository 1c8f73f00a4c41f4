"""Every spelling of norms, GELU, Snake and attention ends as one node, and computes what it did."""

import collections

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from edgetok import graph as g
from edgetok.normalise import normalise
from edgetok.plugins import add_functions
from edgetok.view.masks import Mask, classify

ort = pytest.importorskip("onnxruntime")


def model(body: str, inputs: str = "float[B,N,8] x", outputs: str = "float[B,N,8] y") -> ir.Model:
    text = f'<ir_version: 10, opset_import: ["" : 23]> g ({inputs}) => ({outputs}) {{ {body} }}'
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text), data_prop=True))


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options).run(None, feeds)


def fused(body: str, feeds: dict[str, np.ndarray], **ends: str) -> collections.Counter[str]:
    """The operators after normalise, once the results are found unchanged."""
    graph = model(body, **ends)
    before = run(graph, feeds)
    normalise(graph)
    add_functions(graph)
    for old, new in zip(before, run(graph, feeds), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5)
    return collections.Counter(node.op_type for node in graph.graph)


X = {"x": np.random.default_rng(0).standard_normal((2, 5, 8), np.float32)}
NORM = """a = Constant <value = int64[1] {{{axis}}}> ()
m = ReduceMean {keep} (x, a)   d = Sub (x, m)   two = Constant <value = float {{2.0}}> ()   s = Pow (d, two)
v = ReduceMean <keepdims = 1> (s, a)   e = Constant <value = float {{1e-5}}> ()   ve = Add (v, e)
r = Sqrt (ve)   n = Div (d, r)
w = Constant <value_floats = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]> ()   nw = Mul (n, w)   y = Add (nw, w)"""


@pytest.mark.parametrize("axis", (-1, 2))
@pytest.mark.parametrize("keep", ("", "<keepdims = 1>"))
def test_layer_norm(axis: int, keep: str):
    assert fused(NORM.format(axis=axis, keep=keep), X) == {"LayerNormalization": 1}


GROUPS = {  # shapes as the graph declares them: what is free is found at run time
    "a sound": ("float[B,6,N]", (2, 6, 50), 3),
    "a picture of any size": ("float[B,15,H,W]", (2, 15, 4, 9), 5),
    "a picture of one height": ("float[B,7,4,W]", (1, 7, 4, 9), 7),
    "rows": ("float[B,40]", (3, 40), 2),
    "a picture": ("float[B,4,5,8]", (3, 4, 5, 8), 1),
}


@pytest.mark.parametrize("case", GROUPS)
def test_group_norm_takes_squares_behind_the_mean(case: str):
    """Of values from 30 to 31 a difference of squares errs by 2e-3 and more; here a mean errs by three ulp."""
    kind, shape, groups = GROUPS[case]
    torch.manual_seed(2)
    feed, scale, bias = 30 + torch.rand(shape), torch.randn(shape[1]), torch.randn(shape[1])
    constants = "   ".join(
        f"{name} = Constant <value_floats = [{', '.join(map(repr, value.tolist()))}]> ()"
        for name, value in (("s", scale), ("b", bias))
    )
    body = f"{constants}   y = GroupNormalization <num_groups = {groups}, epsilon = 1e-6> (x, s, b)"
    graph = model(body, f"{kind} x", f"{kind} y")
    normalise(graph)
    assert [node.op_type for node in graph.graph if node.op_type != "Shape"] == [
        "Reshape", "InstanceNormalization", "Reshape", "Mul", "Add",
    ]  # fmt: skip
    right = torch.nn.functional.group_norm(feed.double(), groups, scale.double(), bias.double(), 1e-6)
    (got,) = run(graph, {"x": feed.numpy()})
    room = 3 * np.spacing(np.float32(30)) / feed.std() * abs(scale).max()  # up to 5e-5
    assert got.shape == shape and abs(torch.from_numpy(got) - right).max() < room


def test_group_norm_whose_weights_are_inputs_stays():
    graph = model("y = GroupNormalization <num_groups = 2> (x, s, s)", "float[B,4,N] x, float[4] s", "float[B,4,N] y")
    normalise(graph)
    assert [node.op_type for node in graph.graph] == ["GroupNormalization"]


SQRT2 = """c = Constant <value = float {1.4142135}> ()   one = Constant <value = float {1.0}> ()
half = Constant <value = float {0.5}> ()"""
INVERSE = SQRT2.replace("1.4142135", "0.70710678")


@pytest.mark.parametrize("inner", (f"{SQRT2} i = Div (x, c)", f"{INVERSE} i = Mul (x, c)", f"{INVERSE} i = Mul (c, x)"))
@pytest.mark.parametrize(
    "product",
    (
        "p = Mul (x, t)   y = Mul (p, half)",
        "p = Mul (t, half)   y = Mul (x, p)",
        "p = Mul (half, x)   y = Mul (p, t)",
    ),
)
def test_erf_gelu(inner: str, product: str):
    assert fused(f"{inner}   f = Erf (i)   t = Add (f, one)   {product}", X) == {"Gelu": 1}


@pytest.mark.parametrize("cube", ("k = Pow (x, three)", "xx = Mul (x, x)   k = Mul (xx, x)"))
def test_tanh_gelu(cube: str):
    body = f"""{SQRT2}   three = Constant <value = float {{3.0}}> ()   a = Constant <value = float {{0.044715}}> ()
    z = Constant <value = float {{0.7978846}}> ()   {cube}   ka = Mul (a, k)   s = Add (x, ka)   u = Mul (s, z)
    f = Tanh (u)   t = Add (one, f)   h = Mul (half, x)   y = Mul (h, t)"""
    graph = model(body)
    normalise(graph)
    (node,) = graph.graph
    assert (node.op_type, g.attribute(node, "approximate")) == ("Gelu", "tanh")
    assert fused(body, X) == {"Gelu": 1}


ALPHA = "a = Constant <value = float[1, 5, 1] {1, 2, 3, 4, 5}> ()"
INVERSE_ALPHA = "r = Constant <value = float[1, 5, 1] {1, 0.5, 0.33, 0.25, 0.2}> ()"
SQUARES = ("q = Mul (s, s)", "two = Constant <value = float {2.0}> ()   q = Pow (s, two)")
SUMS = ("w = Mul (r, q)   y = Add (x, w)", "w = Mul (q, r)   y = Add (w, x)")


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("end", SUMS)
def test_snake(square: str, end: str):
    ends = {"inputs": "float[B,5,N] x", "outputs": "float[B,5,N] y"}
    body = f"{ALPHA}   {INVERSE_ALPHA}   p = Mul (x, a)   s = Sin (p)   {square}   {end}"
    assert fused(body, X, **ends) == {"Snake": 1}


@pytest.mark.parametrize(
    ("constants", "inputs"),
    (
        (ALPHA, "float[B,5,N] x, float[1,5,1] r"),  # the height is an input
        (f"{ALPHA}   {INVERSE_ALPHA}", "float[B,M,N] x"),  # how many channels is open
        (f"a = Constant <value = float {{2.0}}> ()   {INVERSE_ALPHA}", "float[B,5,N] x"),  # one frequency for all
    ),
)
def test_what_is_no_snake_of_channels(constants: str, inputs: str):
    graph = model(f"{constants}   p = Mul (x, a)   s = Sin (p)   {SQUARES[0]}   {SUMS[0]}", inputs, "float[B,5,N] y")
    normalise(graph)
    assert "Sin" in [node.op_type for node in graph.graph]


DRAW = np.random.default_rng(1)
QKV = {name: DRAW.standard_normal((2, 3, 5, 4), np.float32) for name in "qkv"}
ENDS = {"inputs": "float[B,3,5,4] q, float[B,3,5,4] k, float[B,3,5,4] v", "outputs": "float[B,3,5,4] y"}
TURN = "t = Transpose <perm = [0, 1, 3, 2]> (k)   c = Constant <value = float {0.7}> ()"
SCALES = {
    "none": f"{TURN}   s = MatMul (q, t)",
    "scores": f"{TURN}   p = MatMul (q, t)   s = Mul (p, c)",
    "divided": f"{TURN}   p = MatMul (q, t)   s = Div (p, c)",
    "query": f"{TURN}   r = Mul (q, c)   s = MatMul (r, t)",
    "both": f"{TURN}   r = Mul (q, c)   u = Mul (t, c)   s = MatMul (r, u)",
}


@pytest.mark.parametrize("scale", SCALES)
def test_attention_with_every_scale(scale: str):
    assert fused(f"{SCALES[scale]}   w = Softmax (s)   y = MatMul (w, v)", QKV, **ENDS) == {"Attention": 1}


def test_attention_whose_key_was_transposed_at_once():
    """(B, N, h, d) -> (B, h, d, N) in one step: the node gets (B, h, N, d)."""
    ends = dict(ENDS, inputs=ENDS["inputs"].replace("float[B,3,5,4] k", "float[B,5,3,4] k"))
    feeds = QKV | {"k": QKV["k"].transpose(0, 2, 1, 3).copy()}
    body = "t = Transpose <perm = [0, 2, 3, 1]> (k)   s = MatMul (q, t)   w = Softmax (s)   y = MatMul (w, v)"
    assert fused(body, feeds, **ends) == {"Attention": 1, "Transpose": 1}


@pytest.mark.parametrize("shape", ((2, 3, 5, 5), (1, 1, 5, 5), (2, 1, 1, 5)))
def test_attention_with_a_mask(shape: tuple[int, ...]):
    """A row per sample is spread over the queries: onnxruntime's kernel does not broadcast it."""
    dims = ",".join("B" if n == 2 else str(n) for n in shape)
    ends = dict(ENDS, inputs=f"{ENDS['inputs']}, float[{dims}] m")
    feeds = QKV | {"m": DRAW.standard_normal(shape, np.float32)}
    found = fused(f"{SCALES['scores']}   a = Add (s, m)   w = Softmax (a)   y = MatMul (w, v)", feeds, **ends)
    assert found["Attention"] == 1 and found["Softmax"] == 0


def test_attention_with_a_filled_mask():
    ends = dict(ENDS, inputs=f"{ENDS['inputs']}, bool[B,1,5,5] m")
    feeds = QKV | {"m": np.tri(5, dtype=bool)[None, None].repeat(2, 0)}
    low = "low = Constant <value = float {-1e9}> ()"
    body = f"{low}   {SCALES['scores']}   a = Where (m, s, low)   w = Softmax (a)   y = MatMul (w, v)"
    found = fused(body, feeds, **ends)
    assert found["Attention"] == 1 and found["Softmax"] == 0


def test_weights_that_are_given_out_stay():
    ends = dict(ENDS, outputs="float[B,3,5,4] y, float[B,3,5,5] w")
    assert fused(f"{SCALES['none']}   w = Softmax (s)   y = MatMul (w, v)", QKV, **ends)["Softmax"] == 1


def test_a_mask_scaled_together_with_the_scores_stays():
    ends = dict(ENDS, inputs=f"{ENDS['inputs']}, float[1,1,5,5] m")
    feeds = QKV | {"m": DRAW.standard_normal((1, 1, 5, 5), np.float32)}
    body = f"{TURN}   p = MatMul (q, t)   a = Add (p, m)   s = Mul (a, c)   w = Softmax (a)   y = MatMul (w, v)"
    assert fused(body, feeds, **ends)["Attention"] == 1  # the scaled scores are dead
    assert fused(body.replace("Softmax (a)", "Softmax (s)"), feeds, **ends)["Attention"] == 0


def test_idle_masks_go_and_masks_that_depend_on_numbers_stay():
    body = """shape = Constant <value_ints = [1, 1, 5, 5]> ()   yes = ConstantOfShape <value = bool[1] {1}> (shape)
    y = Attention (q, k, v, yes)"""
    assert fused(body, QKV, **ENDS) == {"Attention": 1}
    ends = dict(ENDS, inputs=f"{ENDS['inputs']}, float[1,1,5,5] m")
    graph = model("z = Relu (m)   y = Attention (q, k, v, z)", **ends)
    normalise(graph)
    assert [node.op_type for node in graph.graph] == ["Relu", "Attention"]


def test_names_and_traces():
    graph = model("z = Relu (x)   y = Identity (z)   dead = Abs (x)")
    first = graph.graph[0]
    first.name, first.doc_string = None, "somewhere"
    first.metadata_props["pkg.torch.onnx.stack_trace"] = 'File "/home/someone/model.py"'
    graph.graph.metadata_props["origin"] = "/home/someone"
    normalise(graph)
    text = str(ir.to_proto(graph))
    assert "someone" not in text and "somewhere" not in text
    assert all(node.name for node in graph.graph) and [v.name for v in graph.graph.outputs] == ["y"]
    assert [str(v.shape[0]) for v in (*graph.graph.inputs, *graph.graph.outputs)] == ["batch", "batch"]
    assert "Abs" not in text


def test_allowzero_is_cleared():
    graph = model("s = Constant <value_ints = [-1, 8]> ()   y = Reshape <allowzero = 1> (x, s)", outputs="float[M,8] y")
    normalise(graph)
    assert "allowzero" not in graph.graph[0].attributes


def test_a_prefix_is_cut_by_slices_and_channels_stay_split():
    body = """s = Constant <value_ints = [{}]> ()   a, b = Split <axis = {}> (x, s)   c = Neg (a)
    y = Concat <axis = {}> (c, b)"""
    feeds = {"x": X["x"]}
    fixed = {"inputs": "float[B,5,8] x", "outputs": "float[B,5,8] y"}
    assert fused(body.format("2, 3", 1, 1), feeds, **fixed) == {"Slice": 2, "Neg": 1, "Concat": 1}
    assert fused(body.format("2, 6", 2, 2), feeds, **fixed) == {"Split": 1, "Neg": 1, "Concat": 1}


@pytest.mark.parametrize("mask", ["", ", m", ", b"])
def test_causal_by_an_attribute_becomes_causal_by_its_mask(mask: str):
    body = (
        "m = Constant<value = float[3, 3] {0, 0, -1, 0.5, 0, 2, 0, 1, 0}>()\n"
        "b = Constant<value = bool[3, 3] {1, 1, 1, 0, 1, 0, 0, 1, 1}>()\n"
        f"y = Attention<is_causal = 1>(x, x, x{mask})"
    )
    graph = model(body, "float[B,2,3,8] x", "float[B,2,3,8] y")
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 2, 3, 8), np.float32)}
    before = run(graph, feeds)
    normalise(graph)
    np.testing.assert_allclose(run(graph, feeds)[0], before[0], rtol=1e-5, atol=1e-6)
    node = next(node for node in graph.graph if node.op_type == "Attention")
    assert "is_causal" not in node.attributes
    assert classify(graph.graph, node.inputs[3]).kind is (Mask.BIAS if mask == ", m" else Mask.CAUSAL)
