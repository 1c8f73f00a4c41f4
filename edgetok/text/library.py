"""What reads a vocabulary's file and cuts texts by its own rule: a library. One is a file in edgetok/text/libraries/.

A source's folder and a bundle are read by the same code: a bundle carries the files as they are, by their names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgetok import discovery
from edgetok.errors import InputError, Refusal

if TYPE_CHECKING:
    from edgetok.text.in_graph import Operator
    from edgetok.text.vocabulary import Vocabulary

PACKAGE = "edgetok.text.libraries"
SETTINGS = "tokenizer_config.json"  # of Hugging Face; `edgetok/text/settings.py` reads it
SUFFIXES = (".model", ".tiktoken")  # of vocabularies besides tokenizer.json


class Row(NamedTuple):
    """What a model eats of one text, special tokens included and not padded."""

    ids: list[int]
    type_ids: list[int]


class TextTokenizer(ABC):
    """A vocabulary that was read.

    Attributes:
        size: ids are below it.
    """

    size: int

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """A text's own tokens, without those that a model wants around it.

        Raises:
            InputError: the library cannot cut it.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids below `size`.

        Raises:
            InputError: ids that stand for nothing.
        """

    @abstractmethod
    def rows(self, texts: Sequence[str], length: int) -> list[Row]:
        """Each text as the model eats it, cut to `length` tokens.

        Raises:
            InputError: the library cannot cut one.
        """

    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """The same vocabulary as bytes, for other ways of cutting.

        Raises:
            InputError: its tokens are no plain bytes.
        """

    def operator(self) -> Operator:
        """What cuts texts in the same way inside of a graph.

        Raises:
            Refusal: no operator of onnxruntime-extensions does.
        """
        raise Refusal(
            f"no operator of onnxruntime-extensions cuts as {type(self).__name__}", way_out="tokenize on the host"
        )


@dataclass(frozen=True)
class Library:
    """One library.

    Attributes:
        summary: one line.
        reads: whether a file is of its kind, by its name and first bytes.
        load: reads it; InputError for what is damaged, MissingPackage where the library is not installed.
    """

    summary: str
    reads: Callable[[str, bytes], bool]
    load: Callable[[Path], TextTokenizer]


def load(file: Path) -> TextTokenizer:
    """Read a vocabulary's file, with the tokenizer_config.json beside it.

    Raises:
        InputError: it is missing, damaged or of no known kind.
        MissingPackage: its library is not installed.
    """
    if not file.is_file():
        raise InputError(f"the model reads text with {file.name}, which is missing; give token ids as .npz")
    with file.open("rb") as opened:
        head = opened.read(512)
    for name in discovery.names(PACKAGE):
        library = discovery.load(PACKAGE, "library", name, Library)
        if library.reads(file.name, head):
            return library.load(file)
    raise InputError(f"{file.name} is no vocabulary: tokenizer.json, a SentencePiece .model and a .tiktoken file are")


def kept(file: Path) -> TextTokenizer:
    """As `load`, but read once in a process: again only where the file or the settings beside it have changed."""
    stats = [each.stat() for each in (file, file.parent / SETTINGS) if each.is_file()]
    return _kept(file.absolute(), tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats))


@lru_cache(maxsize=2)
def _kept(file: Path, state: tuple[tuple[int, int, int], ...]) -> TextTokenizer:
    return load(file)


def choose(names: Collection[str]) -> str | None:
    """Which of a folder's files is its vocabulary: tokenizer.json, or the one .model or .tiktoken file.

    Raises:
        InputError: there are several, and none is called tokenizer.
    """
    for known in ("tokenizer.json", "tokenizer.model", "tokenizer.tiktoken"):
        if known in names:
            return known
    found = sorted(name for name in names if name.endswith(SUFFIXES) and not name.startswith("."))
    if len(found) > 1:
        raise InputError(f"{', '.join(found)} are all vocabularies: keep one, or call it tokenizer.model")
    return found[0] if found else None


def files(folder: Path) -> dict[str, Path]:
    """What a bundle carries of a folder to read texts, by name: the vocabulary first, or nothing.

    Raises:
        InputError: there are several vocabularies.
    """
    chosen = choose([file.name for file in folder.glob("*") if file.is_file()])
    if chosen is None:
        return {}
    names = [chosen] if chosen == "tokenizer.json" else [chosen, SETTINGS]  # tokenizer.json says all by itself
    return {name: folder / name for name in names if (folder / name).is_file()}
