"""`edgetok lint`: what will not run, or be slow, on a device; on this machine, if none is named."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetok.cli._console import Answer, Json, Verbose

if TYPE_CHECKING:
    from rich.console import Console

    from edgetok.lint_rules import Finding

COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}
NODES = 3  # shown by name; --json has them all


def command(
    model: Annotated[Path, typer.Argument(metavar="ONNX|BUNDLE", help="An .onnx file, or a bundle's folder.")],
    target: Annotated[
        str | None, typer.Option("--for", metavar="DEVICE", help="A device of edgetok devices; else this machine.")
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Say what will not run, or be slow, on a device, and the rewrite. Fails where something does not run."""
    from edgetok import devices
    from edgetok.lint import lint
    from edgetok.machine import resolve

    device = devices.load(target) if target else resolve("auto", devices.load_all())
    findings = lint(model, device)
    failed = any(finding.severity == "error" for finding in findings)
    data = {"model": str(model), "device": device.name, "findings": [asdict(finding) for finding in findings]}
    judged = device.name if target else f"{device.name}, which is this machine"
    return Answer(data, lambda console: _render(findings, judged, console), exit_code=int(failed))


def _render(findings: list[Finding], judged: str, console: Console) -> None:
    from rich.padding import Padding
    from rich.text import Text

    for finding in findings:
        nodes = ", ".join(finding.nodes[:NODES])
        more = f" and {len(finding.nodes) - NODES} more" if len(finding.nodes) > NODES else ""
        head = Text.assemble((f"{finding.severity}: ", COLOURS[finding.severity]), (finding.op or "the model", "bold"))
        if nodes:
            head.append(f" at {nodes}{more}")
        head.append(f" ({', '.join(finding.runtimes)})", style="dim")
        console.print(head)
        console.print(Padding(Text(finding.reason), (0, 0, 0, 2)))
        if finding.rewrite:
            console.print(Padding(Text(f"-> {finding.rewrite}", style="green"), (0, 0, 1, 2)))
    counts = {kind: sum(finding.severity == kind for finding in findings) for kind in COLOURS}
    told = ", ".join(
        f"{count} {kind}{'s' if count != 1 and kind != 'info' else ''}" for kind, count in counts.items() if count
    )
    console.print(f"{judged}: {told or 'nothing stands in the way'}", style="bold", markup=False)
