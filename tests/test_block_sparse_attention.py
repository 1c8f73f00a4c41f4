"""BlockSparseAttention, as a function and in C++: against published code, in every type, on input that is broken."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgetok import plugins
from tests.test_native_tokens import check, run, wanted
from tests.test_operators import attributes_of, run_function

GOLDEN = Path(__file__).parent / "golden" / "sparse"
NAME = "block_sparse_attention"


@pytest.fixture(params=["function", "native"])
def attend(request: pytest.FixtureRequest):
    """The operator on torch tensors, in fp32 for the function."""
    if request.param == "native":
        library = request.getfixturevalue("library")
        return lambda *args: run(library, NAME, args, threads=2)[0]
    return lambda *args: torch.from_numpy(run_function(NAME, args, attributes_of(NAME, args))[0])


def arrays(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def drawn() -> list[torch.Tensor]:
    inputs = arrays("inputs")
    return [inputs[f"random_{name}"].float() for name in "qkv"]


@pytest.mark.parametrize("kind", ["bidir", "causal", "gqa_kvheads_0_2", "kvlen490"])
def test_lists_of_blocks_are_the_published_mask(attend, kind):
    golden, (q, k, v), bias = arrays(f"{NAME}_op_random"), drawn(), torch.zeros(1, 1)
    if kind == "kvlen490":
        bias = torch.where(torch.arange(512) < 490, 0.0, -torch.inf)[None]
    if kind == "gqa_kvheads_0_2":
        k, v = k[:, [0, 2]], v[:, [0, 2]]
    got = attend(q, k, v, golden["block_idx"], golden["block_cnt"], bias, 64, 64, 0.125, int(kind == "causal"), -1, 0)
    torch.testing.assert_close(got[:, :, golden["rows"].long()], golden[f"out_rows_{kind}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["bidir", "causal"])
def test_a_window_with_pinned_keys_is_that_of_flex_attention(attend, kind):
    golden, (q, k, v) = arrays("window_global_random"), drawn()
    window, pinned, block = golden["cfg"].tolist()
    counts = golden[f"{kind}_kv_num_blocks"], golden[f"{kind}_full_kv_num_blocks"]
    indices = golden[f"{kind}_kv_indices"], golden[f"{kind}_full_kv_indices"]
    lists = torch.full((1, 1, 8, 16), -1, dtype=torch.int32)  # blocks that it masks, and those seen as a whole
    for row in range(8):
        parts = [index[0, 0, row, : int(count[0, 0, row])] for count, index in zip(counts, indices, strict=True)]
        found = torch.cat(parts)
        lists[0, 0, row, : len(found)] = found
    count = (lists >= 0).sum(dim=-1).int()
    got = attend(q, k, v, lists, count, torch.zeros(1, 1), block, block, 0.125, int(kind == "causal"), window, pinned)
    torch.testing.assert_close(got[:, :, golden["rows"].long()], golden[f"out_rows_{kind}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_in_its_sample_and_head(attend, value):
    args = dict(plugins.load(NAME).cases())["quarter"]
    clean = attend(*args)
    for place in range(3):
        broken = [each.clone() for each in args[:3]]
        broken[place][1, 2, 70, 5] = value
        got = attend(*broken, *args[3:])
        assert torch.equal(got[0], clean[0]) and torch.equal(got[1, :2], clean[1, :2])
        assert not got[1, 2].isfinite().all()


SIZES = [(1, 1, 1, 1), (65, 200, 128, 16), (130, 33, 64, 128), (33, 33, 1, 32), (9, 300, 16, 1)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("heads", [(1, 1, 1), (6, 2, 2), (4, 4, 1), (4, 2, 4)])
def test_any_sizes(attend, sizes, heads):
    (queries, keys, block_q, block_k), (of_q, of_k, lists) = sizes, heads
    seeded = torch.Generator().manual_seed(queries)
    q = torch.randn(2, of_q, queries, 24, generator=seeded)
    k, v = torch.randn(2, of_k, keys, 24, generator=seeded), torch.randn(2, of_k, keys, 40, generator=seeded)
    rows, blocks = -(-queries // block_q), -(-keys // block_k)
    idx = torch.rand(2, lists, rows, blocks, generator=seeded).argsort(dim=-1).int()
    count = torch.randint(0, blocks + 1, (2, lists, rows), generator=seeded).int()
    args = q, k, v, idx, count, torch.randn(2, keys, generator=seeded), block_q, block_k, 0.2
    for kind in ((0, -1, 0), (1, -1, 0), (0, 7, 2), (1, 40, 0)):
        check(attend(*args, *kind), wanted(NAME, (*args, *kind))[0])


@pytest.mark.parametrize(("dtype", "epsilon"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_half_precision(library, dtype, epsilon):
    """Inputs are rounded; sums are fp32's, so what comes out is off by half a unit of the type."""
    for name, args in plugins.load(NAME).cases():
        given = [arg.to(dtype) if torch.is_tensor(arg) and i < 3 else arg for i, arg in enumerate(args)]
        got = run(library, NAME, given)[0]
        assert got.dtype == dtype, name
        check(got, wanted(NAME, given)[0], epsilon)


def test_wrong_shapes_are_refused(library):
    q, k, v, idx, count, bias, *rest = dict(plugins.load(NAME).cases())["quarter"]
    for broken, why in (
        ((q, k[:, :, :, :9], v, idx, count, bias), "do not fit each other"),
        ((q, k, v, idx[:, :, :1], count, bias), "block_idx has the shape"),
        ((q, k, v, idx, count[:, :1], bias), "block_cnt has the shape"),
        ((q, k, v, idx, count, torch.zeros(2, 9)), "a bias has the shape"),
    ):
        with pytest.raises(Exception, match=why):
            run(library, NAME, (*broken, *rest))


def test_counts_and_numbers_that_lie_are_bounded(library):
    """Hostile lists read nothing beyond the keys."""
    q, k, v, idx, count, bias, *rest = dict(plugins.load(NAME).cases())["quarter"]
    lies = torch.full_like(idx, 2**31 - 1)
    assert not run(library, NAME, (q, k, v, lies, torch.full_like(count, 2**31 - 1), bias, *rest))[0].any()
    assert not run(library, NAME, (q, k, v, idx, torch.full_like(count, -(2**31)), bias, *rest))[0].any()
