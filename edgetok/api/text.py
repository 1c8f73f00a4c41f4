"""Texts to the ids of a bundle's vocabulary, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.bundle import Bundle, open_bundle
from edgetok.errors import InputError, UsageError
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


def has_vocabulary(bundle: Bundle) -> bool:
    """Whether a bundle is of a model that reads text."""
    return library.choose(bundle.manifest.files) is not None


def _opened(bundle: str | Path) -> tuple[Bundle, TextTokenizer]:
    opened = open_bundle(Path(bundle))
    vocabulary = library.choose(opened.manifest.files)
    if vocabulary is None:
        raise UsageError(f"{bundle} carries no vocabulary: it is not the bundle of a model that reads text")
    return opened, library.load(opened.path / vocabulary)
