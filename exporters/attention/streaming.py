"""streaming: each token of a causal model attends to the first tokens, the sinks, and to those just before it.

Efficient Streaming Language Models with Attention Sinks (StreamingLLM), https://arxiv.org/abs/2309.17453, section 3.2;
published code: StartRecentKVCache of mit-han-lab/streaming-llm, whose kept tokens this one's equal (tests).

A token sees the `sinks` first tokens and the last `size`, with itself, exact to the token: what the published cache of
4 + 2000 tokens holds when the token is read. Always kept: the sinks and the token itself. Nothing is computed to
choose. For causal models; `window` is the same on both sides, for encoders.

What differs: the published cache is rotated by places in the cache, and here keys keep their places in the prompt, as
one pass over a prompt has no cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetok.attention import Attention, AttentionState, Lists, check_block, check_range
from edgetok.exporters.attention import window

if TYPE_CHECKING:
    import torch

    from edgetok.view.sparse import AttentionSite


@dataclass(frozen=True)
class Config:
    """Options of streaming.

    Attributes:
        sinks: how many first tokens all see.
        size: how many of the last tokens a token sees, itself among them.
        block: tokens of a block: 16, 32, 64 or 128.
    """

    sinks: int = 4
    size: int = 512
    block: int = 64

    def __post_init__(self) -> None:
        check_block(self.block)
        check_range(self, "sinks", 0, 2**24)
        check_range(self, "size", 1, 2**24)

    def as_window(self) -> window.Config:
        """The window with the sinks as its global tokens."""
        return window.Config(self.size, self.sinks, self.block)


def lists(site: AttentionSite, config: Config) -> Lists:
    """The blocks that hold sinks, and those that the window touches: the same for all inputs."""
    return window.lists(site, config.as_window())


def reference(state: AttentionState, config: Config) -> torch.Tensor:
    """Who sees whom, by place."""
    import torch

    place = torch.arange(state.keys.shape[2])
    behind = place[:, None] - place
    seen: torch.Tensor = ((behind >= 0) & (behind < config.size)) | (place < max(config.sinks, state.prefix))
    return seen[None, None]


ATTENTION = Attention(
    summary="each token of a causal model sees the first tokens and those just before it",
    paper="StreamingLLM, https://arxiv.org/abs/2309.17453, section 3.2",
    examples=("streaming:size=12,sinks=2,block=16",),
    config=Config,
    lists=lists,
    reference=reference,
    serves="causal models",
    by_place=True,
)
