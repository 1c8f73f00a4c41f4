"""tokenizer.json, by Hugging Face's tokenizers: https://github.com/huggingface/tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgetok.errors import InputError
from edgetok.text.library import Library, Row, TextTokenizer
from edgetok.text.vocabulary import Vocabulary, from_tokenizer_json, read


class HuggingFace(TextTokenizer):
    """A tokenizer.json; special tokens that are spelt out in a text are the special tokens."""

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer

        self.file = file
        try:
            self.tokenizer = Tokenizer.from_buffer(read(file))
        except InputError:
            raise
        except Exception as error:  # tokenizers raises nothing more precise
            raise InputError(f"{file.name} cannot encode the text: {error}") from error
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.size = self.tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids; what is special stays what it is."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens spelt out."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def rows(self, texts: Sequence[str], length: int) -> list[Row]:
        """By the file's own post-processor; its own cutting and padding are left out."""
        try:
            self.tokenizer.enable_truncation(length)
            encodings = self.tokenizer.encode_batch(list(texts))
        except Exception as error:
            raise InputError(f"{self.file.name} cannot encode the text: {error}") from error
        finally:
            self.tokenizer.no_truncation()
        return [Row(encoding.ids, encoding.type_ids) for encoding in encodings]

    def vocabulary(self) -> Vocabulary:
        """Of a byte-level BPE."""
        return from_tokenizer_json(self.file)


LIBRARY = Library("tokenizer.json, by Hugging Face's tokenizers", lambda name, _: name.endswith(".json"), HuggingFace)
