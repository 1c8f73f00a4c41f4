"""Compare: bundles measured in turns, or profiles that were saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.api.loading import resolve_device
from edgetok.api.measuring import effort_for, first_sample, side
from edgetok.bundle import is_bundle, open_bundle
from edgetok.errors import UsageError
from edgetok.limits import NONE, Limits

if TYPE_CHECKING:
    from edgetok.comparison_report import ComparisonReport
    from edgetok.profiling import Effort

ROUNDS = 15  # of turns


def compare(
    paths: Sequence[str | Path],
    *,
    device: str | None = None,
    rounds: int | None = None,
    limits: Limits = NONE,
    anyway: bool = False,
    out: str | Path | None = None,
    force: bool = False,
    effort: Effort | None = None,
    command: str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> ComparisonReport:
    """Set models against each other, and choose the fastest that keeps the limits.

    Args:
        paths: bundles, which are measured in turns, one process each; or saved profiles, the folders that
            `edgetok profile -o` wrote. Each is set against the last.
        device: what bundles are measured on, the processor if it is not said; see `edgetok.machine.resolve`.
        rounds: turns of each bundle; 15 if it is not said.
        limits: what is demanded of the one to choose.
        anyway: compare saved profiles in unlike states too, and say first what was not alike.
        out: a new folder for report.html and report.json.
        force: write into a folder that exists.
        effort: how long each bundle is measured alone.
        command: what was typed, to be told in the report.
        progress: told what is being done, and how far it is.

    Raises:
        UsageError: fewer than two, bundles and profiles mixed, profiles in unlike states, or told how to be measured.
        InputError: a profile cannot be read.
    """
    from edgetok import report as reports

    if len(paths) < 2:
        raise UsageError("compare takes two or more, bundles or saved profiles: each is set against the last")
    if out is not None:
        reports.check_folder(Path(out), force)
    labels = _labels([Path(path) for path in paths])
    kinds = {_is_profile(path) for path in labels.values()}
    if len(kinds) > 1:
        told = ", ".join(f"{path} is a {'profile' if _is_profile(path) else 'bundle'}" for path in labels.values())
        raise UsageError(f"compare takes bundles or saved profiles, not both: {told}")
    if kinds == {True}:
        from edgetok.comparing import compare_profiles

        if device is not None or rounds is not None:
            raise UsageError("saved profiles are compared as they were measured: leave --on and --rounds out")
        saved = {label: reports.read(path) for label, path in labels.items()}
        found = compare_profiles(saved, limits=limits, anyway=anyway, command=command)
    else:
        effort = effort or effort_for(limits, None)
        found = _measured(labels, device or "cpu", rounds or ROUNDS, limits, effort, command, progress)
    if out is not None:
        from edgetok.page.html import comparison_page

        json = found.model_dump_json(indent=2) + "\n"
        reports.write_folder({"report.html": comparison_page(found), reports.REPORT: json}, Path(out))
    return found


def _measured(
    labels: dict[str, Path],
    device: str,
    rounds: int,
    limits: Limits,
    effort: Effort,
    command: str | None,
    progress: Callable[[str, float], None] | None,
) -> ComparisonReport:
    from dataclasses import replace

    from edgetok.comparing import Facts, compare_models
    from edgetok.fingerprint import environment

    found = resolve_device(device)
    opened = {label: open_bundle(path) for label, path in labels.items()}
    feeds = first_sample(next(iter(opened.values())))
    return compare_models(
        [replace(side(bundle, feeds), label=label) for label, bundle in opened.items()],
        [
            Facts(
                id=bundle.id,
                source=f"{bundle.manifest.source.kind}: {bundle.manifest.source.name}",
                bytes=bundle.bytes,
                fidelity=bundle.manifest.fidelity,
            )
            for bundle in opened.values()
        ],
        device=found.name,
        environment=environment().model_dump(mode="json"),
        rounds=rounds,
        effort=effort,
        limits=limits,
        command=command,
        progress=progress,
    )


def _is_profile(path: Path) -> bool:
    from edgetok.report import REPORT

    return not is_bundle(path) and (path.suffix == ".json" or (path / REPORT).is_file())


def _labels(paths: Sequence[Path]) -> dict[str, Path]:
    """A label for each: its folder's name; the whole path where two have the same; numbered where they are the same."""
    names = [path.parent.resolve().name if path.name == "report.json" else path.resolve().name for path in paths]
    labels: dict[str, Path] = {}
    for path, name in zip(paths, names, strict=True):
        label = plain = name if names.count(name) == 1 else str(path)
        number = 2
        while label in labels:
            label, number = f"{plain} ({number})", number + 1
        labels[label] = path
    return labels
