"""A Hugging Face folder with a BERT encoder, captured without torch (see edgetok/bert_graph.py)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.bert_graph import build_bert
from edgetok.exporters.sources._built import captured
from edgetok.preprocess.huggingface import from_huggingface, read_json
from edgetok.text import library

if TYPE_CHECKING:
    from edgetok.model import Captured, Origin

LENGTH = 128  # tokens of a text, unless --length says otherwise


def capture(folder: Path, origin: Origin, *, length: int | None = None, batch: int | None = None) -> Captured:
    """Capture a BERT encoder from a folder with config.json, model.safetensors and a vocabulary.

    Args:
        folder: the Hugging Face folder.
        origin: what the manifest shall say of the source.
        length: tokens per text.
        batch: texts per run; free where not given.
    """
    length = length or LENGTH
    preprocess = from_huggingface(folder, read_json(folder / "config.json"), length=length)
    return captured(
        lambda: build_bert(folder, length, batch),
        origin,
        preprocess,
        batch=batch,
        files=library.files(folder),
    )
