"""Texts to the ids of a bundle's vocabulary, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.bundle import Bundle, open_bundle
from edgetok.errors import InputError, OutputError, UsageError
from edgetok.text import library

if TYPE_CHECKING:
    from edgetok.text.library import TextTokenizer
    from edgetok.tokenizer.tokens import Tokens


def tokenize_text(bundle: str | Path, text: str, *, mode: str | None = None) -> Tokens:
    """Turn a text into ids, without the special tokens that a model wants around it.

    Args:
        bundle: of a model that reads text.
        text: of any length.
        mode: a way of cutting of edgetok/text/segmenters/, for byte-level vocabularies; None for the vocabulary's own.

    Raises:
        UsageError: the bundle has no vocabulary.
        InputError: an empty text, a damaged vocabulary, or one that has no other way of cutting.
        MissingPackage: the library that reads it is not installed.
    """
    import numpy as np

    from edgetok.text.segmenter import tokenize
    from edgetok.tokenizer.tokens import Tokens

    opened, tokenizer = _opened(bundle)
    if not text:
        raise InputError("the text is empty")
    ids = tokenizer.encode(text) if mode is None else tokenize(text, tokenizer.vocabulary(), mode)
    return Tokens({"ids": np.array([ids], np.int64)}, (len(text.encode()),), opened.id)


def detokenize_text(bundle: str | Path, tokens: Tokens) -> str:
    """Turn ids back into a text: the same one where the vocabulary promises that, as byte-level ones do.

    Raises:
        InputError: tokens of another bundle, or ids outside the vocabulary.
    """
    opened, tokenizer = _opened(bundle)
    if tokens.bundle != opened.id:
        raise InputError(f"tokens of the bundle {tokens.bundle[:12]}, and this is {opened.id[:12]}: use theirs")
    ids, size = tokens.arrays["ids"], tokenizer.size
    if ids.ndim != 2 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= size:
        raise InputError(f"ids of shape {ids.shape}, {ids.min()} to {ids.max()}: a row of 0 to {size - 1} is accepted")
    return tokenizer.decode(ids[0].tolist())


def text_graph(bundle: str | Path, out: Path, texts: Sequence[str] = ()) -> int:
    """Write a graph from a text to the bundle's inputs, for runtimes with the operators of onnxruntime-extensions.

    Args:
        bundle: of a model that reads text.
        out: the .onnx file.
        texts: what it is checked with, beside `edgetok.text.in_graph.TEXTS`.

    Returns:
        How many texts it was checked with.

    Raises:
        UsageError: the bundle has no vocabulary, or the file is there.
        Refusal: no operator cuts as the vocabulary does.
        MissingPackage: onnxruntime-extensions is not installed.
    """
    import onnx

    from edgetok.preprocess import TextPreprocess
    from edgetok.text.in_graph import TEXTS, build, check

    opened, tokenizer = _opened(bundle)
    if out.exists():
        raise UsageError(f"{out} exists: give another name")
    kinds = {spec.name: spec.preprocess for spec in opened.manifest.inputs}
    wanted = {name: kind for name, kind in kinds.items() if isinstance(kind, TextPreprocess)}
    if not wanted:
        raise UsageError(f"{bundle} has no input that is made of a text")
    model, against = build(tokenizer, wanted), [*TEXTS, *(text for text in texts if text)]
    check(model, tokenizer, against, wanted)
    try:
        onnx.save(model, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    return len(against)


def has_vocabulary(bundle: Bundle) -> bool:
    """Whether a bundle is of a model that reads text."""
    return library.choose(bundle.manifest.files) is not None


def _opened(bundle: str | Path) -> tuple[Bundle, TextTokenizer]:
    opened = open_bundle(Path(bundle))
    vocabulary = library.choose(opened.manifest.files)
    if vocabulary is None:
        raise UsageError(f"{bundle} carries no vocabulary: it is not the bundle of a model that reads text")
    return opened, library.load(opened.path / vocabulary)
