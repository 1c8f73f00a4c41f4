"""`edgetok tune` and `edgetok sweep` as a user has them, on a small real model; nothing is said about its speed."""

import csv
import html
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import edgetok
from edgetok import cli
from tests import families

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of libraries, when a command first loads them
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViT as an .onnx file, and three samples."""
    made = tmp_path_factory.mktemp("tune")
    (made / "vit.onnx").write_bytes(families.captured("vit")[0])
    (made / "samples").mkdir()
    for name, feeds in enumerate(families.feeds("vit", batch=1, seed=seed) for seed in range(3)):
        np.savez(made / "samples" / f"{name}.npz", **{key: value.numpy() for key, value in feeds.items()})
    return made


def command(folder: Path, out: Path, *more: object) -> list[str]:
    fixed = ["tune", folder / "vit.onnx", "--samples", folder / "samples", "--reduce", "tome,random", "-o", out]
    return [*map(str, [*fixed, *more]), "--json"]


def lines(journal: Path) -> list[bytes]:
    return journal.read_bytes().splitlines(keepends=True) if journal.exists() else []


def test_a_cosine_is_held(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "small"
    assert cli.main(command(folder, out, "--min-cosine", 0.9, "--max-evaluations", 3)) == 0
    answer = json.loads(capsys.readouterr().out)
    rows = [row for row in answer["rows"] if row["reduce"]]
    assert len(rows) == 3 and {row["reduce"].partition(":")[0] for row in rows} == {"tome", "random"}
    assert [row["milliseconds"] for row in answer["rows"]] == sorted(row["milliseconds"] for row in answer["rows"])
    assert answer["path"] == str(out) and answer["verdict"] in ("reduce", "do not reduce here")
    with edgetok.load(out) as model:
        model.check()
        recipe = model.bundle.manifest.recipe
        assert recipe.reduce == ((answer["chosen"],) if answer["chosen"] else ()) and recipe.min_cosine == 0.9
        assert min(each.cosine for each in model.bundle.manifest.fidelity) >= 0.9
    written = json.loads((tmp_path / "small.tune.json").read_text())
    assert written == {key: value for key, value in answer.items() if key != "path"}
    page = (tmp_path / "small.tune.html").read_text()
    assert 'id="figure-pareto"' in page and answer["verdict"].upper() in page
    chosen = next((row for row in rows if row["reduce"] == answer["chosen"]), None)
    if chosen:  # the bundle holds what was measured
        assert chosen["cosine"] == min(each.cosine for each in model.bundle.manifest.fidelity)


def test_a_latency_out_of_reach(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "small"
    given = ("--target-latency", "0.001ms", "--max-evaluations", 2)
    assert cli.main(command(folder, out, *given)) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == "out of reach" and "nearest: " in answer["why"] and answer["path"] is None
    assert not out.exists() and (tmp_path / "small.tune.json").exists()
    assert cli.main(command(folder, out, *given)[:-1]) == 1  # nothing is measured again
    shown = capsys.readouterr().out
    assert "out of reach: 2 measured, none" in " ".join(shown.split()) and "unreduced" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert len(lines(tmp_path / "small.journal")) == 3


def test_a_latency_that_the_unreduced_model_meets(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small"
    assert cli.main(command(folder, out, "--target-latency", "1h")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == "do not reduce here" and "which meets the target" in answer["why"]
    assert 2 <= len(answer["rows"]) <= 4  # believed after three comparisons at the latest, whatever noise says
    assert edgetok.load(out).bundle.manifest.recipe.reduce == ()


def test_a_killed_run_goes_on_where_it_stood(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, journal = tmp_path / "small", tmp_path / "small.journal"
    arguments = command(folder, out, "--min-cosine", 0.9, "--max-evaluations", 4)
    run = subprocess.Popen(
        [sys.executable, "-m", "edgetok", *arguments], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while len(lines(journal)) < 3:
        try:
            code = run.wait(timeout=0.05)
            pytest.fail(f"it ended by itself, with code {code}: {run.stderr and run.stderr.read()}")
        except subprocess.TimeoutExpired:
            pass
    run.send_signal(signal.SIGKILL)
    run.communicate()
    before = [line for line in lines(journal) if line.endswith(b"\n")]
    assert run.returncode == -signal.SIGKILL and not out.exists() and 3 <= len(before) <= 5
    assert cli.main(arguments) == 0
    after = lines(journal)
    measured = [json.loads(line)["reduce"] for line in after[1:]]
    assert after[: len(before)] == before and len(measured) == len(set(measured)) == 4
    assert {row["reduce"] for row in json.loads(capsys.readouterr().out)["rows"]} == {"", *measured}


def test_a_journal_of_another_space_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.journal").write_text('{"belongs_to": {"source": "onnx: vit.onnx"}}\n')
    assert cli.main(command(folder, tmp_path / "small", "--min-cosine", 0.9)) == 1
    message = json.loads(capsys.readouterr().out)["error"]["message"]
    assert "was measured on something else (device: None, now" in message and re.search(
        r"space: None, now \d+ cand", message
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("--min-cosine", "0.9", "--target-latency", "25ms"),
            "give one of --target-latency 25ms and --min-cosine 0.98",
        ),
        ((), "give one of --target-latency 25ms and --min-cosine 0.98; got neither"),
        (("--target-latency", "25"), "--target-latency '25': accepted is a time with its unit, as in 25ms, 0.025s"),
        (("--min-cosine", "0.9", "--reduce", "tom"), "no technique 'tom': did you mean 'tome' or"),
        (("--min-cosine", "0.9", "--dtype", "fp8"), "dtype 'fp8': accepted are fp32, fp16, bf16"),
    ],
)
def test_used_wrongly(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, ...], message: str
) -> None:
    assert cli.main(command(folder, tmp_path / "small", *change)) == 2
    assert message in json.loads(capsys.readouterr().out)["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_samples_are_needed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sweep", str(folder / "vit.onnx"), "--reduce", "tome:keep=0.5", "--json"]) == 2
    message = json.loads(capsys.readouterr().out)["error"]["message"]
    assert message.startswith("give --samples DIR, files such as the model will see (.npz for inputs that are no ")


def test_a_model_that_cannot_be_reduced(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '<ir_version: 10, opset_import: ["": 23]> g (float[b, 3, 64, 64] pixel_values) => (float[b, 3, 64, 64] y)'
    onnx.save(onnx.parser.parse_model(text + "{ y = Relu(pixel_values) }"), tmp_path / "plain.onnx")
    fixed = ["--samples", str(folder / "samples"), "-o", str(tmp_path / "out"), "--min-cosine", "0.9", "--json"]
    assert cli.main(["tune", str(tmp_path / "plain.onnx"), "--reduce", "tome", *fixed]) == 1
    assert "no transformer block found" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_sweep_measures_what_is_spelt_out(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["sweep", str(folder / "vit.onnx"), "--samples", str(folder / "samples"), "-o", str(tmp_path / "grid.csv")]
    both = "tome:r=4,layers=0-1 + random:r=2,layers=2-3"
    assert cli.main([*given, "--reduce", "tome:budget=flops:0.8", "--reduce", both, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    rows = {row["reduce"]: row for row in answer["rows"]}
    assert rows.keys() == {"", "tome:budget=flops:0.8", both} and answer["verdict"] is None
    assert rows["tome:budget=flops:0.8"]["flops"] <= 0.8 and rows[both]["tokens"] == 65 - 12
    with (tmp_path / "grid.csv").open() as file:
        assert [row["reduce"] for row in csv.DictReader(file)] == list(rows)
    assert cli.main([*given, "--reduce", both]) == 1
    assert "grid.csv exists already" in capsys.readouterr().err
    assert cli.main([*given, "--reduce", both, "--force"]) == 0  # measured before
    assert len(lines(tmp_path / "grid.csv.journal")) == 3
    shown = capsys.readouterr().out
    assert "random:r=2,layers=2-3" in shown and "budget" not in shown and max(map(len, shown.splitlines()[:-1])) <= 80


@pytest.mark.more
def test_a_sweep_with_a_target_gives_a_report(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    given = ["sweep", str(folder / "vit.onnx"), "--samples", str(folder / "samples"), "-o", str(out)]
    choices = ["--reduce", "tome:keep=0.7", "--reduce", "random:keep=0.7", "--min-cosine", "0.5"]
    assert cli.main([*given, *choices, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] in ("reduce", "do not reduce here") and answer["wanted"]["cosine"] == 0.5
    assert json.loads((out / "report.json").read_text()) == answer
    with (out / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3
    assert answer["why"] in html.unescape((out / "report.html").read_text())
    assert len(lines(tmp_path / "report.journal")) == 3
    assert cli.main([*given, *choices[:-1], "0.001ms", "--force", "--json"]) == 2
    assert cli.main([*given, *choices[:-2], "--target-latency", "0.001ms", "--force"]) == 1  # measured before
    assert "out of reach: 2 measured" in capsys.readouterr().out
