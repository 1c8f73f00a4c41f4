"""torch.nn.MultiheadAttention in the one form that capture makes an `Attention` node of.

torch's own puts tokens in front of the batch and folds heads into it, so that neither a block nor a token can be
followed through its nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from edgetok.modules.attention import attend


@contextmanager
def one_node_each(module: nn.Module) -> Iterator[None]:
    """Every nn.MultiheadAttention in a module computes the same by `OneNode` in here.

    Left as they are: subclasses, whose code is their own; keys or values of another width; `bias_k`, `add_zero_attn`.
    """
    found = [
        each
        for each in module.modules()
        if type(each) is nn.MultiheadAttention
        and each._qkv_same_embed_dim
        and each.bias_k is None
        and not each.add_zero_attn
    ]
    for each in found:
        each.__class__ = OneNode
    try:
        yield
    finally:
        for each in found:
            each.__class__ = nn.MultiheadAttention


class OneNode(nn.MultiheadAttention):
    """Queries, keys and values, (B, N, C), or (N, B, C) without `batch_first` -> the same of queries."""

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As nn.MultiheadAttention. The weights are computed beside the node: where nobody reads them they go."""
        if query.ndim != 3:  # without a batch
            return super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
        q, k, v = self._projected(query, key, value)
        mask = _mask(attn_mask, key_padding_mask, self.num_heads)
        y = self.out_proj(attend(q, k, v, self.num_heads, mask))
        weights = _weights(q, k, self.num_heads, mask) if need_weights else None
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        return (y if self.batch_first else y.transpose(0, 1)), weights

    def _projected(self, *streams: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """q, k and v, (B, N, C); by one product where all three come of one stream."""
        first, bias = streams[0], self.in_proj_bias
        turned = streams if self.batch_first else tuple(x.transpose(0, 1) for x in streams)
        if all(x is first for x in streams):
            return functional.linear(turned[0], self.in_proj_weight, bias).chunk(3, dim=-1)
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        return tuple(map(functional.linear, turned, self.in_proj_weight.chunk(3), biases))


def _mask(pairs: torch.Tensor | None, padding: torch.Tensor | None, heads: int) -> torch.Tensor | None:
    """One mask for (B, h, N, M): true where a token sees another, or what is added to the scores.

    Args:
        pairs: (N, M) or (B h, N, M), true where a token does not see another, or what is added.
        padding: (B, M), likewise of keys.
        heads: h.
    """
    if pairs is not None and pairs.ndim == 3:
        pairs = torch.unflatten(pairs, 0, (-1, heads))
    masks = [each for each in (pairs, None if padding is None else padding[:, None, None, :]) if each is not None]
    if all(each.dtype == torch.bool for each in masks):
        masks = [~each for each in masks]
        return None if not masks else masks[0] if len(masks) == 1 else masks[0] & masks[1]
    return sum(_added(each) for each in masks)  # type: ignore[return-value]  # masks are not empty


def _added(mask: torch.Tensor) -> torch.Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape).masked_fill(mask, float("-inf"))


def _weights(q: torch.Tensor, k: torch.Tensor, heads: int, mask: torch.Tensor | None) -> torch.Tensor:
    """(B, h, N, M), what `attend` weighs the values by."""
    q, k = (torch.unflatten(x, 2, (heads, -1)).transpose(1, 2) for x in (q, k))
    scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1)
