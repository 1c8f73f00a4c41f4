"""tokenizer.json, by Hugging Face's tokenizers: https://github.com/huggingface/tokenizers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.errors import InputError, Refusal
from edgetok.text.library import Library, Row, TextTokenizer
from edgetok.text.vocabulary import Vocabulary, from_tokenizer_json, read

if TYPE_CHECKING:
    from edgetok.text.in_graph import Operator


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

    def operator(self) -> Operator:
        """GPT-2's, for vocabularies that cut as GPT-2 does."""
        from edgetok.text.in_graph import Operator

        content = json.loads(read(self.file))
        model, cut = content["model"], content.get("pre_tokenizer") or {}
        if model.get("type") == "WordPiece":
            raise Refusal(
                "onnxruntime-extensions cuts WordPiece otherwise: on 32 % of lines of emoji's names and of sources",
                way_out="tokenize on the host",
            )
        gpt2 = cut.get("type") == "ByteLevel" and cut.get("use_regex", True) and not cut.get("add_prefix_space")
        others = ("dropout", "ignore_merges", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix")
        if model.get("type") != "BPE" or not gpt2 or content.get("normalizer") or any(map(model.get, others)):
            raise Refusal(
                f"{self.file.name} holds a {model.get('type')} vocabulary with pieces of its own, and the operators of "
                "onnxruntime-extensions that are equal on a corpus are GPT-2's and SentencePiece's",
                way_out="tokenize on the host",
            )
        merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"])
        attributes: dict[str, str | bytes | int] = {
            "vocab": json.dumps(model["vocab"], ensure_ascii=False),
            "merges": "\n".join(["#version: 0.2", *merges]),
            "padding_length": -1,
        }
        return Operator("GPT2Tokenizer", attributes)

    def vocabulary(self) -> Vocabulary:
        """Of a byte-level BPE."""
        return from_tokenizer_json(self.file)


LIBRARY = Library("tokenizer.json, by Hugging Face's tokenizers", lambda name, _: name.endswith(".json"), HuggingFace)
