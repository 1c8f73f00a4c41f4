"""References of whole models: hooks on the original transformers modules reduce the tokens behind each attention.

Nothing is imported from the view: where a family's blocks hold their residual stream is written down here by hand.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from edgetok.plugins.merge_tokens import reference as merge_tokens
from edgetok.technique import State, Technique

Choice = tuple[torch.Tensor, torch.Tensor]  # order (B, N), destination (B, r)

# Where a block holds the residual stream behind its attention: what a submodule reads, or what it gives.
STREAM = {
    "vit": ("layernorm_after", "input"),
    "vit-mean": ("layernorm_after", "input"),
    "deit": ("layernorm_after", "input"),
    "dinov2": ("norm2", "input"),
    "dinov2-registers": ("norm2", "input"),
    "clip-vision": ("layer_norm2", "input"),
    "whisper": ("final_layer_norm", "input"),
    "wav2vec2": ("layer_norm", "output"),
    "wav2vec2-masked": ("final_layer_norm", "input"),
    "bert": ("attention.output", "output"),
}
PREFIX = {"vit": 1, "vit-mean": 1, "deit": 2, "dinov2": 1, "dinov2-registers": 5, "clip-vision": 1, "bert": 1}  # else 0


@dataclass
class Reference:
    """A module with its tokens reduced.

    Attributes:
        family: the key into STREAM and PREFIX.
        technique: what chooses the tokens.
        config: its options.
        plan: {block: how many tokens go}.
        forced: choices to apply instead of the reference's own, one per reduced block.
        states: what the technique saw, one per reduced block.
        chosen: what it chose.
    """

    family: str
    technique: Technique
    config: Any
    plan: dict[int, int]
    forced: list[Choice] | None = None
    states: list[State] = field(default_factory=list)
    chosen: list[Choice] = field(default_factory=list)

    def run(
        self, module: torch.nn.Module, feeds: dict[str, torch.Tensor], dtype: torch.dtype
    ) -> dict[str, torch.Tensor]:
        """The module's outputs, computed in a type, with tokens reduced and restored."""
        module = copy.deepcopy(module).to(dtype)
        blocks = [block for name, block in module.named_modules() if re.search(r"(^|\.)layers?\.\d+$", name)]
        path, side = STREAM[self.family]
        self.size: torch.Tensor | None = None
        self.rows: torch.Tensor | None = None
        for index, block in enumerate(blocks):
            submodule = block.get_submodule(path)
            if side == "output":
                submodule.register_forward_hook(lambda _, args, out, i=index: self._reduce(out, i, len(blocks)))
            else:  # the block adds this very tensor again behind the MLP: it is replaced in place
                submodule.register_forward_pre_hook(lambda _, args, i=index: self._replace(args[0], i, len(blocks)))
        blocks[-1].register_forward_hook(lambda _, args, out: self._restore(out))
        with torch.no_grad(), _Attention(self):
            return named(module(**cast(feeds, dtype)))

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """Attention in which a token counts as often as the tokens merged into it, and padding not at all."""
        assert not is_causal and not enable_gqa and dropout_p == 0
        self.keys = key
        if self.size is None:
            real = torch.ones_like(key[:, 0, :, 0]) if attn_mask is None else attn_mask[:, 0, 0].to(key.dtype)
            assert attn_mask is None or attn_mask.dtype is torch.bool
            self.size = real[..., None]
        counts = self.size if self.technique.proportional(self.config) else (self.size > 0).to(self.size.dtype)
        scores = query @ key.mT * (key.shape[-1] ** -0.5 if scale is None else scale)
        return (scores + counts.log()[:, None, None, :, 0]).softmax(-1) @ value  # log 0 bars padding

    def _replace(self, hidden: torch.Tensor, block: int, blocks: int) -> None:
        hidden.data = self._reduce(hidden, block, blocks)

    def _reduce(self, hidden: torch.Tensor, block: int, blocks: int) -> torch.Tensor:
        if block not in self.plan:
            return hidden
        assert self.size is not None
        state = State(hidden.clone(), self.size, self.keys, PREFIX.get(self.family, 0), block, blocks)
        choice = self.technique.reference(state, self.plan[block], self.config)
        self.states.append(state)
        self.chosen.append(choice)
        order, destination = self.forced[len(self.chosen) - 1] if self.forced else choice
        kept = order.shape[1] - destination.shape[1]
        if self.technique.merge:
            hidden, self.size = merge_tokens(hidden, self.size, order, destination)
        else:
            stay = order[:, :kept, None]
            hidden, self.size = hidden.gather(1, stay.expand(-1, -1, hidden.shape[2])), self.size.gather(1, stay)
        step = torch.empty_like(order)
        step.scatter_(1, order, torch.cat([torch.arange(kept).expand(len(order), -1), destination], dim=1))
        self.rows = step if self.rows is None else step.gather(1, self.rows)
        return hidden

    def _restore(self, output: torch.Tensor) -> torch.Tensor:
        if self.rows is None:
            return output
        return output.gather(1, self.rows[..., None].expand(-1, -1, output.shape[2]))


class _Attention(TorchFunctionMode):
    """Sends every scaled_dot_product_attention to the reference."""

    def __init__(self, reference: Reference):
        super().__init__()
        self.reference = reference

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            return self.reference.attend(*args, **kwargs or {})
        return func(*args, **kwargs or {})


def run(module: torch.nn.Module, feeds: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The untouched module's outputs, computed in a type."""
    with torch.no_grad():
        return named(copy.deepcopy(module).to(dtype)(**cast(feeds, dtype)))


def cast(feeds: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Feeds with their floats in a type."""
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in feeds.items()}


def named(outputs: Any) -> dict[str, torch.Tensor]:
    """A module's outputs by name."""
    if isinstance(outputs, torch.Tensor):
        return {"output": outputs}
    return {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
