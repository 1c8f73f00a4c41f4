"""Files: digests, and the short texts of /proc and /sys."""

import hashlib
from pathlib import Path


def sha256_of(*paths: Path) -> str:
    """The sha256 of the files' contents, read one after the other, in hex."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def text_of(path: Path) -> str | None:
    """A text without its line end or final zeros; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return None
