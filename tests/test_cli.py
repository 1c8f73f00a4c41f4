"""The terminal, as a user has it: real bundles, real files, a process of its own where that matters."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgetok import cli
from edgetok.machine import Machine

ROOT = Path(__file__).parent.parent
COMMANDS = (
    "export", "run", "profile", "compare", "tune", "sweep", "inspect", "lint", "techniques", "devices", "doctor"
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of libraries, when a command first loads them


def edgetok(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "edgetok", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        check=False,
    )


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a real text encoder, its tokens merged."""
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("bundles") / "texts"
    assert cli.main(["export", "zoo:minilm", "--reduce", "tome:r=4", "--length", "32", "-o", str(out), "--json"]) == 0
    return out


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a real vision transformer, its tokens merged."""
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("bundles") / "pictures"
    assert cli.main(["export", "zoo:dinov2-style-s14", "--reduce", "tome:r=16", "-o", str(out), "--json"]) == 0
    return out


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    """What --json prints: exactly one document."""
    assert cli.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "arguments", [["--help"], *[[name, "--help"] for name in COMMANDS], ["--version"]], ids=" ".join
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from edgetok.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'onnx', 'onnx_ir', 'onnxruntime', 'transformers', 'numpy'} & set(sys.modules);"
        "sys.exit(f'loaded: {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "edgetok" in done.stdout and not done.stderr


def test_run_loads_only_what_running_needs(texts: Path) -> None:
    code = (
        "import sys; from edgetok.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'onnx', 'onnx_ir', 'onnxscript', 'transformers'} & set(sys.modules);"
        "sys.exit(f'loaded: {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", texts, "--input", "a small dog"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"│ {name} " in shown for name in COMMANDS)


def test_without_a_command_it_shows_the_help() -> None:
    done = edgetok()
    assert done.returncode == 2 and "Usage: edgetok" in done.stdout + done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from edgetok import __version__

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"edgetok {__version__}\n"


def test_export_says_what_came_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a small one"
    assert cli.main(["export", "zoo:minilm", "--reduce", "tome:r=4", "--length", "32", "-o", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"next: edgetok run '{out}'" in shown and "top-1" not in shown  # of classifiers only
    assert "32 > 28 > 24 > 20 > 16 > 12 > 8" in shown and "Apache-2.0" in shown and "sentence_embedding" in shown
    assert max(map(len, shown.replace(str(out), "").splitlines())) <= 80


def test_run_checks_the_samples(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "run", texts)
    assert found["errors"].keys() == {"last_hidden_state", "sentence_embedding"}
    assert found["outputs"]["sentence_embedding"]["shape"] == [2, 384]
    assert cli.main(["run", str(texts)]) == 0
    assert "as promised" in capsys.readouterr().out


def test_run_on_a_photograph(
    pictures: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "map.npz"
    found = answer(capsys, "run", pictures, "--input", photograph, "-o", out)
    with np.load(out, allow_pickle=False) as written:
        (name,) = written.files
        assert written[name].shape == (1, 1, 224, 224)
        assert found["outputs"][name]["max"] == pytest.approx(float(written[name].max()))
    assert [file.name for file in tmp_path.iterdir()] == ["map.npz"]
    assert cli.main(["run", str(pictures), "--input", str(photograph)]) == 0
    assert "1 × 1 × 224 × 224" in capsys.readouterr().out


def test_run_insists_on_an_id(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "run", texts, "--input", "a small dog")
    assert answer(capsys, "run", texts, "--input", "a small dog", "--id", found["id"][:8]) == found
    best = found["outputs"]["sentence_embedding"]["top"][0]
    assert [each["value"] for each in best] == sorted((each["value"] for each in best), reverse=True)


def test_inspect_a_bundle(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "inspect", texts)
    assert found["tokens_per_block"] == [[32, 28], [28, 24], [24, 20], [20, 16], [16, 12], [12, 8]]
    assert found["contents"]["operators"]["edgetok.MergeTokens"] == 6
    assert found["manifest"]["recipe"]["reduce"] == ["tome:r=4"]
    assert cli.main(["inspect", str(texts)]) == 0
    assert "█" in capsys.readouterr().out


def test_inspect_a_file_of_another_exporter(capsys: pytest.CaptureFixture[str]) -> None:
    from edgetok import zoo

    found = answer(capsys, "inspect", zoo.find("dinov2-style-s14").locate())
    assert found["transformer"] == {"count": 12, "tokens": 257, "prefix": 1, "mask": "none", "refusal": None}
    assert found["contents"]["opset"] == 14


def test_inspect_says_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[batch, 4] x) => (float[batch, 4] y) { y = Relu(x) }'
    )
    onnx.save(model, tmp_path / "plain.onnx")
    found = answer(capsys, "inspect", tmp_path / "plain.onnx")
    assert found["transformer"]["count"] == 0
    assert "no transformer block found" in found["transformer"]["refusal"]
    assert cli.main(["inspect", str(tmp_path / "plain.onnx")]) == 0
    assert "refused: no transformer block found" in " ".join(capsys.readouterr().out.split())


def test_lint_fails_where_something_does_not_run(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lint", str(texts), "--for", "x86-cpu"]) == 0
    assert "x86-cpu: nothing stands in the way" in capsys.readouterr().out
    assert cli.main(["lint", str(texts), "--for", "jetson-orin-nano-jp62"]) == 0  # as it is lowered for it
    capsys.readouterr()
    assert cli.main(["lint", str(texts / "model.onnx"), "--for", "jetson-orin-nano-jp62", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert "Attention" in {finding["op"] for finding in findings if finding["severity"] == "error"}


def test_lint_without_a_device_looks_at_this_machine(
    texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jetson = Machine("aarch64", "", frozenset({"0xd42"}), compatible=("nvidia,p3767-0003",), l4t="36.4.3")
    monkeypatch.setattr(Machine, "read", lambda: jetson)
    assert cli.main(["lint", str(texts)]) == 0
    assert "jetson-orin-nano-jp62, which is this machine: " in capsys.readouterr().out
    monkeypatch.setattr(Machine, "read", lambda: Machine("riscv64", ""))
    assert cli.main(["lint", str(texts)]) == 1
    assert "no profile describes this machine: this machine is riscv64" in " ".join(capsys.readouterr().err.split())


def test_techniques_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    from edgetok import technique

    found = answer(capsys, "techniques")
    assert [each["name"] for each in found["techniques"]] == technique.names()
    all_kinds = found["techniques"] + found["attention"]
    every = [option for each in all_kinds for option in each["options"]]
    every += found["shared_options"] + found["shared_options_of_attention"]
    assert [option["name"] for option in every if not option["help"]] == []


def test_devices(capsys: pytest.CaptureFixture[str]) -> None:
    from edgetok import devices

    assert [each["name"] for each in answer(capsys, "devices")["devices"]] == devices.names()


def test_devices_are_searched_and_one_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    found = [each["name"] for each in answer(capsys, "devices", "orin", "nx", "16")["devices"]]
    assert found == [f"jetson-orin-nx-16gb-jp{jetpack}" for jetpack in (51, 60, 61, 62, 72)]
    (one,) = answer(capsys, "devices", "h200-sxm")["devices"]
    assert (one["sm"], one["memory"]["gigabytes"], one["memory"]["confidence"]) == ("9.0", 141, "quoted")
    assert cli.main(["devices", "jetson-orin-nx-16gb-jp62"]) == 0
    shown = capsys.readouterr().out
    assert "DS-10712-001" in shown and "40W (as shipped)" in shown and "int8 38.4" in shown
    assert cli.main(["devices", "orin", "nano", "17gb"]) == 2
    assert "no device 'orin nano 17gb'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["techniques", "devices"])
def test_tables_fit_a_terminal(command: str) -> None:
    """80 columns, in a real terminal."""
    main, other = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "edgetok", command], stdout=other, stderr=other, stdin=other,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"},
    )  # fmt: skip
    os.close(other)
    shown = b""
    try:
        while part := os.read(main, 65536):
            shown += part
    except OSError:  # Linux says EIO once the other end is closed
        pass
    os.close(main)
    assert done.wait() == 0
    assert max(len(line) for line in shown.decode().split("\r\n")) <= 80


def test_chatter_of_libraries_stays_out_of_the_answer(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(
        "import torch\nprint('hello from an import')\ndef model():\n    return torch.nn.Linear(2, 2)\n"
    )
    done = edgetok("export", "chatty:model", "-o", "out", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["kind"] == "SourceError"
    assert "hello from an import" in done.stderr


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7 bytes"), (2048, "2.0 kB"), (97.6e6, "97.6 MB"), (345e6, "345 MB"), (1.2e10, "12.0 GB")]
)
def test_sizes_as_people_write_them(count: float, text: str) -> None:
    from edgetok.cli._console import size

    assert size(count) == text


def test_a_reader_that_has_seen_enough() -> None:
    done = subprocess.run(
        f"{sys.executable} -m edgetok techniques --json | head -1", shell=True, capture_output=True, text=True,
        cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.stdout == "{\n" and "Traceback" not in done.stderr
