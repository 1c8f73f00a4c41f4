"""TokenSparseAttention, as a function and in C++: against the oracle's mask, in every type, on input that is broken."""

import pytest
import torch

from edgetok import plugins
from tests.test_block_sparse_attention import arrays
from tests.test_native_tokens import check, run, wanted
from tests.test_operators import attributes_of, run_function
from tests.test_sparse_choices import clustered

NAME = "token_sparse_attention"


@pytest.fixture(params=["function", "native"])
def attend(request: pytest.FixtureRequest):
    """The operator on torch tensors, in fp32 for the function."""
    if request.param == "native":
        library = request.getfixturevalue("library")
        return lambda *args: run(library, NAME, args, threads=2)[0]
    return lambda *args: torch.from_numpy(run_function(NAME, args, attributes_of(NAME, args))[0])


@pytest.mark.parametrize("kind", ["bidir", "causal", "gqa_kvheads_0_2", "kvlen490"])
def test_lists_of_blocks_written_out_are_the_published_mask(attend, kind):
    """Blocks of 64 queries share a list; it holds all tokens of the blocks on theirs."""
    golden, inputs = arrays("block_sparse_attention_op_random"), arrays("inputs")
    q, k, v = (inputs[f"random_{name}"].float() for name in "qkv")
    bias = torch.zeros(1, 1)
    if kind == "kvlen490":
        bias = torch.where(torch.arange(512) < 490, 0.0, -torch.inf)[None]
    if kind == "gqa_kvheads_0_2":
        k, v = k[:, [0, 2]], v[:, [0, 2]]
    tokens = (golden["block_idx"][..., None] * 64 + torch.arange(64, dtype=torch.int32)).flatten(-2)
    got = attend(q, k, v, tokens, golden["block_cnt"] * 64, bias, 64, 0.125, int(kind == "causal"))
    torch.testing.assert_close(got[:, :, golden["rows"].long()], golden[f"out_rows_{kind}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("block_q", [1, 100])
def test_the_nearest_keys_of_clustered_tokens(attend, block_q):
    """Each list holds the keys with the largest scores, which get nearly all of the attention."""
    q, k = clustered(heads=2, groups=2, tokens=333)
    scores = torch.nn.functional.pad(q @ k.mT, (0, 0, 0, -333 % block_q))
    idx = scores.unflatten(2, (-1, block_q)).amax(dim=3).topk(37, dim=-1).indices.int()
    args = q, k, k, idx, torch.full(idx.shape[:-1], 37, dtype=torch.int32), torch.zeros(1, 1), block_q, 0.125, 0
    check(attend(*args), wanted(NAME, args)[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("case", ["each", "chunk"])
def test_what_is_not_finite_stays_in_its_sample_and_head(attend, value, case):
    args = list(dict(plugins.load(NAME).cases())[case])
    args[4] = torch.full_like(args[4], args[3].shape[-1])  # so that some query sees the broken key
    clean, heads = attend(*args), args[1].shape[1]
    shared = args[0].shape[1] // heads
    args[3][1, :, :, 0] = 20
    args[3][1, :, :, 1:] = torch.arange(21, 20 + args[3].shape[-1], dtype=torch.int32)
    for place in range(3):
        broken = [each.clone() for each in args[:3]]
        broken[place][1, -1, 20, 5] = value
        got = attend(*broken, *args[3:])
        first = got.shape[1] - (1 if place == 0 else shared)
        assert torch.equal(got[0], clean[0]) and got[1, :first].isfinite().all()
        assert not got[1, first:].isfinite().all()


SIZES = [(1, 1, 1, 1), (65, 200, 1, 33), (130, 70, 100, 64), (33, 33, 4, 32), (9, 300, 16, 299)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("heads", [(1, 1, 1), (6, 2, 2), (4, 4, 1), (4, 2, 4), (6, 2, 3)])
def test_any_sizes(attend, sizes, heads):
    (queries, keys, block_q, most), (of_q, of_k, lists) = sizes, heads
    seeded = torch.Generator().manual_seed(queries)
    q = torch.randn(2, of_q, queries, 24, generator=seeded)
    k, v = torch.randn(2, of_k, keys, 24, generator=seeded), torch.randn(2, of_k, keys, 40, generator=seeded)
    rows = -(-queries // block_q)
    idx = torch.rand(2, lists, rows, keys, generator=seeded).argsort(dim=-1)[..., :most].int()
    count = torch.randint(0, most + 1, (2, lists, rows), generator=seeded).int()
    args = q, k, v, idx, count, torch.randn(2, keys, generator=seeded), block_q, 0.2
    for causal in (0, 1):
        check(attend(*args, causal), wanted(NAME, (*args, causal))[0])


@pytest.mark.parametrize(("dtype", "epsilon"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_half_precision(library, dtype, epsilon):
    """Inputs are rounded; sums are fp32's, so what comes out is off by half a unit of the type."""
    for name, args in plugins.load(NAME).cases():
        given = [arg.to(dtype) if torch.is_tensor(arg) and i < 3 else arg for i, arg in enumerate(args)]
        got = run(library, NAME, given)[0]
        assert got.dtype == dtype, name
        check(got, wanted(NAME, given)[0], epsilon)


def test_wrong_shapes_are_refused(library):
    q, k, v, idx, count, bias, *rest = dict(plugins.load(NAME).cases())["each"]
    for broken, why in (
        ((q, k[:, :, :, :9], v, idx, count, bias), "do not fit each other"),
        ((q, k, v, idx[:, :, :1], count, bias), "token_idx has the shape"),
        ((q, k, v, idx, count[:, :1], bias), "token_cnt has the shape"),
        ((q, k, v, idx, count, torch.zeros(2, 9)), "a bias has the shape"),
        ((q, k, v, idx, count, bias, 0, *rest[1:]), "block_q is a number from 1"),
    ):
        with pytest.raises(Exception, match=why):
            run(library, NAME, (*broken, *rest)[:9])


@pytest.mark.parametrize("case", ["each", "chunk"])
def test_counts_and_numbers_that_lie_are_bounded(library, case):
    """Hostile lists read nothing beyond the keys."""
    q, k, v, idx, count, bias, *rest = dict(plugins.load(NAME).cases())[case]
    for lie in (2**31 - 1, -(2**31)):
        lies = torch.full_like(idx, lie)
        assert not run(library, NAME, (q, k, v, lies, torch.full_like(count, 2**31 - 1), bias, *rest))[0].any()
    assert not run(library, NAME, (q, k, v, idx, torch.full_like(count, -(2**31)), bias, *rest))[0].any()
