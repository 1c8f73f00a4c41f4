"""Run and profile on a device over SSH: the verbs there, their answers here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgetok.bundle import open_bundle
from edgetok.errors import OutputError, RemoteError, UsageError
from edgetok.remote.named import Target, find

if TYPE_CHECKING:
    from edgetok.remote.job import Job
    from edgetok.remote.transfer import Blob, Tell
    from edgetok.report import ProfileReport

# What a device must have; anything else that its doctor finds is its own affair.
NEEDED = ("core packages", "onnxruntime", "onnxruntime works", "onnxruntime-gpu works", "cache")


def target(on: str, wheels: str | Path | None = None) -> Target | None:
    """The device over SSH that `--on` names, or None where it means this machine.

    Args:
        on: "ssh://[user@]host[:port][/device]", or a name of devices.toml (`edgetok.remote.named`).
        wheels: a folder of wheels to install there, for a device without a package index.

    Raises:
        UsageError: the address is wrong, or wheels are given and it is this machine.
    """
    from edgetok import devices

    found = find(on, ("auto", "cpu", *devices.names()), None if wheels is None else Path(wheels))
    if found is None and wheels is not None:
        raise UsageError(f"--wheels is for a device over SSH, and --on {on} means this machine")
    return found


def required(on: str, wheels: str | Path | None = None) -> Target:
    """The device over SSH that `--on` names.

    Raises:
        UsageError: it means this machine.
    """
    if (found := target(on, wheels)) is None:
        raise UsageError(f"--on {on}: here only a device over SSH is looked at, as in ssh://user@host")
    return found


def targets(on: Sequence[str], wheels: str | Path | None = None) -> list[Target]:
    """The devices over SSH that `--on` names, several times perhaps; none of them where it means this machine.

    Raises:
        UsageError: this machine is among several.
    """
    found = [target(each, wheels) for each in on]
    if len(on) > 1 and None in found:
        here = on[found.index(None)]
        raise UsageError(f"--on {here} means this machine, which is busy with the others meanwhile: measure it apart")
    return [each for each in found if each is not None]


def doctor_on(device: Target, progress: Tell = lambda *_: None) -> dict[str, Any]:
    """What `edgetok doctor --json` says on a device, behind an installation where there is none yet.

    Raises:
        RemoteError: the device cannot be reached, or nothing can be installed there.
    """
    with _running(device, ["doctor", "--json"], {}, progress, check=False) as job:
        return job.wait(progress)


def run_on(
    device: Target,
    bundle: str | Path,
    *,
    inputs: Sequence[str] = (),
    out: Path | None = None,
    options: Sequence[str] = (),
    progress: Tell = lambda *_: None,
) -> dict[str, Any]:
    """Run a bundle on a device.

    Args:
        device: where.
        bundle: the bundle's folder, here.
        inputs: pictures, recordings, texts or .npz files, here; none for the bundle's own samples.
        out: a file .npz, here, for the outputs.
        options: further ones of `edgetok run`.
        progress: told what is being done.

    Returns:
        What `edgetok run --json` says there.

    Raises:
        RemoteError: the device cannot be reached, or it failed there.
    """
    folder, files = _bundle_files(bundle, "bundle")
    given = _inputs(inputs, files)
    wanted = [] if out is None else ["-o", "out/outputs.npz"]
    arguments = ["run", folder, f"--on={device.address.device}", "--json", *given, *wanted, *options]
    with _running(device, arguments, files, progress) as job:
        answer = job.wait(progress)
        if out is not None:
            with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
                job.bring_back(Path(temporary) / "out", False)
                try:
                    (Path(temporary) / "out/outputs.npz").replace(out)
                except OSError as error:
                    raise OutputError(f"{out} cannot be written: {error.strerror}") from error
    return answer | {"inputs": list(inputs) or "samples", "written": None if out is None else str(out)}


def profile_on(
    device: Target,
    bundle: str | Path,
    *,
    against: str | Path | None = None,
    input: str | Path | None = None,
    out: str | Path | None = None,
    force: bool = False,
    options: Sequence[str] = (),
    command: str | None = None,
    progress: Tell = lambda *_: None,
) -> ProfileReport:
    """Measure a bundle on a device.

    Args:
        device: where.
        bundle: the bundle's folder, here.
        against: another bundle, or a source, which is exported here without reduction.
        input: a file to measure with, here.
        out: a new folder, here, for the report.
        force: write into a folder that exists.
        options: further ones of `edgetok profile`.
        command: what was typed, to be told in the report.
        progress: told what is being done.

    Raises:
        RemoteError: the device cannot be reached, or it failed there.
    """
    from pydantic import ValidationError

    from edgetok.api.measuring import open_or_export
    from edgetok.report import ProfileReport

    if out is not None and Path(out).exists() and not force:
        raise OutputError(f"{out} exists already: name another folder, or pass --force to write into it")
    folder, files = _bundle_files(bundle, "bundle")
    with TemporaryDirectory(prefix="edgetok-") as temporary:
        sides = []
        if against is not None:
            other = open_or_export(str(against), open_bundle(Path(bundle)), Path(temporary) / "original", progress)
            there, more = _bundle_files(other.path, "against")
            files, sides = files | more, [f"--against={there}"]
        given = _inputs([] if input is None else [str(input)], files)
        wanted = [] if out is None else ["-o", "out", "--force"]
        typed = [] if command is None else [f"--typed={command}"]
        arguments = ["profile", folder, f"--on={device.address.device}", "--json", *sides, *given, *wanted, *typed]
        with _running(device, [*arguments, *options], files, progress) as job:
            answer = job.wait(progress)
            if out is not None:
                job.bring_back(Path(out), force)
    answer.pop("verdict", None)
    try:
        return ProfileReport.model_validate(answer)
    except ValidationError as error:
        raise RemoteError(f"{device.name} answered with no report: {error.errors()[0]['msg']}") from error


@contextmanager
def _running(
    device: Target, arguments: Sequence[str], files: dict[str, Blob], progress: Tell, check: bool = True
) -> Iterator[Job]:
    """A run there, behind everything that it needs: connection, installation, and what a fresh one's doctor says."""
    from edgetok.remote.connection import Connection
    from edgetok.remote.installation import install
    from edgetok.remote.job import begin

    progress(f"connecting to {device.name}", 0.0)
    with Connection(device.address, device.name, lambda text: progress(text, 0.0)) as connection:
        installed = install(connection, device.wheels, progress)
        if installed.fresh and check:
            with begin(connection, installed.name, ["doctor", "--json"], {}, progress) as job:
                _check(device.name, job.wait(progress)["checks"])
        with begin(connection, installed.name, arguments, files, progress) as job:
            yield job


