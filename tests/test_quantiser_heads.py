"""Every quantiser head x every example: its graphs against the reference, the authors' arrays, bad input."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetok import plugins
from edgetok.errors import InputError, ParityError, SourceError, UnknownName, UsageError
from edgetok.graph import IR_VERSION, OPSET, Emitter
from edgetok.tokenizer import head as heads
from edgetok.tokenizer.head import Head, Layout
from tests import near_ties

GOLDEN = Path(__file__).parent / "golden" / "tokenizers"
CASES = [(name, config) for name in heads.names() for config in heads.load(name).examples]
FIRST = {name: heads.load(name).examples[0] for name in heads.names()}


def cases(chosen: list[tuple[str, Any]] = CASES) -> pytest.MarkDecorator:
    """Parametrise by name and configuration."""
    ids = [f"{name}-{str(config).partition('(')[2][:-1]}" for name, config in chosen]
    return pytest.mark.parametrize(("name", "config"), chosen, ids=ids)


def weights(head: Head, config: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded weights; one level after the other smaller, as residual codebooks are."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in head.parameters(config).items()}
    for array in arrays.values():
        if array.ndim == 3:
            array *= (0.6 ** np.arange(len(array), dtype=np.float32))[:, None, None]
    return arrays


def vectors(layout: Layout, batch: int, tokens: int, seed: int = 1) -> np.ndarray:
    """Seeded vectors (B, N, D), spread over what the heads tell apart."""
    return (np.random.default_rng(seed).standard_normal((batch, tokens, layout.width)) * 1.5).astype(np.float32)


def model_of(
    head: Head, what: str, parameters: dict[str, np.ndarray], config: Any, shape: tuple[int | str, ...] = ("batch", "n")
) -> ir.Model:
    """A graph that encodes, or one that decodes."""
    layout = head.layout(config)
    axes = list(layout.shape(*shape)), [*shape, layout.width]  # type: ignore[arg-type]
    given, made = axes[::-1] if what == "encode" else axes
    types = (ir.DataType.FLOAT, ir.DataType.INT64) if what == "encode" else (ir.DataType.INT64, ir.DataType.FLOAT)
    value = ir.Value(name="in", type=ir.TensorType(types[0]), shape=ir.Shape(given))
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": OPSET}, name=what)
    out = getattr(head, what)(Emitter(graph), value, parameters, config)
    out.name, out.type, out.shape = "out", ir.TensorType(types[1]), ir.Shape(made)
    graph.outputs.append(out)
    model = ir.Model(graph, ir_version=IR_VERSION)
    plugins.add_functions(model)
    return model


class Both:
    """A head's two graphs in sessions, and its references."""

    def __init__(self, name: str, config: Any, parameters: dict[str, np.ndarray] | None = None):
        self.head, self.config = heads.load(name), config
        self.layout = self.head.layout(config)
        self.parameters = weights(self.head, config) if parameters is None else parameters
        heads.check_parameters(self.head, self.parameters, config)
        self.sessions = {
            what: onnxruntime.InferenceSession(
                ir.to_proto(model_of(self.head, what, self.parameters, config)).SerializeToString(),
                providers=["CPUExecutionProvider"],
            )
            for what in ("encode", "decode")
        }

    def encode(self, x: np.ndarray) -> np.ndarray:
        return self.sessions["encode"].run(None, {"in": x})[0]

    def decode(self, ids: np.ndarray) -> np.ndarray:
        return self.sessions["decode"].run(None, {"in": ids.astype(np.int64)})[0]

    def tensors(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {key: torch.from_numpy(array).to(dtype) for key, array in self.parameters.items()}

    def wanted_ids(self, x: torch.Tensor) -> np.ndarray:
        return self.head.reference_encode(x, self.tensors(x.dtype), self.config).numpy()

    def wanted_vectors(self, ids: np.ndarray, dtype: torch.dtype = torch.float64) -> np.ndarray:
        return self.head.reference_decode(torch.from_numpy(ids), self.tensors(dtype), self.config).numpy()

    def any_ids(self, batch: int, tokens: int) -> np.ndarray:
        shape = self.layout.shape(batch, tokens)
        sizes = self.layout.sizes if len(shape) > 2 else self.layout.sizes[0]
        return np.random.default_rng(2).integers(0, sizes, shape)


def judged(both: Both, name: str, x: np.ndarray, ids: np.ndarray) -> near_ties.Judged:
    """Ids against the best in fp64, by what fp32 rounds."""
    sides = (
        near_ties.of_head(name, both.config, both.tensors(dtype), torch.from_numpy(x).to(dtype), torch.from_numpy(ids))
        for dtype in (torch.float64, torch.float32)
    )
    return near_ties.judge(*sides)


@cases()
def test_graph_equals_reference(name: str, config: Any) -> None:
    both = Both(name, config)
    for batch, tokens in ((1, 1), (3, 37), (1, 64)):
        x = vectors(both.layout, batch, tokens, seed=batch)
        ids = both.encode(x)
        assert ids.dtype == np.int64 and ids.shape == both.layout.shape(batch, tokens)
        heads.check_ids(ids, both.layout)
        assert judged(both, name, x, ids).check() <= ids.size // 1000
        for codes in (ids, both.any_ids(batch, tokens)):
            got, exact, plain = (
                both.decode(codes),
                both.wanted_vectors(codes),
                both.wanted_vectors(codes, torch.float32),
            )
            assert got.dtype == np.float32 and got.shape == x.shape
            allowed = max(2 * np.linalg.norm(plain - exact), 1e-4 * np.linalg.norm(exact))
            assert np.linalg.norm(got - exact) <= allowed


@cases([case for case in CASES if heads.load(case[0]).layout(case[1]).sizes[0] > 1])
def test_other_ids_are_no_near_ties(name: str, config: Any) -> None:
    """The judgement itself: of each id another one, and none of them passes."""
    both = Both(name, config)
    x = vectors(both.layout, 2, 9)
    other = (both.encode(x) + 1) % np.array(both.layout.sizes if len(both.layout.sizes) > 1 else both.layout.sizes[0])
    with pytest.raises(ParityError, match="ids are no near-ties"):
        judged(both, name, x, other).check()


@cases()
def test_no_tokens_and_one_code_apart(name: str, config: Any) -> None:
    """Nothing in, nothing out; and a token's ids do not depend on what stands beside it."""
    both = Both(name, config)
    assert both.encode(vectors(both.layout, 2, 0)).shape == both.layout.shape(2, 0)
    assert both.decode(both.any_ids(2, 0)).shape == (2, 0, both.layout.width)
    x = vectors(both.layout, 2, 9)
    np.testing.assert_array_equal(both.encode(x)[1:, 4:], both.encode(x[1:, 4:]))


@cases()
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_stays_within_the_codebook_and_alone(name: str, config: Any, bad: float) -> None:
    both = Both(name, config)
    x = vectors(both.layout, 3, 5)
    clean = both.encode(x)
    x[1, 2, -1], x[1, 3] = bad, bad
    got = both.encode(x)
    heads.check_ids(got, both.layout)
    untouched = np.ones((3, 5), bool)
    untouched[1, 2:4] = False
    np.testing.assert_array_equal(got[untouched], clean[untouched])
    assert np.isfinite(both.decode(got)).all()


@cases([case for case in CASES if heads.load(case[0]).invertible])
def test_ids_come_back(name: str, config: Any) -> None:
    both = Both(name, config)
    ids = both.any_ids(2, 50)
    np.testing.assert_array_equal(both.encode(both.decode(ids)), ids)


@cases()
def test_any_integer_is_decoded_as_the_nearest_id(name: str, config: Any) -> None:
    both = Both(name, config)
    lowest, sizes = -1 if both.layout.skips else 0, np.array(both.layout.sizes)
    edges = [0, int(sizes[0]), 2**31, 2**32, -(2**31), 2**62]
    near = st.builds(int.__add__, st.sampled_from(edges), st.integers(-3, 3))
    limits = st.one_of(st.integers(-(2**63), 2**63 - 1), near)
    count = prod(both.layout.shape(1, 4))

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.lists(limits, min_size=count, max_size=count))
    def check(drawn: list[int]) -> None:
        ids = np.array(drawn, np.int64).reshape(both.layout.shape(1, 4))
        top = sizes - 1 if ids.ndim > 2 else sizes[0] - 1
        within = np.clip(ids, lowest, top)
        np.testing.assert_array_equal(both.decode(ids), both.decode(within))
        heads.check_ids(within, both.layout)
        if (within != ids).any():
            with pytest.raises(InputError, match=r"ids lie outside the codebook: the first, -?\d+ at \(0, "):
                heads.check_ids(ids, both.layout)

    check()


