"""The periodic activation of DAC, of which X-Codec is made too.

Neural Networks Fail to Learn Periodic Functions and How to Fix It, https://arxiv.org/abs/2006.08195, equation 3.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn


class Snake(nn.Module):
    """x + sin(a x)^2 / a, an a per channel; without the reshapes of transformers' Snake1d."""

    def __init__(self, alpha: torch.Tensor):
        super().__init__()
        self.alpha, self.inverse = nn.Parameter(alpha), nn.Parameter((alpha + 1e-9).reciprocal())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wave = (self.alpha * x).sin()
        return x + self.inverse * (wave * wave)


def mended(module: nn.Module) -> nn.Module:
    """A copy whose activations are `Snake`."""
    module = deepcopy(module)
    for parent in list(module.modules()):
        child: Any
        for name, child in parent.named_children():
            if type(child).__name__ == "Snake1d":
                setattr(parent, name, Snake(child.alpha.detach()))
    return module
