"""Who may import whom: the arrows of docs/architecture.md, imports inside functions included."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What a layer may import besides itself. `edgetok` is edgetok/ without api/ (the verbs) and cli/ (the terminal).
ARROWS = {
    "edgetok": set(),
    "devices": {"edgetok"},
    "plugins": {"edgetok"},
    "runtimes": {"edgetok", "plugins", "devices"},
    "exporters": {"edgetok", "plugins"},
    "edgetok.api": {"edgetok", "devices", "plugins", "runtimes", "exporters"},
    "edgetok.cli": {"edgetok", "devices", "plugins", "runtimes", "exporters", "edgetok.api"},
}
FOLDERS = ("edgetok", "devices", "plugins", "runtimes", "exporters")


def module_name(file: Path, root: Path) -> str:
    """exporters/tome.py -> edgetok.exporters.tome, as it is imported."""
    parts = file.relative_to(root).with_suffix("").parts
    parts = parts if parts[0] == "edgetok" else ("edgetok", *parts)
    return ".".join(part for part in parts if part != "__init__")


def layer(module: str) -> str | None:
    """The layer of a module given by its full name; None for other people's modules."""
    top, _, rest = module.partition(".")
    if top in ARROWS:
        first = rest.partition(".")[0]
        if top != "edgetok" or first not in (*FOLDERS, "api", "cli", "__main__"):
            return top  # a bare `import exporters` counts as exporters
        return {"api": "edgetok.api", "cli": "edgetok.cli", "__main__": "edgetok.cli"}.get(first, first)
    return None


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported; `from a import b` gives a.b, for b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -(node.level - 1) or None] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def violations(root: Path) -> list[str]:
    """Every import under `root` that goes against the arrows."""
    wrong = []
    for folder in FOLDERS:
        files = sorted((root / folder).rglob("*.py"))
        if not files:
            wrong.append(f"{folder}/ holds no Python file: a test of nothing")
        for file in files:
            name = module_name(file, root)
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            here = layer(name)
            allowed = ARROWS[here] | {here}
            if name == "edgetok":
                allowed |= {"edgetok.api"}  # edgetok.export and its like come from there, on first use
            wrong += [
                f"{file.relative_to(root)}:{line} imports {imported}"
                for line, imported in imports(ast.parse(file.read_text(encoding="utf-8")), package)
                if (there := layer(imported)) is not None and there not in allowed
            ]
    return wrong


def test_arrows() -> None:
    assert violations(ROOT) == []


def test_architecture_names_the_folders() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [folder for folder in FOLDERS if f"| `{folder}/`" not in table] == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A tree with one innocent module in each folder."""
    for folder in FOLDERS:
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "good.py").write_text(
            "import json\nimport edgetok\nfrom edgetok.errors import EdgetokError\n"
        )
    assert violations(tmp_path) == []
    return tmp_path


@pytest.mark.parametrize(
    ("file", "line", "imported"),
    [
        ("devices/bad.py", "import edgetok.exporters", "edgetok.exporters"),
        ("devices/bad.py", "import exporters.tome", "exporters.tome"),
        ("edgetok/bad.py", "from edgetok.exporters.tome import Tome", "edgetok.exporters.tome.Tome"),
        ("edgetok/bad.py", "from edgetok import exporters", "edgetok.exporters"),
        ("edgetok/bad.py", "from edgetok.api import export", "edgetok.api.export"),
        ("edgetok/__init__.py", "from . import cli", "edgetok.cli"),
        ("edgetok/deep/bad.py", "from .. import runtimes", "edgetok.runtimes"),
        (
            "exporters/bad.py",
            "def f():\n    if True:\n        from edgetok.runtimes import load",
            "edgetok.runtimes.load",
        ),
        ("exporters/deep/bad.py", "from ...devices import x", "edgetok.devices.x"),
        ("plugins/__init__.py", "from ..exporters import tome", "edgetok.exporters.tome"),
        ("runtimes/bad.py", "class A:\n    import edgetok.cli", "edgetok.cli"),
        ("edgetok/api/loading.py", "from edgetok.cli import main", "edgetok.cli.main"),
    ],
)
def test_planted_import_is_found(checkout: Path, file: str, line: str, imported: str) -> None:
    (checkout / file).parent.mkdir(exist_ok=True)
    (checkout / file).write_text(line + "\n")
    assert violations(checkout) == [f"{file}:{line.count(chr(10)) + 1} imports {imported}"]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("edgetok/__init__.py", "def f():\n    from edgetok import api"),
        ("edgetok/api/loading.py", "from edgetok.exporters import tome"),
        ("edgetok/cli/run.py", "from edgetok import api, runtimes"),
        ("edgetok/deep/good.py", "from . import other\nfrom ..errors import EdgetokError"),
        ("exporters/deep/good.py", "from .. import tome\nfrom edgetok.plugins import merge"),
        ("runtimes/good.py", "import edgetok.devices"),
    ],
)
def test_allowed_import_passes(checkout: Path, file: str, line: str) -> None:
    (checkout / file).parent.mkdir(exist_ok=True)
    (checkout / file).write_text(line + "\n")
    assert violations(checkout) == []


def test_empty_folder_fails(checkout: Path) -> None:
    (checkout / "plugins" / "good.py").unlink()
    assert violations(checkout) == ["plugins/ holds no Python file: a test of nothing"]