def _check(name: str, checks: Sequence[dict[str, Any]]) -> None:
    """Refuse a device on which bundles cannot run."""
    failed = [each for each in checks if each["name"] in NEEDED and each["status"] not in ("ok", "warn")]
    if failed:
        told = "; ".join(f"{each['name']}: {each['detail']}" + _cure(each.get("remedy")) for each in failed)
        raise RemoteError(f"{name}: bundles do not run there: {told}")


def _cure(remedy: str | None) -> str:
    return f" ({remedy})" if remedy else ""


def _bundle_files(bundle: str | Path, under: str) -> tuple[str, dict[str, Blob]]:
    """A verified bundle's files by their paths in the run's folder, and its folder there."""
    from edgetok.remote.transfer import Blob

    opened = open_bundle(Path(bundle))
    name = f"{under}/{opened.path.resolve().name}"
    files = ("manifest.json", *opened.manifest.files)
    return name, {f"{name}/{file}": Blob(opened.path / file) for file in files}


def _inputs(given: Sequence[str], files: dict[str, Blob]) -> list[str]:
    """Options for inputs: files are put into `files`, texts go as they are."""
    from edgetok.remote.transfer import Blob

    options = []
    for number, text in enumerate(given):
        if Path(text).is_file():
            place = f"inputs/{number}/{Path(text).name}"
            files[place] = Blob(Path(text))
            text = place
        options.append(f"--input={text}")
    return options
