"""A text as a transformer eats it: token ids, and the mask that tells tokens from padding."""

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from edgetok.errors import InputError
from edgetok.preprocess.base import FilePreprocess, Medium
from edgetok.text.library import Row, kept

if TYPE_CHECKING:
    import numpy as np

_ONE_AT_A_TIME = Lock()  # a Hugging Face tokenizer is told for each call where to cut
MAX_TEXT_BYTES = 1 << 20  # far more than any `length` of tokens needs

# What an example is made of: common words, most of them one token in any vocabulary.
_WORDS = (
    "the",
    "river",
    "runs",
    "under",
    "an",
    "old",
    "stone",
    "bridge",
    "while",
    "children",
    "watch",
    "boats",
    "and",
    "rain",
)


class TextPreprocess(FilePreprocess):
    """Tokenize, cut or pad to a fixed length.

    Attributes:
        tokenizer: name of the tokenizer's file, which one of `edgetok/text/libraries/` reads; it lies in the bundle,
            whose manifest lists its digest. Cutting and padding are as written here, whatever the file says.
        length: tokens per text, the special ones included; what is longer is cut.
        pad_id: id of the padding token.
        pad_token: how the padding token is spelt; nothing here needs it.
        pad_side: where the padding goes.
        yields: which of the model's inputs this is.
    """

    kind: Literal["text"] = "text"
    medium: ClassVar[Medium] = "text"
    tokenizer: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")] = "tokenizer.json"  # no path
    length: PositiveInt
    pad_id: int = 0
    pad_token: str = "[PAD]"
    pad_side: Literal["left", "right"] = "right"
    yields: Literal["input_ids", "attention_mask", "token_type_ids"]

    def load(self, sources: Sequence[str], folder: Path) -> "np.ndarray":
        """Encode texts; a source is a file, or else the text itself."""
        return self.encode([read_text(source) for source in sources], folder)

    def example(self, batch: int, seed: int, folder: Path) -> "np.ndarray":
        """Words in a random order: about half the length in the first sample, too long in the second, and so on."""
        import numpy as np

        rng = np.random.default_rng(seed)
        texts = []
        for sample in range(batch):
            words = self.length if sample % 2 else rng.integers(self.length // 3, 2 * self.length // 3 + 1)
            texts.append(" ".join(rng.choice(_WORDS, words)))
        return self.encode(texts, folder)

    def encode(self, texts: list[str], folder: Path) -> "np.ndarray":
        """Encode texts to (batch, length) int64."""
        with _ONE_AT_A_TIME:
            return self.padded(kept(folder / self.tokenizer).rows(texts, self.length))

    def padded(self, rows: Sequence[Row]) -> "np.ndarray":
        """What it yields of texts of at most `length` tokens: (batch, length) int64."""
        import numpy as np

        out = np.full((len(rows), self.length), self.pad_id if self.yields == "input_ids" else 0, dtype=np.int64)
        for to, row in zip(out, rows, strict=True):
            count = len(row.ids)
            start = 0 if self.pad_side == "right" else self.length - count
            mask = [1] * count
            values = {"input_ids": row.ids, "attention_mask": mask, "token_type_ids": row.type_ids}
            to[start : start + count] = values[self.yields]
        return out


def read_text(source: str) -> str:
    """The text in a file, or the source itself if there is no such file.

    Raises:
        InputError: an empty text, a file of more than MAX_TEXT_BYTES, or one that is not UTF-8.
    """
    text, name = source, "the text given"
    if os.path.isfile(source):
        name = source
        with open(source, "rb") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
        if len(content) > MAX_TEXT_BYTES:
            raise InputError(
                f"{source} is larger than {MAX_TEXT_BYTES >> 20} MiB: give the part that the model shall read"
            )
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{source} is not text in UTF-8: {error}") from error
    if not text.strip():
        raise InputError(f"{name} is empty")
    return text
