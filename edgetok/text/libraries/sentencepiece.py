"""A SentencePiece .model, by https://github.com/google/sentencepiece.

What stands around a text is not in that file: transformers knows it by the class of the tokenizer. Classes whose ids
are others than the file's (XLM-RoBERTa's and CamemBERT's are shifted) are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.errors import InputError, MissingPackage
from edgetok.text import settings
from edgetok.text.library import SETTINGS, Library, Row, TextTokenizer
from edgetok.text.vocabulary import Vocabulary, read

if TYPE_CHECKING:
    from edgetok.text.in_graph import Operator

# Whether transformers puts the beginning before a text, and the end behind it.
_AROUND = {
    "LlamaTokenizer": (True, False),
    "GemmaTokenizer": (True, False),
    "T5Tokenizer": (False, True),
}


class SentencePiece(TextTokenizer):
    """A .model; special tokens that are spelt out in a text are text."""

    def __init__(self, file: Path) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            raise MissingPackage("edgetok[text]", f"reading {file.name}") from None
        content = read(file)
        self.file, self.name = file, file.name
        self.processor = SentencePieceProcessor()
        try:
            self.processor.LoadFromSerializedProto(content)
            self.size = self.processor.GetPieceSize()
        except (RuntimeError, OSError, ValueError) as error:
            raise InputError(f"{file.name} is no SentencePiece model: {_line(error)}") from error
        if self.size == 0:  # what an empty file gives, without an error
            raise InputError(f"{file.name} is no SentencePiece model: it holds no pieces")
        self.before, self.behind = self._around(settings.beside(file))

    def _around(self, said: settings.Settings) -> tuple[list[int], list[int]]:
        """The ids in front of a text and behind it."""
        kind = (said.tokenizer_class or "").removesuffix("Fast")
        known = _AROUND.get(kind)
        if known is None and (kind or said.add_bos_token is None or said.add_eos_token is None):
            raise InputError(
                f"what stands around a text of {self.name} is not known: {SETTINGS} names "
                f"{kind or 'no tokenizer_class'}, and {', '.join(_AROUND)} are read; save the folder with a "
                'tokenizer.json, or write "add_bos_token" and "add_eos_token" there and no class'
            )
        begins, ends = known or (False, False)
        begins = begins if said.add_bos_token is None else said.add_bos_token
        ends = ends if said.add_eos_token is None else said.add_eos_token
        return (
            [self._special("beginning", self.processor.bos_id(), said.bos_token)] if begins else [],
            [self._special("end", self.processor.eos_id(), said.eos_token)] if ends else [],
        )

    def _special(self, role: str, number: int, token: str | None) -> int:
        if token is not None:
            number = self.processor.PieceToId(token)
            number = number if self.processor.IdToPiece(number) == token else -1
        if number < 0:
            raise InputError(f"{self.name} has no token of the {role} {token or ''}, and {SETTINGS} asks for one")
        return number

    def encode(self, text: str) -> list[int]:
        """Ids."""
        try:
            ids: list[int] = self.processor.EncodeAsIds(text)
        except (RuntimeError, UnicodeError) as error:
            raise InputError(f"{self.name} cannot encode the text: {_line(error)}") from error
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; control tokens give none."""
        text: str = self.processor.DecodeIds(list(ids))
        return text

    def rows(self, texts: Sequence[str], length: int) -> list[Row]:
        """What is around a text stays where the text is cut."""
        free = max(0, length - len(self.before) - len(self.behind))
        rows = [[*self.before, *self.encode(text)[:free], *self.behind][:length] for text in texts]
        return [Row(row, [0] * len(row)) for row in rows]

    def operator(self) -> Operator:
        """The same library, inside of onnxruntime-extensions."""
        import numpy as np
        import onnx_ir as ir

        from edgetok.text.in_graph import Operator

        best, off = (np.zeros(1, np.int64), np.zeros(1, np.float32)), np.zeros(1, np.bool_)
        return Operator("SentencepieceTokenizer", {"model": read(self.file)}, (*best, off, off, off), ir.DataType.INT32)

    def vocabulary(self) -> Vocabulary:
        """None: pieces are characters with scores."""
        raise InputError(
            f"{self.name} holds a SentencePiece vocabulary: other ways of cutting are for byte-level BPE, as in GPT-2, "
            "Llama 3 or Whisper"
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _reads(name: str, head: bytes) -> bool:
    return name.endswith(".model") and not head[:1].isalnum() and head[:1] != b"{"  # others of that name are texts


LIBRARY = Library("a SentencePiece .model, by sentencepiece", _reads, SentencePiece)
