"""Texts to the ids of a bundle's vocabulary, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetok.bundle import Bundle, open_bundle
from edgetok.errors import InputError, UsageError

if TYPE_CHECKING:
    from edgetok.tokenizer.tokens import Tokens

VOCABULARY = "tokenizer.json"


def tokenize_text(bundle: str | Path, text: str, *, mode: str | None = None) -> Tokens:
    """Turn a text into ids, without the special tokens that a model wants around it.

    Args:
        bundle: of a model that reads text.
        text: of any length.
        mode: a way of cutting of edgetok/text/segmenters/, for byte-level vocabularies; None for the vocabulary's own.

    Raises:
        UsageError: the bundle has no vocabulary.
        InputError: an empty text, or a vocabulary that has no other way of cutting.
    """
    import numpy as np

    from edgetok.text.segmenter import tokenize
    from edgetok.text.vocabulary import from_tokenizer_json
    from edgetok.tokenizer.tokens import Tokens

    opened = _with_vocabulary(bundle)
    if not text:
        raise InputError("the text is empty")
    if mode is None:
        ids = _library(opened).encode(text, add_special_tokens=False).ids
    else:
        ids = tokenize(text, from_tokenizer_json(opened.path / VOCABULARY), mode)
    return Tokens({"ids": np.array([ids], np.int64)}, (len(text.encode()),), opened.id)


def detokenize_text(bundle: str | Path, tokens: Tokens) -> str:
    """Turn ids back into a text: the same one where the vocabulary promises that, as byte-level ones do.

    Raises:
        InputError: tokens of another bundle, or ids outside the vocabulary.
    """
    opened = _with_vocabulary(bundle)
    if tokens.bundle != opened.id:
        raise InputError(f"tokens of the bundle {tokens.bundle[:12]}, and this is {opened.id[:12]}: use theirs")
    library, ids = _library(opened), tokens.arrays["ids"]
    size = library.get_vocab_size()
    if ids.ndim != 2 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= size:
        raise InputError(f"ids of shape {ids.shape}, {ids.min()} to {ids.max()}: a row of 0 to {size - 1} is accepted")
    text: str = library.decode(ids[0].tolist(), skip_special_tokens=False)
    return text


def has_vocabulary(bundle: Bundle) -> bool:
    """Whether a bundle is of a model that reads text."""
    return VOCABULARY in bundle.manifest.files


def _with_vocabulary(bundle: str | Path) -> Bundle:
    opened = open_bundle(Path(bundle))
    if not has_vocabulary(opened):
        raise UsageError(f"{bundle} carries no {VOCABULARY}: it is not the bundle of a model that reads text")
    return opened


def _library(bundle: Bundle) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundle.path / VOCABULARY))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
