"""What sparse attention holds grows with the keys that are kept, not with all pairs of tokens."""

import pytest

from benchmarks import sparse_attention as benchmark
from edgetok import attention

pytestmark = pytest.mark.more

LENGTHS = (1024, 4096, 16384)
KEPT = 256  # keys of each query
CAUSAL = ("streaming", "sepllm", "minference", "quest", "tokenselect", "double-sparsity")
BOTH = [("means", False), ("means", True), ("xattention", True), ("hisa", True)]
SIDES = [*BOTH, *((name, name in CAUSAL) for name in attention.names())]


@pytest.mark.parametrize(("side", "causal"), SIDES)
def test_memory_grows_with_the_tokens_where_each_query_keeps_as_many_keys(side, causal, library):
    """The peak of a process beyond its loaded session; N x N numbers are 16 times as many at 4 times the tokens."""
    held = [benchmark.apart(side, tokens, KEPT / tokens, 1, causal) * 1e6 for tokens in LENGTHS]
    scores = 4 * benchmark.HEADS * LENGTHS[-1] ** 2  # bytes of those that dense attention holds
    assert held[2] < scores / (50 if side in ("window", "block-topk") else 10)  # means: 501 MB of 6442
    assert held[2] < 5 * held[1] and held[2] < 25 * held[0]
