"""Runs of one script: what SCRIPT-BPE has in place of a pattern.

BPE Stays on SCRIPT: Structured Encoding for Robust Multilingual Pretokenization, https://arxiv.org/abs/2505.24689,
section 3; published code: sanderland/script_bpe (Apache-2.0). A run has one script and one kind: letters and marks,
punctuation and symbols, numbers, separators, others. Marks of no script of their own (Inherited) stay with what is
before them, Han and Hiragana with each other, and one space goes with the word behind it where the script has spaces.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection
from functools import cache
from itertools import groupby
from typing import NamedTuple

# Unicode's four letters of the scripts that the published code lets a space go with, as far as letters and marks go.
_SPACED = {
    "Latn", "Arab", "Deva", "Hang", "Ethi", "Cyrl", "Grek", "Hebr", "Beng", "Syrc",
    "Orya", "Taml", "Telu", "Guru", "Gujr", "Sinh", "Mlym", "Armn", "Knda", "Geor",
}  # fmt: skip
# Newline and tab count as separators; marks that make a sound longer, or a line, as what they stand with.
_CHANGED = {
    "\n": ("Zyyy", "Z"),
    "\t": ("Zyyy", "Z"),
    "\u30fc": ("Zinh", "LM"),
    "\uff70": ("Zinh", "LM"),
    "\u0640": ("Arab", "LM"),
}


class Kind(NamedTuple):
    """Of a character: what its run has."""

    script: str
    category: str


@cache
def kind_of(character: str) -> Kind:
    """By Unicode: the script of fontTools' tables, and the category of Python's."""
    from fontTools.unicodedata import script

    if character in _CHANGED:
        return Kind(*_CHANGED[character])
    written, category = script(character), unicodedata.category(character)
    if category == "Cn" and written != "Zzzz":  # newer than this Python: an emoji, or a letter of a script
        category = "So" if written == "Zyyy" else "Lo"
    return Kind(written, {"P": "PS", "S": "PS", "L": "LM", "M": "LM"}.get(category[0], category[0]))


def takes_space(kind: Kind) -> bool:
    """Whether one space goes with the run behind it."""
    return (kind.category == "LM" and kind.script in _SPACED) or kind == ("Zyyy", "PS")


def runs(
    text: str,
    of: Callable[[str], Kind] = kind_of,
    spaced: Callable[[Kind], bool] = takes_space,
    inherited: str = "Zinh",
    together: Collection[str] = ("Hira", "Hani"),
) -> list[str]:
    """Cut a text into its runs, which are the text one after the other.

    Args:
        text: any.
        of: the kind of a character.
        spaced: whether one space goes with a run of a kind.
        inherited: the script that stays with what is before it.
        together: two scripts that stay with each other.
    """
    groups = [(kind, "".join(group)) for kind, group in groupby(text, of)]
    found, place = [], 0
    while place < len(groups):
        kind, run = groups[place]
        place += 1
        if run == " " and place < len(groups) and spaced(groups[place][0]):
            kind, run = groups[place][0], run + groups[place][1]
            place += 1
        while place < len(groups):
            other, more = groups[place]
            joins = other.category == kind.category and {other.script, kind.script} == set(together)
            if not joins and other != kind and other.script != inherited:
                break
            run += more
            place += 1
        found.append(run)
    return found
