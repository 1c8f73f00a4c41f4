"""The layers of transformers' EnCodec and Mimi as edgetok's, which export and stream; weights are shared or folded."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Any

import torch
from torch import nn

from edgetok.errors import SourceError
from edgetok.modules.lstm import LSTM
from edgetok.modules.seanet import Chain, Conv, ConvTranspose, Residual


def chain(layers: Iterable[nn.Module]) -> Chain:
    """The layers of an encoder or a decoder, in their order.

    Raises:
        SourceError: one is of a kind that SEANet does not have.
    """
    return Chain(*map(layer, layers))


def layer(of: Any) -> nn.Module:
    """One layer.

    Raises:
        SourceError: as above.
    """
    kind = type(of).__name__.removeprefix("Encodec").removeprefix("Mimi")
    norm = of.norm if getattr(of, "norm_type", None) == "time_group_norm" else None
    if kind == "Conv1d":
        return Conv(_plain(of.conv), of.causal, of.pad_mode, norm)
    if kind == "ConvTranspose1d":
        over = of.conv.kernel_size[0] - of.conv.stride[0]
        right = ceil(over * of.trim_right_ratio) if of.causal else over // 2
        return ConvTranspose(_plain(of.conv), right, norm)
    if kind == "ResnetBlock":
        shortcut = None if isinstance(of.shortcut, nn.Identity) else layer(of.shortcut)
        assert shortcut is None or isinstance(shortcut, Conv)
        return Residual(chain(of.block), shortcut)
    if kind == "LSTM":
        return LSTM(of.lstm)
    if kind == "ELU":
        return nn.ELU(of.alpha)
    raise SourceError(f"a layer {type(of).__name__} is none of SEANet's: convolutions, residual blocks, LSTM and ELU")


def _plain(conv: Any) -> Any:
    """The same convolution, its weight norm folded into its weights."""
    folded = type(conv)(
        conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0], dilation=conv.dilation[0],
        groups=conv.groups, bias=conv.bias is not None,
    )  # fmt: skip
    with torch.no_grad():
        folded.weight.copy_(conv.weight)
        if conv.bias is not None:
            folded.bias.copy_(conv.bias)
    return folded
