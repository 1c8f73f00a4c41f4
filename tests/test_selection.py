"""The operators that choose step by step: by hand, against published code and scipy, and in every spelling."""

import math

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx_ir.passes.common import InlinePass
from scipy.cluster import hierarchy
from torch.nn.functional import normalize

from edgetok import devices, plugins
from edgetok.graph import IR_VERSION, OPSET
from edgetok.lint import lint
from tests.test_golden import arrays
from tests.test_operators import attributes_of, run_function

LINKAGES = ("single", "complete", "average")
NO_PADDING = torch.zeros(1, 1)


def angles(*degrees: float) -> torch.Tensor:
    """(1, N, 2): unit rows in the plane."""
    radians = torch.tensor([degrees]) * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], dim=-1)


def unit_rows(batch: int, tokens: int, width: int) -> torch.Tensor:
    return normalize(torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(tokens)), dim=-1)


def greedy(gain: torch.Tensor, start: torch.Tensor, count: int, objective: str) -> list[list[int]]:
    return run_function("greedy_select", (gain, start), {"count": count, "objective": objective})[0].tolist()


def farthest(x: torch.Tensor, count: int, weight: torch.Tensor | None = None, bias: torch.Tensor = NO_PADDING):
    weight = torch.ones(1, 1) if weight is None else weight
    return run_function("farthest_points", (x, weight, bias), {"count": count})[0].tolist()


def cluster(x: torch.Tensor, count: int, linkage: str, padding: torch.Tensor = NO_PADDING) -> list[list[int]]:
    return run_function("agglomerative_clusters", (x, padding), {"count": count, "linkage": linkage})[0].tolist()


def first_seen(labels: np.ndarray) -> list[int]:
    """Labels renumbered by where they first occur."""
    numbers: dict[int, int] = {}
    return [numbers.setdefault(int(label), len(numbers)) for label in labels]


def test_greedy_by_hand():
    gain = torch.tensor([[[0, 5, 9, 6], [0, 0, 1, 7], [0, 2, 0, 2], [0, 1, 6, 0]]]).float()
    start = torch.tensor([[4, 3, 2, 1]]).float()
    assert greedy(gain, start, 4, "max_min") == [[0, 2, 1, 3]]  # 9; min(5, 2) is min(6, 2): the lower index
    assert greedy(gain, start, 3, "max_sum") == [[0, 2, 3]]  # 9; then 5 + 2 against 6 + 2


def test_farthest_by_hand():
    assert farthest(angles(0, 10, 30, 100, 175), 4) == [[4, 0, 3, 2]]  # 75 to the nearest
    assert farthest(angles(0, 10, 180), 2) == [[2, 0]]
    weight = torch.tensor([[0.01, 1.0, 1.0]])
    assert farthest(angles(0, 10, 180), 2, weight) == [[2, 1]]


def test_clusters_by_hand():
    x = angles(0, 50, 10, 54, 30, 180)  # neighbours: 4, 10, 20, 20 degrees apart
    assert cluster(x, 4, "single") == [[0, 1, 0, 1, 2, 3]]
    assert cluster(x, 3, "complete") == [[0, 1, 0, 1, 1, 2]]  # 24 to 50 and 54, 30 to 0 and 10
    chain = angles(0, 21, 41, 60, 78)
    assert cluster(chain, 2, "single") == [[0, 1, 1, 1, 1]]
    assert cluster(chain, 2, "complete") == [[0, 0, 0, 1, 1]]  # 0 to 41 against 21 to 78


def test_a_long_chain():
    x = angles(*(0.3 * i * i for i in range(24)))  # each merge waits for the one before
    assert cluster(x, 3, "single") == [[0] * 22 + [1, 2]]


def test_greedy_prune_is_the_visit_by_saliency():
    x = unit_rows(1, 40, 3)
    cosine = (x @ x.mT)[0]
    saliency = torch.rand(40, generator=torch.Generator().manual_seed(1))
    visit = saliency.argsort(descending=True).tolist()
    kept: list[int] = []
    for i in visit:
        if all(cosine[i, j] <= 0.3 for j in kept):
            kept.append(i)
    rejected = [i for i in visit if i not in kept]
    assert 3 < len(kept) < 20
    gain = saliency - 10.0 * (cosine > 0.3)
    assert greedy(gain[None], saliency[None], 20, "max_min") == [(kept + rejected)[:20]]


def test_equal_values_take_the_lower_index():
    equal = torch.ones(2, 5, 5), torch.zeros(2, 5)
    for objective in ("max_min", "max_sum"):
        assert greedy(*equal, 5, objective) == [[0, 1, 2, 3, 4]] * 2
    assert farthest(torch.zeros(2, 5, 3), 5) == [[0, 1, 2, 3, 4]] * 2
    for linkage in LINKAGES:
        assert cluster(angles(0, 0, 0, 0, 0, 90), 4, linkage) == [[0, 0, 0, 1, 2, 3]]


@pytest.mark.parametrize("case", ["clustered", "n576"])
def test_farthest_is_divprune(case: str):
    golden = arrays("divprune")
    order = golden[f"{case}_selected_order"].tolist()
    assert farthest(normalize(golden[f"{case}_x"][None], dim=-1), len(order)) == [order]