@pytest.mark.parametrize(
    ("ids", "layout", "told"),
    [
        (np.zeros((1, 2)), Layout(4, (8,)), "ids of type float64: integers are accepted"),
        (np.zeros(3, int), Layout(4, (8,)), r"ids of shape \(3,\): accepted is \(batch, tokens\)"),
        (np.zeros((1, 3, 2), int), Layout(4, (8,)), r"ids of shape \(1, 3, 2\): accepted is \(batch, tokens\)"),
        (np.zeros((1, 3), int), Layout(4, (8, 9)), r"accepted is \(batch, tokens, 2\)"),
        (np.array([[[7, 9]]]), Layout(4, (8, 9)), r"1 of 2 ids .* first, 9 at \(0, 0, 1\), is not within 0 to 8;"),
        (
            np.array([[-2, 8]]),
            Layout(4, (8,), skips=True),
            r"2 of 2 ids .* first, -2 at \(0, 0\), is not within -1 to 7;",
        ),
        (
            np.array([[2**64 - 1]], np.uint64),
            Layout(4, (8,)),
            r"18446744073709551615 at \(0, 0\), is not within 0 to 7;",
        ),
    ],
)
def test_ids_that_are_none_are_named(ids: np.ndarray, layout: Layout, told: str) -> None:
    with pytest.raises(InputError, match=told):
        heads.check_ids(ids, layout)


