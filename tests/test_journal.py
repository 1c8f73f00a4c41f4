"""The journal: what is on the disk is whole, and belongs to what is measured."""

import json
from pathlib import Path

import pytest

from edgetok.errors import OutputError
from edgetok.evaluation import Evaluation
from edgetok.journal import Journal
from edgetok.manifest import Fidelity

OWNER = {"source": "callable: vit", "model": "5" * 64, "space": ["tome:keep=0.5", "tome:keep=0.8"]}


def evaluation(reduce: str = "tome:keep=0.5") -> Evaluation:
    near = Fidelity(output="y", cosine=0.98, sqnr_db=None, max_abs=0.5)
    return Evaluation(reduce=reduce, tokens=33, flops=0.7, fidelity=(near,), rounds=((2.0, 3.0), (2.1, 3.0)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with two evaluations."""
    with Journal(tmp_path / "new" / "out.journal", OWNER) as journal:
        journal.append(evaluation())
        journal.append(evaluation("tome:keep=0.8"))
    return tmp_path / "new" / "out.journal"


def test_what_was_measured_comes_back(path: Path) -> None:
    with Journal(path, OWNER) as journal:
        assert journal.entries == [evaluation(), evaluation("tome:keep=0.8")]
        journal.append(evaluation("tome:keep=0.2"))
    assert len(path.read_bytes().splitlines()) == 4


def test_every_cut_leaves_a_journal(path: Path) -> None:
    """Wherever a killed run stopped writing, whole lines are kept and the next one begins a new line."""
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        with Journal(path, OWNER) as journal:
            kept = max(whole[:cut].count(b"\n") - 1, 0)
            assert journal.entries == [evaluation(), evaluation("tome:keep=0.8")][:kept]
            journal.append(evaluation("tome:keep=0.2"))
        assert path.read_bytes().splitlines(keepends=True)[: kept + 1] == lines[: kept + 1]
        with Journal(path, OWNER) as journal:
            assert [entry.reduce for entry in journal.entries][kept:] == ["tome:keep=0.2"]


def test_a_journal_of_something_else_is_refused_with_what_differs(path: Path) -> None:
    before = path.read_bytes()
    other = OWNER | {"model": "6" * 64, "space": ["tome:keep=0.5"], "samples": "a"}
    with pytest.raises(OutputError) as refused:
        Journal(path, other)
    assert str(refused.value) == (
        f"the journal {path} was measured on something else (model: 555555555555..., now 666666666666...; "
        "space: 2 candidates, now 1 candidates; samples: None, now a); delete it to begin anew, or "
        "choose another output"
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (1, "{}"),
        (1, "[1]"),
        (2, "not json"),
        (2, "[" * 100_000),
        (3, json.dumps({"reduce": "tome:keep=0.5"})),
        (2, evaluation().model_dump_json().replace("[2.0,", "[-2.0,")),
        (3, evaluation().model_dump_json().replace("33", "Infinity")),
    ],
)
def test_a_damaged_line_is_named(path: Path, line: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(OutputError, match=f"out.journal: line {line} is none of a journal; delete the file to begin"):
        Journal(path, OWNER)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="the journal .* cannot be written: "):
        Journal(tmp_path / "file" / "out.journal", OWNER)
    with pytest.raises(OutputError, match="the journal .* cannot be written: Is a directory"):
        Journal(tmp_path, OWNER)
