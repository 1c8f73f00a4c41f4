"""Files: digests."""

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
