"""Operators on tokens in C++: as their references say, in place of the functions in a graph."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import helper

from edgetok import native, plugins, runtimes, technique
from edgetok.graph import IR_VERSION, OPSET, specs
from edgetok.transform import transform
from tests import families
from tests.comparison import compare, reduce
from tests.families import captured
from tests.test_operators import attributes_of

OPERATORS = {
    "agglomerative_clusters": ("label",), "bipartite_match": ("order", "match", "best"),
    "block_sparse_attention": ("attended",),
    "merge_tokens": ("merged", "size"), "nearest_code": ("index",), "snake": ("activated",),
    "sum_tokens": ("sum",), "token_sparse_attention": ("attended",),
}  # fmt: skip
CASES = [(name, case, args) for name in OPERATORS for case, args in plugins.load(name).cases()]
KINDS = {  # ONNX's numbers of them
    torch.int32: 6, torch.int64: 7, torch.float32: 1, torch.float16: 10, torch.bfloat16: 16,
}  # fmt: skip
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def model(name: str, inputs: list[torch.Tensor], attributes: dict[str, object]) -> bytes:
    """One node, its function nowhere; all sizes but that of `kept` are left open."""

    def typed(label: str, dtype: torch.dtype, rank: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(label, KINDS[dtype], [f"{label}{i}" for i in range(rank)])

    labels = [f"in{i}" for i in range(len(inputs))]
    function = plugins.load(name).function.name
    node = helper.make_node(function, labels, list(OPERATORS[name]), domain="edgetok", name="one", **attributes)
    kinds = dict.fromkeys(("label", "index", "order", "match"), torch.int64)
    kinds |= dict.fromkeys(("activated", "attended", "merged", "sum"), inputs[0].dtype)
    ranks = {"activated": [3], "attended": [4], "merged": [3] * 2, "sum": [3] * 2}.get(OPERATORS[name][0], [2] * 3)
    outputs = [typed(o, kinds.get(o, torch.float32), r) for o, r in zip(OPERATORS[name], ranks, strict=False)]
    given = [typed(label, t.dtype, t.ndim) for label, t in zip(labels, inputs, strict=True)]
    graph = helper.make_graph([node], "one", given, outputs)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("edgetok", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()


def run(library, name, args, threads=1) -> list[torch.Tensor]:
    inputs = [each for each in args if torch.is_tensor(each)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.register_custom_ops_library(str(library))
    data = model(name, inputs, attributes_of(name, args))
    made = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    values = [onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(*as_onnx(each)) for each in inputs]
    got = made.run_with_ort_values(None, {f"in{i}": value for i, value in enumerate(values)})
    return [from_onnx(each) for each in got]


def as_onnx(tensor: torch.Tensor) -> tuple[np.ndarray, int]:
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16).view(ml_dtypes.bfloat16), 16
    return np.ascontiguousarray(tensor.numpy()), KINDS[tensor.dtype]


def from_onnx(value: onnxruntime.OrtValue) -> torch.Tensor:
    if value.data_type() == "tensor(bfloat16)":
        return torch.utils.dlpack.from_dlpack(value._ortvalue.to_dlpack())
    return torch.from_numpy(value.numpy())


def wanted(name, inputs) -> tuple[torch.Tensor, ...]:
    """In fp64."""
    exact = (t.double() if torch.is_tensor(t) and t.is_floating_point() else t for t in inputs)
    found = plugins.load(name).reference(*exact)
    return found if isinstance(found, tuple) else (found,)


def check(got: torch.Tensor, exact: torch.Tensor, epsilon: float = 1e-5) -> None:
    if exact.is_floating_point():
        torch.testing.assert_close(got.double(), exact.double(), rtol=epsilon, atol=epsilon)
    else:
        assert torch.equal(got, exact)


@pytest.mark.parametrize(("name", "case", "args"), CASES, ids=[f"{n}-{c}" for n, c, _ in CASES])
def test_the_cases_of_the_operators(library, isa, name, case, args):
    for got, exact in zip(run(library, name, args), wanted(name, args), strict=True):
        check(got, exact)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 33, 7), (13, 32, 64), (300, 65, 3), (49, 700, 48)])
def test_any_sizes_are_matched(library, isa, sizes):
    a, b, width = sizes
    draw = torch.randn(2, a + b, width, generator=torch.Generator().manual_seed(a))
    inputs = draw[:, :a], draw[:, a:], torch.randn(2, a), torch.randn(1, b)
    one, two = (run(library, "bipartite_match", inputs, threads) for threads in (1, 2))
    for got, other, exact in zip(one, two, wanted("bipartite_match", inputs), strict=True):
        assert torch.equal(got, other)
        check(got, exact)


def test_equal_scores_take_the_lower_index(library, isa):
    """Also those that lie in different vectors; minus zero is zero."""
    a, b = torch.zeros(1, 70, 8), torch.zeros(1, 70, 8)
    a[0, 1::2, 0], b[0, 40:, 0] = -1, -0.0
    b[0, 64:, 1], a[0, 5, 1] = 2, 1
    order, match, _ = run(library, "bipartite_match", (a, b, torch.zeros(1, 1), torch.zeros(1, 1)))
    assert order[0].tolist() == [5, *(i for i in range(70) if i != 5)]
    assert match[0].tolist() == [64, *[0] * 69]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_in_its_sample(library, isa, value):
    a, b, bias_a, bias_b = dict(plugins.load("bipartite_match").cases())["vit_s"]
    clean = run(library, "bipartite_match", (a, b, bias_a, bias_b))
    for broken in ((a.clone(), b), (a, b.clone())):
        for tensor in broken:
            if tensor is not a and tensor is not b:
                tensor[1, 3, 5] = value
        order, match, _ = run(library, "bipartite_match", (*broken, bias_a, bias_b))
        assert sorted(order[1].tolist()) == list(range(98)) and 0 <= match.min() <= match.max() < 98
        assert torch.equal(order[0], clean[0][0]) and torch.equal(match[0], clean[1][0])
    x, size, order, destination, kept = dict(plugins.load("merge_tokens").cases())["vit_s"]
    fine = run(library, "merge_tokens", (x, size, order, destination, kept))[0]
    row = int(order[0, 0])
    x = x.clone()
    x[0, row, 7] = value
    got = run(library, "merge_tokens", (x, size, order, destination, kept))[0]
    assert not got[0, 0, 7].isfinite()
    got[0, 0, 7] = fine[0, 0, 7]
    assert torch.equal(got, fine)


@pytest.mark.parametrize("linkage", ["single", "complete", "average"])
@pytest.mark.parametrize(("tokens", "width", "count"), [(1, 1, 1), (2, 5, 1), (33, 7, 32), (64, 3, 5), (257, 64, 100)])
def test_any_sizes_are_clustered(library, isa, tokens, width, count, linkage):
    drawn = torch.randn(3, tokens, width, generator=torch.Generator().manual_seed(tokens))
    x = torch.nn.functional.normalize(drawn, dim=-1)
    args = x, torch.zeros(3, 1), count, linkage
    one, two = (run(library, "agglomerative_clusters", args, threads)[0] for threads in (1, 2))
    assert torch.equal(one, two) and torch.equal(one, wanted("agglomerative_clusters", args)[0])


@pytest.mark.parametrize("linkage", ["single", "complete", "average"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_token_that_is_not_finite_stays_in_its_sample(library, isa, value, linkage):
    x, padding, count, _ = dict(plugins.load("agglomerative_clusters").cases())["odd_single"]
    clean = run(library, "agglomerative_clusters", (x, padding, count, linkage))[0]
    broken = x.clone()
    broken[1, 3] = value
    got = run(library, "agglomerative_clusters", (broken, padding, count, linkage))[0]
    assert 0 <= got.min() <= got.max() < count and torch.equal(got[[0, 2]], clean[[0, 2]])
    got = run(library, "agglomerative_clusters", (x * float("nan"), padding, count, linkage))[0]
    assert got.max() == count - 1  # nothing is near to anything: as many numbers as there are


def test_clusters_that_cannot_be(library):
    x, padding, _, _ = dict(plugins.load("agglomerative_clusters").cases())["odd_single"]
    for args, told in (
        ((x, padding, 32, "single"), "32 clusters of 31 tokens"),
        ((x, padding, 0, "single"), "count is 0"),
        ((x, padding, 7, "ward"), "linkage is 'ward'; single, complete and average are there"),
        ((x, torch.zeros(2, 1), 7, "single"), "a bias has the shape"),
    ):
        with pytest.raises(Exception, match=told):
            run(library, "agglomerative_clusters", args)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("name", ["merge_tokens", "sum_tokens"])
def test_half_precision_is_summed_in_fp32(library, name, dtype):
    """One rounding, at the end: that of the fp64 result, or the neighbour of what lies half-way."""
    for case, (x, *others) in plugins.load(name).cases():
        inputs = [(x * 100).to(TYPES[dtype]), *others]
        got, exact = run(library, name, inputs)[0], wanted(name, inputs)[0]
        assert got.dtype == TYPES[dtype]
        once = exact.to(TYPES[dtype])
        differs = got != once
        assert differs.sum() <= 1 + 1e-3 * differs.numel(), case
        torch.testing.assert_close(got, once, rtol=2.0**-7 if dtype == "bf16" else 2.0**-10, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 3, 5), (1, 1, 1), (2, 300, 3), (1, 3, 16385), (2, 1, 40000)])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_snake_of_any_length(library, isa, shape, dtype):
    seeded = torch.Generator().manual_seed(shape[2])
    x, alpha = 9 * torch.randn(shape, generator=seeded), 0.1 + torch.rand(1, shape[1], 1, generator=seeded)
    args = [each.to(TYPES[dtype]) for each in (x, alpha, alpha.reciprocal())]
    one, two = (run(library, "snake", args, threads)[0] for threads in (1, 2))
    exact = wanted("snake", args)[0]
    assert one.dtype == TYPES[dtype] and torch.equal(one, two)
    check(one, exact, {"fp32": 1e-6, "fp16": 2.0**-10, "bf16": 2.0**-7}[dtype])
    with pytest.raises(Exception, match=r"alpha and inverse are \(1, C, 1\)"):
        run(library, "snake", (x, alpha, torch.ones(1, shape[1] + 1, 1)))


def test_a_snake_far_out_and_where_x_is_not_finite(library, isa):
    """Multiples of pi, the last phase that pi in three parts is enough for, and beyond it; NaN stays alone."""
    near = torch.tensor([torch.pi, 4000 * torch.pi, 8191.9, -8191.9, 0.0])
    far = torch.tensor([8192.1, 1e5, -3e7, 1e20, 3e38])
    for numbers in (near, far):
        x = numbers.repeat(130)[None, None]  # more than one call of the kernel
        args = x, torch.ones(1, 1, 1), torch.ones(1, 1, 1)
        phase = wanted("snake", args)[0] - x.double()
        got = run(library, "snake", args)[0]
        check(got, x.double() + phase, 1e-6)
        x[0, 0, ::7] = torch.tensor([float("inf"), -float("inf"), float("nan")]).repeat(31)
        got_broken = run(library, "snake", args)[0]
        assert got_broken[0, 0, ::7].isnan().all()
        whole = x.isfinite()
        check(got_broken[whole], got[whole], 1e-6)


def test_numbers_of_half_precision(library):
    """Each goes through and comes back; what lies between is rounded to even, what is beyond to infinity."""
    ends = torch.tensor(
        [1.0, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 65519, 65520, 1e6, 2.0**-24, 2.0**-25, 1.5 * 2.0**-24, 6e-6]
    )
    for dtype in (torch.float16, torch.bfloat16):
        every = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(dtype)
        x = every.reshape(1, -1, 16)
        n = x.shape[1]
        inputs = x, torch.ones(1, n, 1), torch.arange(n)[None], torch.zeros(1, 0, dtype=torch.int64), torch.tensor([n])
        (got,) = run(library, "sum_tokens", inputs)
        numbers = ~every.isnan()
        assert torch.equal(got.flatten()[numbers], every[numbers]) and got.flatten()[~numbers].isnan().all()
        x = torch.ones(1, len(ends), 8, dtype=dtype)
        n = len(ends)
        inputs = x, ends[None, :, None], torch.arange(n)[None], torch.zeros(1, 0, dtype=torch.int64), torch.tensor([n])
        (got,) = run(library, "sum_tokens", inputs)
        assert torch.equal(got[0, :, 0], ends.to(dtype))


@pytest.mark.parametrize(
    ("tokens", "codes", "width"), [(0, 5, 3), (1, 1, 1), (65, 33, 7), (130, 4096, 16), (20, 9000, 256)]
)
def test_any_codebook_is_searched(library, isa, tokens, codes, width):
    draw = torch.randn(2, tokens + codes, width, generator=torch.Generator().manual_seed(codes))
    book = draw[0, :codes]
    args = draw[:, codes:], book, -book.square().sum(dim=1) / 2
    one, two = (run(library, "nearest_code", args, threads)[0] for threads in (1, 2))
    assert torch.equal(one, two) and torch.equal(one, wanted("nearest_code", args)[0])
    if tokens:
        broken = args[0].clone()
        broken[1, 0] = float("nan")
        got = run(library, "nearest_code", (broken, *args[1:]))[0]
        assert 0 <= got.min() <= got.max() < codes
        assert torch.equal(got[0], one[0]) and torch.equal(got[1, 1:], one[1, 1:])
    with pytest.raises(Exception, match="do not fit each other"):
        run(library, "nearest_code", (args[0], book, torch.zeros(codes + 1)))


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (2, 31, "order holds 31; there are 31"),
        (2, -1, "order holds -1; there are 31"),
        (3, 28, "destination holds 28; there are 28"),
    ],
)
def test_places_that_do_not_exist(library, place, value, told):
    inputs = [each.clone() for each in dict(plugins.load("merge_tokens").cases())["odd"]]
    inputs[place][1, 0] = value
    with pytest.raises(Exception, match=told):
        run(library, "merge_tokens", inputs)


def test_shapes_that_do_not_fit(library):
    x, size, order, destination, kept = dict(plugins.load("merge_tokens").cases())["odd"]
    for inputs, told in (
        ((x, size[:, :5], order, destination, kept), "its weights"),
        ((x, size, order, destination[:, :2], kept), "destination is"),
        ((x, size, order, destination, kept + 9), "order is"),
    ):
        with pytest.raises(Exception, match=told):
            run(library, "merge_tokens", inputs)
    a, b, bias_a, bias_b = dict(plugins.load("bipartite_match").cases())["odd"]
    with pytest.raises(Exception, match="do not fit each other"):
        run(library, "bipartite_match", (a, b[..., :4], bias_a, bias_b))
    with pytest.raises(Exception, match="a bias has the shape"):
        run(library, "bipartite_match", (a, b, bias_a[:, :3], bias_b))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("family", ["deit", "bert", "dinov2-registers"])
@pytest.mark.parametrize(
    "spec", ["tome:r=4", "pitome:r=4", "mctf:r=4", "cls-topk:r=4", "diffrate:r=4,prune=0.5", "atc:r=4"]
)
def test_a_graph_with_the_operators_equals_the_hooked_module(family, spec, dtype):
    """In place of the functions that it carries."""
    if native.library() is None:
        pytest.skip(native.status().detail)
    data, module = captured(family)
    reduced = reduce(data, technique.parse(spec), dtype, native=True)
    for batch in (1, 3):
        compare(reduced, family, module, families.feeds(family, batch), TYPES[dtype])


def test_the_operators_take_the_place_of_the_functions(tmp_path):
    """Their nodes run under their own names, and the profiler sees them; a plain session inlines the functions."""
    if native.library() is None:
        pytest.skip(native.status().detail)
    data, _ = captured("deit")
    graph = ir.from_proto(onnx.ModelProto.FromString(data))
    transform(graph, [technique.parse("tome:r=4,layers=1")], dtype="fp32", emit="full")
    plugins.add_functions(graph)
    ir.save(graph, tmp_path / "model.onnx")
    feeds = {name: value.numpy() for name, value in families.feeds("deit", 1).items()}
    outputs = {}
    for plain in (False, True):
        loaded = runtimes.load("onnxruntime")(tmp_path / "model.onnx", specs(graph.graph.inputs), plain=plain)
        with loaded as runtime:
            outputs[plain] = runtime.run(feeds)
            (profiled,) = runtime.profile(feeds, warm_up=0, runs=1)
        found = {node.name for node in profiled.nodes if node.op in native.IN_PLACE}
        assert found == (set() if plain else {"blocks.1/reduce/BipartiteMatch", "blocks.1/reduce/MergeTokens"})
    for name, array in outputs[True].items():
        np.testing.assert_allclose(outputs[False][name], array, rtol=1e-4, atol=1e-5)
