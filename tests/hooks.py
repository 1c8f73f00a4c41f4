"""References of whole models: hooks on the original transformers modules reduce the tokens behind each attention.

Nothing is imported from the view: where a family's blocks hold their residual stream is written down here by hand.
"""

from __future__ import annotations

import copy
import functools
import re
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from edgetok.plugins.merge_tokens import reference as merge_tokens
from edgetok.plugins.sum_tokens import reference as sum_tokens
from edgetok.technique import Selection, State, Technique

Choice = Selection[torch.Tensor]

# Where a block holds the residual stream behind its attention: what a submodule reads, or what it gives.
STREAM = {
    "vit": ("layernorm_after", "input"),
    "vit-mean": ("layernorm_after", "input"),
    "deit": ("layernorm_after", "input"),
    "dinov2": ("norm2", "input"),
    "dinov2-registers": ("norm2", "input"),
    "clip-vision": ("layer_norm2", "input"),
    "llava": ("layer_norm2", "input"),
    "whisper": ("final_layer_norm", "input"),
    "wav2vec2": ("layer_norm", "output"),
    "wav2vec2-masked": ("final_layer_norm", "input"),
    "bert": ("attention.output", "output"),
    "modernbert": ("mlp_norm", "input"),
    "modernbert-local": ("mlp_norm", "input"),
    "modernbert-unmasked": ("mlp_norm", "input"),
    "dinov3": ("norm2", "input"),
}
PREFIX = {
    "vit": 1, "vit-mean": 1, "deit": 2, "dinov2": 1, "dinov2-registers": 5, "clip-vision": 1, "llava": 1, "bert": 1,
    "modernbert": 1, "modernbert-local": 1, "modernbert-unmasked": 1, "dinov3": 5,
}  # fmt: skip
FAR = -1e4  # added to the score of a key out of reach, as padding can leave a query without any key in reach
IN_FRONT = ("extract_features",)  # outputs that hold what the encoder reads, not its tokens
# What makes the outputs of the residual stream behind the last block; clip-vision gives that out as it is.
PROJECTOR = {
    "llava": "projector",
    "vit": "layernorm",
    "deit": "layernorm",
    "dinov2": "layernorm",
    "dinov2-registers": "layernorm",
    "dinov3": "norm",
    "whisper": "layer_norm",
    "wav2vec2": "encoder.layers.{last}.final_layer_norm",
    "wav2vec2-masked": "encoder.layer_norm",
    "bert": "encoder.layer.{last}.output.LayerNorm",
    "modernbert": "final_norm",
    "modernbert-local": "final_norm",
    "modernbert-unmasked": "final_norm",
}
UNREAD = {"llava": 1}  # blocks at the end that no output reads: a graph is exported without them


