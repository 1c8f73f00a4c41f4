"""Files: digests, the short texts of /proc and /sys, and folders that are whole or not there."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgetok.errors import OutputError


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


def check_folder(out: Path, mark: str, force: bool) -> None:
    """Make sure that a folder may be written; worth asking before the long work.

    Args:
        out: the folder.
        mark: the file that tells a folder of this kind, which alone is ever replaced.
        force: whether it may be.

    Raises:
        OutputError: it exists, and is not to be replaced.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError(f"{out} is no folder; name one that does not exist yet")
    if out.exists() and not force:
        raise OutputError(f"{out} exists; choose another output folder, or replace it with --force")
    if out.exists() and any(out.iterdir()) and not (out / mark).is_file():
        raise OutputError(f"{out} holds no {mark}: --force replaces only what this command wrote")


@contextmanager
def whole_folder(out: Path, mark: str, force: bool) -> Iterator[Path]:
    """A folder to be filled, which takes its name when all went well, and of which else nothing is left.

    Raises:
        OutputError: it exists, or cannot be written.
    """
    check_folder(out, mark, force)
    staging = out.with_name(f".{out.name}.tmp-{secrets.token_hex(4)}")
    try:
        staging.mkdir(parents=True)
        yield staging
        check_folder(out, mark, force)
        if out.exists():
            shutil.rmtree(out)
        os.rename(staging, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}; nothing was left behind") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
