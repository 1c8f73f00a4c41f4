"""A .model of SCRIPT-BPE, whose code is no package of its own: characters are a block and an index before they merge.

BPE Stays on SCRIPT: Structured Encoding for Robust Multilingual Pretokenization, https://arxiv.org/abs/2505.24689;
files in JSON by sanderland/script_bpe, in their form "sebpe-v1". A text is normalised to NFC, and characters that no
block has (private ones, and such as Unicode has not assigned) are left out, as in the published code.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from edgetok.errors import InputError
from edgetok.text.library import Library, Row, TextTokenizer
from edgetok.text.merging import merge
from edgetok.text.scripts import Kind, runs
from edgetok.text.vocabulary import Vocabulary, read

_LONGEST = 10_000  # symbols of a token; tokens of tokens grow fast
_SCRIPTS = ("Inherited", ("Hiragana", "Han"))  # as the files spell them
MARK = b'"sebpe-v1"'
_Id = Annotated[int, Field(ge=0, lt=2**31)]


class _Rule(BaseModel):
    tokens_from: tuple[_Id, _Id]
    token_to: _Id


class _Config(BaseModel):
    starting_token_id: _Id = 1
    normalization: Literal["NFC"] = "NFC"
    num_index_tokens: _Id
    script_cat_with_space: list[tuple[str, str]]
    blocks: list[tuple[int, str, str, int, str]]  # script's number, script, category, which of its blocks, characters


class _Pretokenizer(BaseModel):
    kind: Literal["ScriptEncodingPretokenizer"] = Field(alias="class")  # others cut by a pattern
    config: _Config


class _Model(BaseModel):
    pretokenizer: _Pretokenizer
    merge_rules: list[_Rule]


class ScriptBpe(TextTokenizer):
    """A .model in the form "sebpe-v1"; special tokens there are none."""

    def __init__(self, file: Path) -> None:
        try:
            model = _Model.model_validate_json(read(file))
        except ValidationError as error:
            wrong = error.errors()[0]
            raise InputError(
                f"{file.name} is no model of SCRIPT-BPE: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}"
            ) from None
        config, self.name = model.pretokenizer.config, file.name
        first_index = config.starting_token_id
        first_block = first_index + config.num_index_tokens
        self.kinds: dict[str, Kind] = {}
        self.symbols: dict[str, tuple[int, int]] = {}  # of a character: its block's token and its index's
        for block, (_, script, category, _, characters) in enumerate(config.blocks):
            for index, character in enumerate(characters[: config.num_index_tokens]):
                self.kinds[character] = Kind(script, category)
                self.symbols[character] = (first_block + block, first_index + index)
        self.spaced = {Kind(*pair) for pair in config.script_cat_with_space}
        self.base = range(first_index, first_block + len(config.blocks))
        self.rules = {rule.tokens_from: (rank, rule.token_to) for rank, rule in enumerate(model.merge_rules)}
        self.parts: dict[int, tuple[int, int]] = {}
        length = dict.fromkeys(self.base, 1)  # of a token, in symbols
        for rule in model.merge_rules:
            of = [length.get(part, _LONGEST) for part in rule.tokens_from]
            if sum(of) >= _LONGEST or rule.token_to in length:
                raise InputError(f"{file.name} is no model of SCRIPT-BPE: the merge to {rule.token_to} cannot be made")
            self.parts[rule.token_to], length[rule.token_to] = rule.tokens_from, sum(of)
        self.characters = {symbols: character for character, symbols in self.symbols.items()}
        self.size = max([self.base.stop - 1, *self.parts]) + 1

    def encode(self, text: str) -> list[int]:
        """Ids."""
        known = "".join(character for character in text if character in self.kinds)
        known = "".join(character for character in unicodedata.normalize("NFC", known) if character in self.kinds)
        found: dict[str, list[int]] = {}
        ids: list[int] = []
        for run in runs(known, self.kinds.__getitem__, self.spaced.__contains__, *_SCRIPTS):
            if run not in found:
                symbols = [symbol for character in run for symbol in self.symbols[character]]
                found[run] = merge(symbols, lambda left, right: self.rules.get((left, right)))
            ids += found[run]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; a block or an index alone becomes U+FFFD."""
        symbols: list[int] = []
        waiting = list(reversed(ids))
        while waiting:
            number = waiting.pop()
            if number in self.parts:
                waiting += reversed(self.parts[number])
            elif number in self.base:
                symbols.append(number)
            else:
                raise InputError(f"{self.name} has no token of the id {number}")
        text, place = [], 0
        while place < len(symbols):
            character = self.characters.get((symbols[place], symbols[place + 1])) if place + 1 < len(symbols) else None
            text.append("\N{REPLACEMENT CHARACTER}" if character is None else character)
            place += 1 if character is None else 2
        return "".join(text)

    def rows(self, texts: Sequence[str], length: int) -> list[Row]:
        """Nothing is around a text."""
        rows = [self.encode(text)[:length] for text in texts]
        return [Row(row, [0] * len(row)) for row in rows]

    def vocabulary(self) -> Vocabulary:
        """None: its tokens are no bytes."""
        raise InputError(
            f"{self.name} holds a vocabulary of blocks and indices: other ways of cutting are for byte-level BPE, as "
            "in GPT-2, Llama 3 or Whisper"
        )


LIBRARY = Library("a .model of SCRIPT-BPE", lambda name, head: name.endswith(".model") and MARK in head, ScriptBpe)