@dataclass
class Reference:
    """A module with its tokens reduced.

    Attributes:
        family: the key into STREAM and PREFIX.
        technique: what chooses the tokens.
        config: its options.
        plan: {block: how many tokens go}; for a technique behind the encoder {number of blocks: how many}.
        forced: the tensors of choices to apply instead of the reference's own, one per reduction.
        states: what the technique saw, one per reduction.
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
        """The module's outputs, computed in a type, with tokens reduced, and restored unless they are given out."""
        module = copy.deepcopy(module).to(dtype)
        self.module = module
        self.blocks = [block for name, block in module.named_modules() if re.search(r"(^|\.)layers?\.\d+$", name)]
        self.blocks = self.blocks[: len(self.blocks) - UNREAD.get(self.family, 0)]
        path, side = STREAM[self.family]
        self.prefix = PREFIX.get(self.family, 0)
        self.size: torch.Tensor | None = None
        self.rows: torch.Tensor | None = None
        self.positions: torch.Tensor | None = None
        self.reach: int | None = None  # of the block that runs, where its attention is local
        self.memory: torch.Tensor | None = None
        self.weights: torch.Tensor | None = None  # of the next attention, in place of its softmax
        self.proportional, self.probing = True, False
        for index, block in enumerate(self.blocks):
            submodule = block.get_submodule(path)
            if side == "output":
                submodule.register_forward_hook(lambda _, args, out, i=index: self._behind_attention(out, i))
            else:  # the block adds this very tensor again behind the MLP: it is replaced in place
                submodule.register_forward_pre_hook(lambda _, args, i=index: self._replace(args[0], i))
            enter = functools.partial(self._enter, index)
            block.register_forward_pre_hook(enter, with_kwargs=True)
        self.blocks[-1].register_forward_hook(lambda _, args, out: self._restore(out))
        self.source: torch.Tensor | None = None
        self.projector = self._projector(module)
        if self.projector is not None:
            self.projector.register_forward_pre_hook(lambda _, args: setattr(self, "source", args[0].clone()))
        with torch.no_grad(), _Attention(self):
            outputs = named(module(**cast(feeds, dtype)))
        return self._give_out(outputs) if self.technique.where == "output" else outputs

    def _projector(self, module: torch.nn.Module) -> torch.nn.Module | None:
        path = PROJECTOR.get(self.family) if self.technique.where == "output" else None
        return None if path is None else module.get_submodule(path.format(last=len(self.blocks) - 1))

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
        self.heads = (query, key, value)
        self.scale = key.shape[-1] ** -0.5 if scale is None else scale
        if self.size is None:
            real = torch.ones_like(key[:, 0, :, 0]) if attn_mask is None else attn_mask[:, 0].any(1).to(key.dtype)
            assert attn_mask is None or attn_mask.dtype is torch.bool
            self.size = real[..., None]
        if self.weights is not None and not self.probing:
            weights, self.weights = self.weights, None
            return weights @ value
        return (query @ key.mT * self.scale + self._bias()).softmax(-1) @ value

    def _bias(self) -> torch.Tensor:
        """(B, 1, 1, N), or (B, 1, N, N) in local attention: log 0 bars padding."""
        assert self.size is not None
        counts = self.size if self.proportional else (self.size > 0).to(self.size.dtype)
        per_key = counts.log()[:, None, None, :, 0]
        if self.reach is None:
            return per_key
        places = self.positions if self.positions is not None else torch.arange(self.size.shape[1])[None]
        far = (places[:, None, :, None] - places[:, None, None, :]).abs() > self.reach
        return torch.where(far, FAR, per_key.clamp(min=FAR))

    def _state(self, hidden: torch.Tensor, block: int) -> State:
        assert self.size is not None
        return State(
            hidden.clone(), self.size, *self.heads, self._bias(), self.scale, self.prefix, block, len(self.blocks),
            self.memory, self.positions, hidden.shape[1] if self.rows is None else self.rows.shape[1],
            turn=sorted(self.plan).index(block) if block in self.plan else 0,
        )  # fmt: skip

    def _enter(
        self, index: int, block: torch.nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """In front of a block: reduce where the technique does so there, and turn what is left by its own positions."""
        if self.technique.where == "start" and index in self.plan and not self.probing:
            self._start(index, args, kwargs)
        kind = getattr(block, "attention_type", None)
        self.reach = self.module.config.sliding_window if kind == "sliding_attention" else None
        if self.positions is None or kwargs.get("position_embeddings") is None:
            return args, kwargs
        if kind is not None:  # the original module computes the angles of these positions
            turned = self.module.rotary_emb(args[0], self.positions, kind)
        else:  # one angle for each patch of the grid
            patches = self.positions[:, self.prefix :] - self.prefix
            turned = tuple(angle[patches][:, None] for angle in kwargs["position_embeddings"])
        return args, kwargs | {"position_embeddings": turned}

    def _start(self, block: int, args: Any, kwargs: dict[str, Any]) -> None:
        """Reduce in front of a block, whose queries and keys are computed for that from all tokens."""
        hidden = args[0]
        self.probing = True
        self.blocks[block](hidden.clone(), *args[1:], **kwargs)
        self.probing = False
        hidden.data = self._reduce(hidden, block)

    def _replace(self, hidden: torch.Tensor, block: int) -> None:
        hidden.data = self._behind_attention(hidden, block)

    def _behind_attention(self, hidden: torch.Tensor, block: int) -> torch.Tensor:
        if self.probing:
            return hidden
        if self.technique.observe is not None:
            self.memory = self.technique.observe.reference(self._state(hidden, block), self.memory, self.config)
        if block not in self.plan or self.technique.where != "block":
            return hidden
        return self._reduce(hidden, block)

    def _choose(self, state: State, block: int) -> Choice:
        choice = self.technique.reference(state, self.plan[block], self.config)
        self.states.append(state)
        self.chosen.append(choice)
        if self.forced is None:
            return choice
        forced, dtype = self.forced[len(self.chosen) - 1], state.hidden.dtype
        floats = {n: v.to(dtype) for n in ("weight", "share") if (v := getattr(forced, n)) is not None}
        return replace(choice, order=forced.order, destination=forced.destination, **floats)

    def _reduce(self, hidden: torch.Tensor, block: int) -> torch.Tensor:
        state = self._state(hidden, block)
        choice = self._choose(state, block)
        assert choice.destination is not None and self.size is not None
        kept = state.hidden.shape[1] - choice.destination.shape[1]
        hidden, size = apply(choice, hidden, self.size, kept)
        if self.memory is not None:
            self.memory, _ = apply(
                Selection(choice.order, choice.destination, choice.dropped), self.memory, self.size, kept
            )
        self.weights = merged_attention(state, choice) if choice.ahead else None
        self.size, self.proportional = size, choice.proportional
        step = torch.empty_like(choice.order)
        stay = torch.arange(kept).expand(len(step), -1)
        step.scatter_(1, choice.order, torch.cat([stay, choice.destination], dim=1))
        self.rows = step if self.rows is None else step.gather(1, self.rows)
        places = choice.order[:, :kept]
        self.positions = places if self.positions is None else self.positions.gather(1, places)
        return hidden

    def _restore(self, output: torch.Tensor) -> torch.Tensor:
        if self.rows is None or self.probing:
            return output
        return output.gather(1, self.rows[..., None].expand(-1, -1, output.shape[2]))

    def _give_out(self, outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Reduce the tokens behind the encoder."""
        tokens = {name: value for name, value in outputs.items() if value.dim() == 3 and name not in IN_FRONT}
        hidden, blocks = next(iter(tokens.values())), len(self.blocks)
        project = None if self.projector is None else self.projector.forward  # past the hooks
        assert self.size is not None
        cut = self.size.shape[1] - hidden.shape[1]
        crops = 1 if self.technique.across is None else self.technique.across(self.config)

        def joined(value: torch.Tensor) -> torch.Tensor:
            return value.reshape(len(value) // crops, -1, value.shape[2])

        size = joined(self.size[:, cut:])
        memory = None if self.memory is None else joined(self.memory[:, cut:])
        state = replace(
            self._state(joined(hidden), blocks), size=size, memory=memory, prefix=self.prefix - cut, crops=crops,
            source=self.source, project=project,
        )  # fmt: skip
        choice = self._choose(state, blocks)
        kept = size.shape[1] - self.plan[blocks]
        destination, dropped = choice.destination, choice.dropped
        if destination is None:
            destination, dropped = torch.full((len(size), self.plan[blocks]), -1), self.plan[blocks]
        whole = replace(choice, destination=destination, dropped=dropped)
        given = {name: apply(whole, joined(value), size, kept)[0] for name, value in tokens.items()}
        stay = torch.arange(kept).expand(len(size), -1)
        rows = torch.empty_like(whole.order).scatter_(1, whole.order, torch.cat([stay, destination], dim=1))
        return outputs | given | {"token_positions": whole.order[:, :kept], "token_rows": rows}


def apply(choice: Choice, hidden: torch.Tensor, size: torch.Tensor, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, kept, C), (B, kept, 1): tokens and sizes behind a choice."""
    order, into = choice.order, choice.destination
    assert into is not None
    merged = into.shape[1] - choice.dropped
    if choice.dropped and merged == 0:
        stay = order[:, :kept, None]
        return hidden.gather(1, stay.expand(-1, -1, hidden.shape[2])), size.gather(1, stay)
    order, into = order[:, : kept + merged], into[:, :merged]
    ones, count = torch.ones_like(size), torch.tensor([kept])
    if choice.weight is None:
        hidden, _ = merge_tokens(hidden, size, order, into, count)
    elif choice.mean:
        hidden, _ = merge_tokens(hidden, choice.weight, order, into, count)
    else:
        hidden = sum_tokens(hidden, choice.weight, order, into, count)
    return hidden, sum_tokens(size, ones if choice.share is None else choice.share, order, into, count)


def merged_attention(state: State, choice: Choice) -> torch.Tensor:
    """(B, h, kept, kept): the attention of all tokens, keys that became one summed, queries averaged by the weights."""
    assert choice.destination is not None
    kept = choice.order.shape[1] - choice.destination.shape[1]
    stay = torch.arange(kept).expand(len(choice.order), -1)
    rows = torch.empty_like(choice.order).scatter_(1, choice.order, torch.cat([stay, choice.destination], dim=1))
    member = (rows[:, None] == torch.arange(kept)[:, None]).to(state.hidden.dtype)  # (B, kept, N)
    share = member * (state.size if choice.weight is None else choice.weight).mT
    share = share / share.sum(dim=2, keepdim=True).clamp_min(1e-4)
    return share[:, None] @ state.attention @ member.mT[:, None]


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