def test_weights_that_do_not_fit_are_named() -> None:
    head, config = heads.load("vq"), FIRST["vq"]
    good = weights(head, config)["codebook"]
    for arrays, told in (
        ({}, "no weights 'codebook'"),
        ({"codebook": good[:5]}, r"'codebook' have shape \(5, 16\); by the configuration it is \(128, 16\)"),
        ({"codebook": np.where(good == good[3], np.nan, good)}, "not finite"),
    ):
        with pytest.raises(SourceError, match=told):
            heads.check_parameters(head, arrays, config)
    with pytest.raises(UnknownName, match="no head 'rqv': did you mean 'rvq'"):
        heads.load("rqv")


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("vq", {"codes": 0}, "codes=0: accepted are whole numbers from 1 up"),
        ("vq", {"metric": "l1"}, "metric='l1': accepted are 'euclidean' and 'cosine'"),
        ("rvq", {"levels": 4, "keep": 5}, "keep=5: accepted are whole numbers from 0 to 4"),
        ("product", {"groups": 3}, "groups=3: accepted is what divides width=64"),
        ("fsq", {"levels": (2, 5)}, "a number of levels=2: accepted are whole numbers from 3 up"),
        ("fsq", {"levels": (8,) * 21}, r"accepted are 2\^53 at most"),
        ("lfq", {"bits": 54}, "bits=54: accepted are whole numbers from 1 to 53"),
        ("bsq", {"bits": 128}, "bits of an id=128"),
        ("dimwise", {"low": 1.0, "high": 1.0}, "low must be below high"),
    ],
)
def test_configurations_that_are_none_are_refused(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        heads.load(name).config(**options)


@cases()
def test_nothing_that_tensorrt_does_not_run(name: str, config: Any) -> None:
    """Operators that no TensorRT imports, and loops, by name; `test_tensorrt_rtx.py` builds a part."""
    head = heads.load(name)
    barred = ("Loop", "Scan", "If", "NonZero", "BitShift", "BitwiseAnd", "BitwiseOr", "CumProd", "Unique", "DFT")
    for what in ("encode", "decode"):
        model = model_of(head, what, weights(head, config), config)
        nodes = [node for graph in (model.graph, *model.functions.values()) for node in graph.all_nodes()]
        assert {node.domain for node in nodes} <= {"", "edgetok"}
        assert not {node.op_type for node in nodes} & set(barred)


def golden(name: str) -> dict[str, np.ndarray]:
    """Arrays from the authors' code."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def tokens_last(array: np.ndarray) -> np.ndarray:
    """(B, C, H, W) -> (B, H W, C)."""
    return array.reshape(*array.shape[:2], -1).transpose(0, 2, 1).copy()


AUTHORS: dict[str, tuple[str, dict[str, Any], dict[str, str], str, str]] = {
    # head: file, options, weights, decoded, ids
    "vq": ("vq_euclid", {"codes": 128, "width": 16}, {"codebook": "codebook"}, "quantized", "indices"),
    "rvq": ("rvq_4x64", {"levels": 4, "codes": 64, "width": 16}, {"codebooks": "codebooks"}, "quantized", "indices"),
    "product": ("product_vq_2x32", {"codes": 32, "width": 16}, {"codebooks": "codebooks"}, "quantized", "indices"),
    "fsq": ("fsq_8_5_5_5", {}, {}, "codes", "indices"),
    "lfq": ("lfq_d12_c1_s1.0", {"bits": 12}, {}, "codes", "indices"),
    "bsq": ("bsq_vqpt_d12", {"bits": 12}, {}, "codes", "indices"),
    "gq": ("wetok_gfq_g4_d8", {}, {}, "quantized", "indices_bnc"),
    "dimwise": ("tokenbridge_b6", {}, {}, "dequant", "indices"),
    "dual": (
        "tokenflow_256_32_8",
        {"codes": 256},
        {"semantic": "codebook_sem", "pixel": "codebook_pix"},
        "quantized",
        "indices",
    ),
    "dmel": ("dmel_4bit", {}, {}, "values", "indices"),
}


@pytest.mark.parametrize("name", AUTHORS)
def test_authors_ids_and_vectors(name: str) -> None:
    file, options, names, decoded, indices = AUTHORS[name]
    arrays = golden(file)
    x, ids, values = arrays["x" if "x" in arrays else "logmel"], arrays[indices], arrays[decoded]
    both = Both(name, heads.load(name).config(**options), {key: arrays[source] for key, source in names.items()})
    if x.ndim == 4:
        if ids.shape == x.shape:  # an id for each channel
            ids = tokens_last(ids)
        x, values = tokens_last(x), tokens_last(values)
    ids = ids.reshape(both.layout.shape(*x.shape[:2]))
    counts = (x != 3) if name == "dmel" else np.ones(ids.shape, bool)  # 3 is dmel's padding, which has an id of its own
    got = both.encode(x)
    np.testing.assert_array_equal(got[counts], ids[counts])
    held = counts if counts.shape == values.shape else ...
    np.testing.assert_allclose(both.decode(np.where(counts, ids, 0))[held], values[held], rtol=1e-5, atol=1e-5)


def test_authors_ramp_through_fsq() -> None:
    arrays = golden("fsq_8_5_5_5")
    both = Both("fsq", FIRST["fsq"])
    np.testing.assert_array_equal(both.encode(arrays["ramp"]), arrays["ramp_indices"])
    np.testing.assert_array_equal(both.decode(arrays["ramp_indices"]), arrays["ramp_codes"])


def test_authors_ramp_through_buckets() -> None:
    """Differences lie where two values are equally near."""
    arrays = golden("tokenbridge_b6")
    both = Both("dimwise", heads.load("dimwise").config(width=2))
    ramp = np.repeat(arrays["ramp"], 2, axis=1)[None]
    got, wanted = both.encode(ramp)[0, :, :1], arrays["ramp_indices"]
    far = np.abs(arrays["ramp"] - both.decode(np.repeat(wanted, 2, axis=1)[None])[0, :, :1])
    own = np.abs(arrays["ramp"] - both.decode(np.repeat(got, 2, axis=1)[None])[0, :, :1])
    assert (got != wanted).sum() <= 2 and np.abs(far - own).max() < 1e-5


def test_the_first_levels_are_those_of_all_levels() -> None:
    config = FIRST["rvq"]
    everything = Both("rvq", config)
    few = Both("rvq", type(config)(config.levels, config.codes, config.width, keep=2), everything.parameters)
    x = vectors(everything.layout, 2, 20)
    ids = everything.encode(x)
    np.testing.assert_array_equal(few.encode(x), ids[..., :2])
    skipped = ids.copy()
    skipped[..., 2:] = -1
    heads.check_ids(skipped, everything.layout)
    np.testing.assert_allclose(everything.decode(skipped), few.decode(ids[..., :2]), atol=1e-6)


def test_equal_codes_take_the_lower_index() -> None:
    for codes in (128, 9000):
        config = heads.load("vq").config(codes=codes, width=8)
        codebook = weights(heads.load("vq"), config)["codebook"]
        codebook[77:] = codebook[13]
        both = Both("vq", config, {"codebook": codebook})
        assert both.encode(codebook[None, [13, 77, codes - 1]]).tolist() == [[13, 13, 13]]


def test_bits_of_the_published_layouts() -> None:
    bits = {name: heads.load(name).layout(heads.load(name).config()).bits for name in heads.names()}
    assert bits["vq"] == 10 and bits["rvq"] == 80 and bits["lfq"] == 18 and bits["gq"] == 32 and bits["dual"] == 15
    assert bits["dmel"] == 320 and bits["dimwise"] == 96
    assert bits["fsq"] == pytest.approx(np.log2(1000))


def test_every_head_says_what_it_is() -> None:
    for name in heads.names():
        head = heads.load(name)
        assert head.summary and "https://" in head.paper and head.examples
        assert head.layout(head.config()).width > 0
