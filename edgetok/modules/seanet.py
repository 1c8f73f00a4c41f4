"""SEANet's layers, the convolutions of EnCodec, Mimi and WavTokenizer, for recordings of any length and for streams.

SEANet: A Multi-modal Speech Enhancement Network, https://arxiv.org/abs/2009.02095, as High Fidelity Neural Audio
Compression has it, https://arxiv.org/abs/2210.13438, section 3.1. Published code: facebookresearch/encodec (MIT),
modules/conv.py and seanet.py; transformers' EncodecModel and MimiModel.

What differs: there the right padding that fills up the last step of a strided convolution is computed in floating
point, from strides that are tensors, so that nothing exports. Here each convolution gets stride - 1 more samples at its
right: it makes ceil(N / stride) steps of them, and what the last one does not reach is never read. So no padding
depends on the length. Only what is reflected at the end does, and that by indices. Weight norm is folded.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from edgetok.modules.memory import Memory

Mode = Literal["constant", "reflect", "replicate"]


class Chain(nn.Sequential):
    """Layers one behind the other, each of which gets the memory."""

    def forward(self, x: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        for layer in self:
            x = layer(x) if isinstance(layer, nn.ELU) else layer(x, memory)
        return x


class Conv(nn.Module):
    """(B, C, N) -> (B, C', ceil(N / stride)), padded as SEANet does.

    Args:
        conv: without padding of its own.
        causal: whether all of the padding stands at the left; else the left has the larger half.
        mode: what is padded: zeros, the reflected signal, or its first and last sample.
        norm: behind the convolution; such a layer is not for streams.
    """

    def __init__(self, conv: nn.Conv1d, causal: bool, mode: Mode, norm: nn.Module | None = None):
        super().__init__()
        self.conv, self.mode, self.norm = conv, mode, norm
        self.stride = conv.stride[0]
        total = (conv.kernel_size[0] - 1) * conv.dilation[0] + 1 - self.stride
        self.right = 0 if causal else total // 2
        self.left = total - self.right

    def forward(self, x: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        if memory is not None and self.left:
            x = self._continued(x, memory)
        elif self.mode == "reflect":
            x = torch.cat([self._reflected_before(x), x, self._reflected_after(x)], dim=-1)
        else:
            x = functional.pad(x, (self.left, self.right + self.stride - 1), self.mode)
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)

    def _continued(self, chunk: torch.Tensor, memory: Memory) -> torch.Tensor:
        """What was kept, a chunk, and what is padded behind it if it is the last one and no multiple of the stride."""
        assert not self.right and self.norm is None, "only causal layers without norms have a stream"
        kept = memory.take(chunk.shape[1], self.left)
        if self.mode == "reflect":
            kept = torch.where(memory.first, self._reflected_before(chunk), kept)
        elif self.mode == "replicate":
            kept = torch.where(memory.first, chunk[..., :1], kept)
        x = torch.cat([kept, chunk], dim=-1)
        memory.keep(x[..., -self.left :])
        if self.stride == 1:
            return x
        if self.mode == "reflect":
            after = _at(x, x.shape[-1] - 2 - torch.arange(self.stride - 1))
            return torch.cat([x, torch.where(memory.first, self._reflected_after(chunk), after)], dim=-1)
        return functional.pad(x, (0, self.stride - 1), self.mode)

    def _reflected_before(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, left): samples `left` to 1; zeros where there are none."""
        return _at(x, self.left - torch.arange(self.left))

    def _reflected_after(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, right + stride - 1): the last samples backwards.

        A signal that is not longer than its padding is filled up with zeros before it is reflected.
        """
        count, length = self.right + self.stride - 1, x.shape[-1]
        fill = (self.stride - length % self.stride) % self.stride  # no negative operand: ONNX rounds towards zero
        index = torch.arange(count) + length
        zeros = torch.zeros_like(index)
        last = torch.maximum(zeros + (length - 1), zeros + (self.right + fill)).clamp(min=self.left)
        return _at(x, last - (last - index).abs())


def _at(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(B, C, N), (K,) -> (B, C, K): samples by index; zeros behind the last."""
    length = x.shape[-1]
    inside = (index < length).to(x.dtype)
    return x.index_select(2, torch.minimum(index.clamp(min=0), torch.zeros_like(index) + (length - 1))) * inside


class ConvTranspose(nn.Module):
    """(B, C, N) -> (B, C', N stride): a transposed convolution, without its last kernel - stride samples.

    Args:
        conv: without padding of its own.
        right: how many of them are cut at the right; the others at the left.
        norm: behind the convolution, before the cut; such a layer is not for streams.
    """

    def __init__(self, conv: nn.ConvTranspose1d, right: int, norm: nn.Module | None = None):
        super().__init__()
        self.conv, self.right, self.norm = conv, right, norm
        self.over = conv.kernel_size[0] - conv.stride[0]

    def forward(self, x: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        y = self.conv(x)
        if self.norm is not None:
            y = self.norm(y)
        if memory is not None and self.over:
            y = self._continued(y, memory)
        return y[..., self.over - self.right : -self.right] if self.right else y[..., self.over :]

    def _continued(self, y: torch.Tensor, memory: Memory) -> torch.Tensor:
        """The samples that chunks share are sums of both; the bias is in both, and counts once."""
        assert self.right == self.over and self.norm is None, "only causal layers without norms have a stream"
        before = memory.take(y.shape[1], self.over)
        y = torch.cat([y[..., : self.over] + before, y[..., self.over :]], dim=-1)
        shared = y[..., -self.over :]
        memory.keep(shared if self.conv.bias is None else shared - self.conv.bias[:, None])
        return y


class Residual(nn.Module):
    """(B, C, N) -> (B, C, N): layers, and what came in, by a convolution of width 1 or as it is."""

    def __init__(self, block: Chain, shortcut: Conv | None):
        super().__init__()
        self.block, self.shortcut = block, shortcut

    def forward(self, x: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        return (x if self.shortcut is None else self.shortcut(x, memory)) + self.block(x, memory)


def least_tokens(chain: nn.Module, rate: int) -> int:
    """How many tokens the first chunk of a stream needs at least, so that what is reflected at its start is there.

    Args:
        chain: an encoder or a decoder.
        rate: samples of a token where the chain begins: an encoder's hop, 1 for a decoder.
    """
    least, wide = 1, Fraction(rate)
    for layer in chain.modules():  # in the order in which they run
        if isinstance(layer, Conv):
            if layer.mode == "reflect":
                least = max(least, ceil((layer.left + 1) / wide))
            wide /= layer.stride
        elif isinstance(layer, ConvTranspose):
            wide *= layer.conv.stride[0]
    return least
