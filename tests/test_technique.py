"""Specs as users write them, and adding a technique by adding one file."""

import shutil
from pathlib import Path

import pytest

import edgetok
from edgetok import discovery, exporters, technique
from edgetok.errors import UnknownName, UsageError

RANDOM = Path(exporters.__file__).with_name("random.py")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("tome:r=16", "tome:r=16"),
        ("tome:layers=2-11,r=16", "tome:r=16,layers=2-11"),
        ("tome:r=16,proportional=true", "tome:r=16"),
        ("tome:r=16,proportional=false", "tome:r=16,proportional=false"),
        ("tome:keep=0.50", "tome:keep=0.5"),
        ("pitome:ratio=0.925,variant=code,margin=0.75", "pitome:ratio=0.925,margin=0.75,variant=code"),
        ("random:r=8/4/0,layers=3/5/7,seed=7", "random:r=8/4/0,layers=3/5/7,seed=7"),
    ],
)
def test_canonical_spelling(text: str, canonical: str):
    spec = technique.parse(text)
    assert str(spec) == canonical
    assert technique.parse(canonical) == spec


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("tomee:r=1", UnknownName, "no technique 'tomee': did you mean 'tome'"),
        ("zzz:r=1", UnknownName, "no technique 'zzz': known: .*pitome, .*random, .*tome"),
        ("tome", UsageError, "give exactly one of r=16 .tokens per block., keep=0.5, tokens=64, ratio=0.9 or"),
        ("tome:r=1,keep=0.5", UsageError, "got r and keep"),
        ("tome:r", UsageError, "'tome:r': 'r' is no option; write key=value"),
        ("tome:r=", UsageError, "'r=' is no option"),
        ("tome:r=1,r=2", UsageError, "'r' is given twice"),
        ("tome:r=1,layer=2", UnknownName, "no option of 'tome' 'layer': did you mean 'layers'"),
        ("tome:r=1,proportional=yes", UsageError, "option proportional='yes': accepted are true and false"),
        ("pitome:r=1,margin=high", UsageError, "option margin='high': accepted is of type float, such as 0.9"),
        ("pitome:r=1,variant=paperr", UsageError, "option variant='paperr': accepted are paper and code"),
        ("random:r=1,seed=x", UsageError, "option seed='x': accepted is of type int, such as 0"),
        ("tome:r=-1", UsageError, "r='-1': accepted is a count such as 16, or one per block such as 16/12/8"),
        ("tome:r=4//2", UsageError, "r='4//2': accepted is a count"),
        ("tome:keep=0", UsageError, "keep=0: accepted is a number from 0 to 1"),
        ("tome:keep=half", UsageError, "keep='half': accepted is a number from 0 to 1"),
        ("tome:ratio=1.3", UsageError, "ratio=1.3: accepted is a number from 0 to 1"),
        ("tome:r=4,inflect=2", UsageError, "inflect=2: accepted is a number from -1 to 1"),
        ("tome:r=4/2,inflect=1", UsageError, "inflect shapes a single r; with one number per block leave it out"),
        ("tome:r=4,layers=5-2", UsageError, "layers='5-2': accepted is a range such as 2-11, or blocks such as 3/6/9"),
        ("tome:r=4,layers=a", UsageError, "layers='a': accepted is a range"),
    ],
)
def test_what_is_no_spec(text: str, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        technique.parse(text)


def test_one_new_file_is_a_technique(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file beside the others, and no other edit, makes a technique that exports."""
    for file in RANDOM.parent.glob("*.py"):
        shutil.copy(file, tmp_path)
    drawn = "np.random.default_rng([seed, block]).permutation(np.arange(prefix, tokens))"
    (tmp_path / "first_ones.py").write_text(RANDOM.read_text().replace(drawn, "np.arange(prefix, tokens)"))
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})()
    monkeypatch.setattr(discovery, "find_spec", lambda name: spec)
    monkeypatch.setattr(exporters, "__path__", [str(tmp_path), *exporters.__path__])  # sources/ stays where it is
    assert "first-ones" in technique.names()
    bundle = edgetok.export(
        "tests.families:small_vit", out=tmp_path / "out", reduce=["first-ones:r=4,seed=1"], min_cosine=-1
    )
    assert bundle.manifest.recipe.reduce == ("first-ones:r=4,seed=1",)
    assert [step.tokens_out for step in bundle.manifest.schedule] == [61, 57, 53, 49]
    assert max(edgetok.load(tmp_path / "out").check().values()) == 0


@pytest.mark.parametrize("name", technique.names())
def test_every_technique_names_its_paper(name: str):
    loaded = technique.load(name)
    assert "https://" in loaded.paper and "section" in loaded.paper
    assert loaded.summary and not loaded.summary.endswith(".")
    loaded.config()  # every option has a default
    assert loaded.examples and all(technique.parse(spec).name == name for spec in loaded.examples)
