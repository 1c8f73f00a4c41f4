"""LSTM layers that export as one ONNX node each, for any number of steps, with their state in and out.

Long Short-Term Memory (Neural Computation 1997), https://doi.org/10.1162/neco.1997.9.8.1735; the steps are those of
torch.nn.LSTM. Under torch.export that one is unrolled, or its number of steps is fixed; here the node is written as it
stands in ONNX, whose gates come in the order input, output, forget, cell where torch has input, forget, cell, output.
"""

from __future__ import annotations

import torch
from torch import nn

from edgetok.modules.memory import Memory


class LSTM(nn.Module):
    """(B, C, N) -> (B, C, N): layers over time, and what came in added to what comes out.

    Args:
        lstm: unidirectional, as wide inside as outside, with biases.
    """

    def __init__(self, lstm: nn.LSTM):
        super().__init__()
        self.layers = nn.ModuleList(Layer(lstm, k) for k in range(lstm.num_layers))

    def forward(self, x: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        steps = y = x.permute(2, 0, 1)  # (N, B, C)
        for layer in self.layers:
            y = layer(y, memory)
        return (y + steps).permute(1, 2, 0)


class Layer(nn.Module):
    """(N, B, C) -> (N, B, C)"""

    def __init__(self, lstm: nn.LSTM, number: int):
        super().__init__()
        self.hidden = lstm.hidden_size
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w, r, b, c = (_onnx_order(getattr(lstm, f"{name}_l{number}").detach()) for name in names)
        self.weight, self.recurrence = nn.Parameter(w[None]), nn.Parameter(r[None])
        self.bias = nn.Parameter(torch.cat([b, c])[None])

    def forward(self, x: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        if memory is None:
            h = c = x.new_zeros(1, x.shape[1], self.hidden)
        else:
            h, c = (memory.take(self.hidden)[None] for _ in range(2))
        y, h, c = self._run(x, h, c)
        if memory is not None:
            memory.keep(h[0])
            memory.keep(c[0])
        return y

    def _run(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weights = (self.weight, self.recurrence, self.bias)
        if torch.onnx.is_in_onnx_export():
            y, h, c = torch.onnx.ops.symbolic_multi_out(
                "LSTM",
                (x, *weights, None, h, c),
                {"hidden_size": self.hidden},
                dtypes=(x.dtype,) * 3,
                shapes=((x.shape[0], 1, *x.shape[1:]), h.shape, c.shape),
                version=22,
            )
            return y.squeeze(1), h, c
        w, r = (_torch_order(weight[0]) for weight in weights[:2])
        b, d = (_torch_order(bias) for bias in self.bias[0].chunk(2))
        return torch.lstm(x, (h, c), (w, r, b, d), True, 1, 0.0, False, False, False)


def _onnx_order(gates: torch.Tensor) -> torch.Tensor:
    i, f, g, o = gates.chunk(4)
    return torch.cat([i, o, f, g])


def _torch_order(gates: torch.Tensor) -> torch.Tensor:
    i, o, f, g = gates.chunk(4)
    return torch.cat([i, f, g, o])
