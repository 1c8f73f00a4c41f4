"""The documents tell the truth: links resolve, and what exists is named."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def prose(file: Path) -> str:
    """A document without its code blocks."""
    return FENCE.sub("", file.read_text(encoding="utf-8"))


def anchors(file: Path) -> set[str]:
    """The fragments that a heading can be reached by, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", prose(file), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def dangling(file: Path) -> list[str]:
    """The links of a document that lead nowhere; addresses on the web are not followed."""
    wrong = []
    for link in LINK.findall(prose(file)):
        path, _, fragment = link.partition("#")
        target = file.parent / path if path else file
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists() or (fragment and target.suffix == ".md" and fragment not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_links_resolve(file: Path) -> None:
    assert dangling(file) == []


def test_a_dangling_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One, two: `three`\n[a](page.md) [b](#one-two-three) [c](gone.md) [d](page.md#four) [e](https://x.y)\n"
    )
    assert dangling(page) == ["gone.md", "page.md#four"]


def existing() -> list[str]:
    """The names that a user can give to an option."""
    from edgetok import runtimes, technique

    techniques = technique.names()
    zoo = [f"zoo:{file.stem}" for file in (ROOT / "edgetok" / "zoo").glob("*.toml")]
    assert techniques and zoo
    return [*techniques, *zoo, *runtimes.names()]


def test_readme_names_everything_that_exists() -> None:
    named = set(re.findall(r"`([^`\n]+)`", prose(ROOT / "README.md")))
    assert [name for name in existing() if name not in named] == []


def test_changelog_names_this_version() -> None:
    import edgetok

    assert re.search(
        rf"^## (Unreleased|{re.escape(edgetok.__version__)}\b)", prose(ROOT / "CHANGELOG.md"), re.MULTILINE
    )
