"""A causal transformer that sees a window of tokens back, for whole sequences and for streams: Mimi's.

Moshi: a speech-text foundation model for real-time dialogue, https://arxiv.org/abs/2410.00037, section 3.3.1; published
code: kyutai-labs/moshi (MIT), modules/transformer.py; transformers' MimiTransformerModel, whose weights
`load_state_dict` takes as they are. Rotary positions: RoFormer, https://arxiv.org/abs/2104.09864.

What differs: the keys and values of a stream are the last window - 1 tokens in their order, not a ring; a token's place
is a number beside them, so that streams of different ages can share a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from edgetok.modules.memory import Memory


@dataclass(frozen=True)
class Shape:
    """What a transformer is built of.

    Attributes:
        width: of a token.
        layers: how many.
        heads: of the queries.
        key_heads: of keys and values; divides `heads`.
        head: width of a head.
        inner: width inside the MLP.
        window: how many tokens a token sees, itself included.
        theta: base of the rotary positions.
        epsilon: of the norms.
        bias: whether the projections of attention have one.
        stride: tokens of this transformer for a token of the stream.
    """

    width: int
    layers: int
    heads: int
    key_heads: int
    head: int
    inner: int
    window: int
    theta: float = 10000.0
    epsilon: float = 1e-5
    bias: bool = False
    stride: int = 1


class SlidingTransformer(nn.Module):
    """(B, N, C) -> (B, N, C)

    Args:
        shape: what it is built of.
        activation: of the MLPs; without weights.
    """

    frequencies: torch.Tensor

    def __init__(self, shape: Shape, activation: nn.Module):
        super().__init__()
        self.shape = shape
        self.layers = nn.ModuleList(Layer(shape, activation) for _ in range(shape.layers))
        frequencies = shape.theta ** (-torch.arange(0, shape.head, 2, dtype=torch.float32) / shape.head)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, x: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        new = torch.arange(x.shape[1])
        if memory is None:
            place = past = new[None]  # (1, N)
        else:
            place = memory.position[:, None] * self.shape.stride + new  # (B, N)
            before = torch.arange(1 - self.shape.window, 0) + memory.position[:, None] * self.shape.stride
            past = torch.cat([before, place], dim=1)  # (B, window - 1 + N), below 0 where there was no token
        ago = place[:, :, None] - past[:, None]  # (B, N, keys)
        seen = ((ago >= 0) & (ago < self.shape.window) & (past >= 0)[:, None])[:, None]
        angle = place[:, None, :, None].to(x.dtype) * self.frequencies  # (B, 1, N, d / 2)
        turn = torch.cat([angle, angle], dim=-1)
        for layer in self.layers:
            x = layer(x, turn.cos(), turn.sin(), seen, memory)
        return x


class Layer(nn.Module):
    """(B, N, C) -> (B, N, C): attention and MLP, each behind a norm and scaled channel by channel."""

    def __init__(self, shape: Shape, activation: nn.Module):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(shape.width, shape.epsilon)
        self.self_attn = Attention(shape)
        self.self_attn_layer_scale = Scale(shape.width)
        self.post_attention_layernorm = nn.LayerNorm(shape.width, shape.epsilon)
        self.mlp = MLP(shape, activation)
        self.mlp_layer_scale = Scale(shape.width)

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, seen: torch.Tensor, memory: Memory | None
    ) -> torch.Tensor:
        x = x + self.self_attn_layer_scale(self.self_attn(self.input_layernorm(x), cos, sin, seen, memory))
        return x + self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(x)))


class Attention(nn.Module):
    """(B, N, C) -> (B, N, C)"""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.width, shape.heads * shape.head, shape.bias)
        self.k_proj = nn.Linear(shape.width, shape.key_heads * shape.head, shape.bias)
        self.v_proj = nn.Linear(shape.width, shape.key_heads * shape.head, shape.bias)
        self.o_proj = nn.Linear(shape.heads * shape.head, shape.width, shape.bias)

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, seen: torch.Tensor, memory: Memory | None
    ) -> torch.Tensor:
        apart = (*x.shape[:2], -1, self.shape.head)
        q, k, v = (of(x).reshape(apart).transpose(1, 2) for of in (self.q_proj, self.k_proj, self.v_proj))
        q, k = (of * cos + _half_turned(of) * sin for of in (q, k))
        if memory is not None:
            k, v = (self._with_past(of, memory) for of in (k, v))
        grouped = self.shape.heads != self.shape.key_heads
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=grouped)
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def _with_past(self, new: torch.Tensor, memory: Memory) -> torch.Tensor:
        """(B, heads, window - 1 + N, d): the tokens before and these; the last ones are kept."""
        count = self.shape.window - 1
        joined = torch.cat([memory.take(self.shape.key_heads, count, self.shape.head), new], dim=2)
        memory.keep(joined[:, :, -count:] if count else joined[:, :, :0])
        return joined


class MLP(nn.Module):
    """(B, N, C) -> (B, N, C)"""

    def __init__(self, shape: Shape, activation: nn.Module):
        super().__init__()
        self.fc1 = nn.Linear(shape.width, shape.inner, bias=False)
        self.fc2 = nn.Linear(shape.inner, shape.width, bias=False)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Scale(nn.Module):
    """Layer scale: a factor per channel."""

    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def _half_turned(x: torch.Tensor) -> torch.Tensor:
    """The second half of a head's channels, negated, in front of the first."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)
