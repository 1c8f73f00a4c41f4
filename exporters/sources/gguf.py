"""A GGUF file with a small Llama, captured without torch (see edgetok/llama_graph.py)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.cache import cache_folder, made_once
from edgetok.exporters.sources._built import captured
from edgetok.gguf_file import GgufFile
from edgetok.llama_graph import build_llama
from edgetok.preprocess import TextPreprocess

if TYPE_CHECKING:
    from edgetok.model import Captured, Origin

LENGTH = 256  # tokens of a prompt, unless --length says otherwise


def capture(path: Path, origin: Origin, *, length: int | None = None, batch: int | None = None) -> Captured:
    """Capture a Llama's forward pass over a prompt.

    Args:
        path: the file.
        origin: what the manifest shall say of the source.
        length: tokens per prompt; shorter ones are padded on the right, longer ones cut.
        batch: prompts per run; free where not given.

    Raises:
        MissingPackage: gguf is not installed.
        SourceError: the file is damaged.
        CaptureError: it holds another kind of model, or tokenizer.
    """
    file, length = GgufFile(path), length or LENGTH
    padding = int(file.field("tokenizer.ggml.padding_token_id") or 0)
    ids = TextPreprocess(
        length=length,
        pad_id=padding,
        pad_token=file.field("tokenizer.ggml.tokens")[padding],
        yields="input_ids",
    )
    return captured(
        lambda: build_llama(file, length, batch),
        origin,
        {"input_ids": ids, "attention_mask": ids.model_copy(update={"yields": "attention_mask"})},
        batch=batch,
        files={"tokenizer.json": _written(file.tokenizer)},
    )


def _written(tokenizer: str) -> Path:
    """The tokenizer as a file in the user's cache, under its own digest."""
    digest = hashlib.sha256(tokenizer.encode()).hexdigest()
    folder = cache_folder() / "tokenizers" / digest[:16]

    def write(into: Path) -> None:
        (into / "tokenizer.json").write_text(tokenizer, encoding="utf-8")

    return made_once(folder, write) / "tokenizer.json"
