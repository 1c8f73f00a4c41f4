"""`edgetok compare` as a user has it: on real bundles, on saved profiles, and what it refuses."""

import json
from pathlib import Path

import pytest

from edgetok import cli
from edgetok.comparison_report import ComparisonReport
from edgetok.profiling import Effort
from edgetok.report import Latency
from edgetok.timing import Timing
from tests.test_page import Reader

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of libraries, when a command first loads them
EFFORT = Effort(min_seconds=0.1, max_seconds=2, warm_up_seconds=0.5, rounds=9, layer_seconds=0.1, idle_seconds=0)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real text encoder: whole, and with its tokens merged."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("bundles")
    for name, reduce in {"whole": [], "merged": ["--reduce", "tome:r=3"]}.items():
        given = ["export", "zoo:minilm", *reduce, "--length", "32", "--min-cosine", "0", "-o", str(folder / name)]
        assert cli.main([*given, "--json"]) == 0
    return folder


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements that take a fraction of a second: nothing is said here about speed."""
    monkeypatch.setattr("edgetok.api.comparing.effort_for", lambda *_: EFFORT)


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict:
    capsys.readouterr()
    assert cli.main([*map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("brief")
def test_bundles_are_measured_in_turns_and_one_is_chosen(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, out = ("merged", "whole"), tmp_path / "report"
    given = ["compare", *(bundles / name for name in names), "--rounds", 9, "--min-cosine", 0.5]
    found = run(capsys, *given, "-o", out)
    rows = {row["label"]: row for row in found["rows"]}
    assert rows.keys() == set(names) and found["against"] == "whole"
    assert [row["milliseconds"] for row in found["rows"]] == sorted(row["milliseconds"] for row in found["rows"])
    assert len(found["rounds"]) == 9 and all(len(each) == 2 for each in found["rounds"])
    assert rows["whole"]["speedup"]["value"] == 1 and rows["merged"]["latency"]["runs"] > 0
    manifest = json.loads((bundles / "merged" / "manifest.json").read_text())
    assert rows["merged"]["fidelity"] == manifest["fidelity"]
    assert rows["merged"]["bytes"] == sum(
        (bundles / "merged" / name).stat().st_size
        for name in ("model.onnx", "model.onnx.data", "tokenizer.json")
        if (bundles / "merged" / name).exists()
    )
    assert found["chosen"] in names and found["why"].startswith(f"{found['chosen']}: ")
    written = json.loads((out / "report.json").read_text())
    assert written == {key: value for key, value in found.items() if key != "verdict"}
    report = ComparisonReport.model_validate_json((out / "report.json").read_text())
    assert report.verdict == found["verdict"]
    page = Reader((out / "report.html").read_text())
    assert {"figure-pareto", "figure-rounds", "figure-spread", "models", "limits", "checks"} <= set(page.ids)
    assert "script" not in page.tags and all(each.startswith(("#", "data:,")) for each in page.loaded)
    assert page.open == [] and found["why"] in page.text
    assert "exists already" in run(capsys, *given, "-o", out, code=1)["error"]["message"]


@pytest.fixture(scope="module")
def profiles(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile as it was saved, and another that took a quarter longer."""
    from edgetok import api

    folder = tmp_path_factory.mktemp("profiles")
    saved = api.profile(bundles / "merged", out=folder / "merged", effort=EFFORT)
    times = [1.25 * each for each in saved.model.latency.milliseconds]
    timing = Timing(tuple(times), saved.model.latency.warm_up, (0.0, 1.0))
    slower = saved.model.model_copy(update={"latency": Latency.of(timing, batch=1)})
    (folder / "slower").mkdir()
    (folder / "slower" / "report.json").write_text(saved.model_copy(update={"model": slower}).model_dump_json())
    return folder


def test_saved_profiles_are_compared_where_states_are_alike(
    profiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    found = run(capsys, "compare", profiles / "merged", profiles / "slower" / "report.json", "-o", out)
    fast, slow = found["rows"]
    assert (fast["label"], slow["label"]) == ("merged", "slower") and fast["bytes"] > 10**6
    saved = json.loads((profiles / "merged" / "report.json").read_text())
    assert fast["milliseconds"] == saved["model"]["latency"]["median"]["value"]
    assert fast["speedup"]["value"] == pytest.approx(1.25, rel=1e-3)
    assert found["rounds"] == [] and found["verdict"] == "warn"
    assert "measured apart" in {check["name"] for check in found["checks"]}
    page = Reader((out / "report.html").read_text())
    assert "figure-pareto" in page.ids and "figure-rounds" not in page.ids

    other = json.loads((profiles / "slower" / "report.json").read_text())
    other["environment"]["governors"] = ["powersave"]
    (tmp_path / "report.json").write_text(json.dumps(other))
    refused = run(capsys, "compare", profiles / "merged", tmp_path, code=2)["error"]["message"]
    assert "unlike states: governors: " in refused and "powersave" in refused
    found = run(capsys, "compare", profiles / "merged", tmp_path, "--anyway", "-o", tmp_path / "anyway")
    assert found["checks"][0]["name"] == "unlike states" and "governors" not in found["environment"]
    page = Reader((tmp_path / "anyway" / "report.html").read_text()).text
    assert page.index("Unlike states: governors") < page.index("Latency and fidelity")
    assert cli.main(["compare", str(profiles / "merged"), str(tmp_path), "--anyway"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("unlike states: governors") and max(map(len, shown.splitlines())) <= 80


def test_none_keeps_the_limit(profiles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["compare", profiles / "merged", profiles / "merged", "--min-cosine", 0.999999]
    assert cli.main([*map(str, given)]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "none of 2 is shown to keep cosine to the original at least 0.999999" in shown
    assert "merged (2)" in shown  # one profile twice


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["{bundles}/whole"], "compare takes two or more, bundles or saved profiles"),
        (["{bundles}/whole", "{profiles}/merged"], "compare takes bundles or saved profiles, not both: "),
        (["{profiles}/merged", "{profiles}/slower", "--rounds", "9"], "compared as they were measured: leave --on and"),
        (["{bundles}/whole", "{bundles}/gone"], "there is no such folder"),
        (["{bundles}/whole", "{bundles}/whole", "--max-p99", "20"], "a time of '20': a number with its unit"),
    ],
)
def test_used_wrongly(
    bundles: Path, profiles: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    paths = [each.format(bundles=bundles, profiles=profiles) for each in given]
    assert cli.main(["compare", *paths, "--json"]) != 0
    assert message in json.loads(capsys.readouterr().out)["error"]["message"]
