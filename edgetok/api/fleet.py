"""Profile one bundle on several devices over SSH at the same time, and put them into one report."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import TYPE_CHECKING, Any

from edgetok.api.remote import profile_on
from edgetok.bundle import open_bundle
from edgetok.errors import EdgetokError, OutputError, UsageError
from edgetok.remote.named import Target

if TYPE_CHECKING:
    from edgetok.page.devices import OnDevice
    from edgetok.remote.transfer import Tell


def profile_on_all(
    devices: Sequence[Target],
    bundle: str | Path,
    *,
    against: str | Path | None = None,
    input: str | Path | None = None,
    out: str | Path | None = None,
    force: bool = False,
    options: Sequence[str] = (),
    command: str | None = None,
    progress: Tell = lambda *_: None,
) -> list[OnDevice]:
    """Measure a bundle on each device, all at once; one that fails does not keep the others from their results.

    Args:
        devices: two or more, each once.
        bundle: the bundle's folder, here.
        against: another bundle, or a source, which is exported here without reduction, once.
        input: a file to measure with, here.
        out: a new folder, here: report.html and report.json of all, and a folder with the report of each.
        force: write into a folder that exists.
        options: further ones of `edgetok profile`.
        command: what was typed, to be told in the reports.
        progress: told what is being done.

    Raises:
        UsageError: a device is named twice.
        OutputError: the folder exists, or cannot be written.
    """
    from edgetok.api.measuring import open_or_export
    from edgetok.page.devices import OnDevice

    folders = [re.sub(r"[^A-Za-z0-9._-]+", "-", device.name.removeprefix("ssh://")) for device in devices]
    if len(set(folders)) < len(folders):
        raise UsageError(f"a device is named twice: {', '.join(device.name for device in devices)}")
    if out is not None and Path(out).exists() and not force:
        raise OutputError(f"{out} exists already: name another folder, or pass --force to write into it")
    interrupted = Event()

    def measure(device: Target, folder: str, other: Path | None) -> OnDevice:
        def tell(text: str, done: float) -> None:
            if interrupted.is_set():
                raise KeyboardInterrupt  # ends this device's run, and cleans up there
            progress(f"{device.name}: {text}", done)

        try:
            report = profile_on(
                device,
                bundle,
                against=other,
                input=input,
                out=None if out is None else Path(out) / folder,
                force=force,
                options=options,
                command=command,
                progress=tell,
            )
        except EdgetokError as error:
            return OnDevice(device.name, folder, error=str(error))
        return OnDevice(device.name, folder, report)

    with TemporaryDirectory(prefix="edgetok-") as temporary, ThreadPoolExecutor(len(devices)) as pool:
        opened = open_bundle(Path(bundle))
        other = None
        if against is not None:
            other = open_or_export(str(against), opened, Path(temporary) / "original", progress).path
        try:
            found = list(pool.map(measure, devices, folders, [other] * len(devices)))
        except BaseException:
            interrupted.set()
            raise
    if out is not None:
        _save(Path(out), opened.path.name, found)
    return found


def as_json(found: Sequence[OnDevice]) -> dict[str, Any]:
    """The reports by their devices, and the errors of those that failed."""
    return {
        "schema_version": 1,
        "devices": {
            each.name: {"error": each.error}
            if each.report is None
            else each.report.model_dump(mode="json") | {"verdict": each.report.verdict}
            for each in found
        },
    }


def _save(out: Path, title: str, found: Sequence[OnDevice]) -> None:
    from edgetok.page.devices import page

    files = {"report.html": page(title, found), "report.json": json.dumps(as_json(found), indent=2) + "\n"}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            staging = out / f".{name}.tmp-{secrets.token_hex(4)}"
            try:
                staging.write_text(text, encoding="utf-8")
                staging.replace(out / name)
            finally:
                staging.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write the report to {out}: {error.strerror}") from error
