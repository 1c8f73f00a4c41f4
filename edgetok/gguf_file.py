"""GGUF files: what they say of their model, their weights one at a time, and their tokenizer.

Read with llama.cpp's own Python package `gguf`, which maps the file into memory; a weight is widened when it is asked
for.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgetok.errors import CaptureError, MissingPackage, SourceError

CONTROL = 3  # the type of a token that stands for no text, such as <|im_end|>


class GgufFile:
    """An open GGUF file."""

    def __init__(self, path: Path):
        try:
            import gguf
        except ImportError:
            raise MissingPackage("edgetok[gguf]", f"reading {path.name}") from None
        try:
            self._reader = gguf.GGUFReader(path)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise SourceError(f"{path.name} cannot be read as GGUF, it may be truncated: {error}") from error
        self._dequantise = gguf.dequantize
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.name = path.name

    def field(self, name: str) -> Any:
        """What the file says under a name, None where it says nothing."""
        found = self._reader.get_field(name)
        return None if found is None else found.contents()

    def check(self, name: str, *shape: int) -> None:
        """Make sure that a weight is there in the shape that is expected.

        Raises:
            SourceError: it is not.
        """
        if name not in self._tensors:
            raise SourceError(f"{self.name} has no {name}, which its metadata ask for")
        found = tuple(int(size) for size in reversed(self._tensors[name].shape))
        if found != shape:
            raise SourceError(f"{self.name}: {name} is {found}, its metadata say {shape}")

    def weight(self, name: str) -> np.ndarray:
        """A weight as fp32."""
        tensor = self._tensors[name]
        values = self._dequantise(tensor.data, tensor.tensor_type)
        return np.asarray(values, np.float32).reshape([int(size) for size in reversed(tensor.shape)])

    @cached_property
    def tokenizer(self) -> str:
        """The content of a tokenizer.json that does what the file's tokenizer does.

        Raises:
            CaptureError: it is of a kind that edgetok does not know.
        """
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        kind = (self.field("tokenizer.ggml.model"), self.field("tokenizer.ggml.pre"))
        if kind != ("gpt2", "smollm"):
            raise CaptureError(f"{self.name} has a tokenizer of the kind {kind}; accepted is ('gpt2', 'smollm')")
        tokens, merges = self.field("tokenizer.ggml.tokens"), self.field("tokenizer.ggml.merges")
        pairs = [tuple(merge.split(" ")) for merge in merges]
        tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, pairs))
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
        tokenizer.decoder = decoders.ByteLevel()
        types = self.field("tokenizer.ggml.token_type")
        special = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
        tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
        return tokenizer.to_str()