def test_a_duplicate_is_not_chosen_twice():
    distinct = unit_rows(1, 10, 16)
    (order,) = farthest(distinct.repeat(1, 8, 1), 20)
    assert len(set(order)) == 20 and len({index % 10 for index in order[:10]}) == 10


def test_clusters_are_atc():
    golden = arrays("atc_average_k98")
    labels = cluster(normalize(golden["metric"][:, 1:], dim=-1), int(golden["num_clusters"]), "average")
    assert labels[0] == first_seen(golden["labels"][0, 1:].numpy())


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize(("tokens", "count"), [(5, 3), (32, 29), (33, 23), (33, 9), (33, 2)])
def test_clusters_are_those_of_scipy(tokens: int, count: int, linkage: str):
    x = unit_rows(40, tokens, 6)
    for sample, labels in zip(x.double(), cluster(x, count, linkage), strict=True):
        distance = (1 - sample @ sample.T)[tuple(torch.triu_indices(tokens, tokens, 1))]
        wanted = hierarchy.cut_tree(hierarchy.linkage(distance.numpy(), linkage), n_clusters=count)
        assert labels == first_seen(wanted[:, 0])


def test_padding_goes_last():
    x = unit_rows(2, 9, 4)
    x[0, 1::2] = 1e3 * x[0, :1]  # what stands there is of no account
    padding = torch.zeros(2, 9)
    padding[0, 1::2] = 1
    real = x[:1, ::2]
    assert farthest(normalize(x, dim=-1), 5, bias=-4 * padding)[0] == [2 * i for i in farthest(real, 5)[0]]
    for linkage in LINKAGES:
        labels = cluster(normalize(x, dim=-1), 4, linkage, padding)[0]
        assert len(set(labels[1::2])) == 1 and labels[1] not in labels[::2]
        assert first_seen(labels[::2]) == cluster(real, 3, linkage)[0]
        assert set(cluster(normalize(x, dim=-1), 1, linkage, padding)[0]) == {0}


def test_a_sample_that_is_not_finite_stays_alone():
    x = unit_rows(3, 12, 4)
    broken = x.index_fill(0, torch.tensor(1), float("nan"))
    for choose in (lambda x: farthest(x, 5), lambda x: cluster(x, 5, "average")):
        got, clean = choose(broken), choose(x)
        assert got[0] == clean[0] and got[2] == clean[2]
        assert all(0 <= index < 12 for index in got[1])
    assert max(cluster(broken, 5, "single")[1]) < 5


NEW = ("agglomerative_clusters", "farthest_points", "greedy_select")


def caller(name: str, args: tuple[object, ...]) -> tuple[ir.Model, dict[str, np.ndarray]]:
    """A model that calls the operator, for any batch."""
    feeds = {f"in{i}": arg.numpy() for i, arg in enumerate(args) if isinstance(arg, torch.Tensor)}
    inputs = [
        ir.Value(
            name=key,
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=ir.Shape(["batch" if len(a) > 1 else 1, *a.shape[1:]]),
        )
        for key, a in feeds.items()
    ]
    function = plugins.load(name).function
    node = ir.node(function.name, inputs, attributes=attributes_of(name, args), domain=plugins.DOMAIN)
    node.outputs[0].name, node.outputs[0].type = "out", ir.TensorType(ir.DataType.INT64)
    node.outputs[0].shape = ir.Shape([None, None])
    graph = ir.Graph(inputs, node.outputs, nodes=[node], opset_imports={"": OPSET}, name="one")
    model = ir.Model(graph, ir_version=IR_VERSION)
    plugins.add_functions(model)
    return model, feeds


@pytest.mark.parametrize("name", NEW)
def test_every_spelling_gives_the_same(name: str):
    args = next(iter(plugins.load(name).cases()))[1]
    model, feeds = caller(name, args)
    proto = ir.to_proto(model)
    inlined = ir.from_proto(proto)
    InlinePass()(inlined)
    spellings = [proto, onnx.inliner.inline_local_functions(proto), ir.to_proto(inlined)]
    inferred = [onnx.shape_inference.infer_shapes(p, strict_mode=True, data_prop=True) for p in spellings]
    wanted = plugins.load(name).reference(*args).numpy()
    assert {str(ir.from_proto(p).graph.outputs[0].shape) for p in inferred} == {f"[batch,{wanted.shape[1]}]"}
    for spelling in spellings + inferred:
        onnx.checker.check_model(spelling)
        (got,) = onnxruntime.InferenceSession(spelling.SerializeToString()).run(None, feeds)
        np.testing.assert_array_equal(got, wanted)
        (got,) = onnxruntime.InferenceSession(spelling.SerializeToString()).run(
            None, {key: a[:1] for key, a in feeds.items()}
        )
        np.testing.assert_array_equal(got, wanted[:1])


@pytest.mark.parametrize("name", NEW)
def test_lint_says_nothing_on_a_processor(name: str):
    model, _ = caller(name, next(iter(plugins.load(name).cases()))[1])
    assert lint(model, devices.load("x86-cpu")) == []
