"""No source file grows beyond what one can hold in mind."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
LIMIT = 400
FOLDERS = ("edgetok", "devices", "plugins", "runtimes", "exporters", "tests", "benchmarks", ".ci")


def test_no_file_over_the_limit() -> None:
    files = [
        file for folder in FOLDERS for kind in ("*.py", "*.cpp", "*.h", "*.cu") for file in (ROOT / folder).rglob(kind)
    ]
    assert len(files) > len(FOLDERS)
    lines = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {file: count for file, count in lines.items() if count > LIMIT} == {}
