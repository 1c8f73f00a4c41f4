"""What sparse attentions choose, against what published code chose."""

import torch

from edgetok import attention
from edgetok.attention import AttentionState
from tests.test_block_sparse_attention import arrays, drawn


def state(query: torch.Tensor, key: torch.Tensor, causal: bool, prefix: int = 0, ids: torch.Tensor | None = None):
    size = torch.ones(len(query), query.shape[2], 1, dtype=query.dtype)
    return AttentionState(query, key, size, query.shape[-1] ** -0.5, prefix, causal, ids)


def seen(text: str, given: AttentionState) -> torch.Tensor:
    """(B, h, N, N) bool: who sees whom by the reference, causality included."""
    spec = attention.parse(text)
    allowed = attention.load(spec.name).reference(given, spec.config)
    return allowed & torch.ones(allowed.shape[-2:], dtype=torch.bool).tril() if given.causal else allowed


def attended(mask: torch.Tensor) -> torch.Tensor:
    query, key, value = drawn()
    scores = query @ key.mT * 64**-0.5
    return scores.masked_fill(~mask[..., : scores.shape[-1]], -torch.inf).softmax(dim=-1) @ value


def test_streaming_sees_what_the_published_cache_holds():
    golden, (query, key, _) = arrays("streamingllm"), drawn()
    mask = seen("streaming:sinks=4,size=60", state(query, key, True))
    for step, kept in zip(golden["steps"].tolist(), golden["kept_positions"], strict=True):
        assert torch.equal(mask[0, 0, step].nonzero()[:, 0], kept[kept >= 0].long())
    wanted = golden["out_nope_t199_random"]
    torch.testing.assert_close(attended(mask)[:, :, 199:200], wanted, rtol=0, atol=1e-5)
