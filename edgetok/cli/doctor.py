"""`edgetok doctor`: what is installed, what works, what to install; here, or on a device over SSH."""

from __future__ import annotations

from typing import Annotated

import typer

from edgetok.cli._console import Answer, Json, Verbose, Wheels, progress


def command(
    on: Annotated[str | None, typer.Option("--on", metavar="DEVICE", help="ssh://user@host: look there.")] = None,
    wheels: Wheels = None,
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Look at this installation: what is there, what really works, what to install."""
    from edgetok import devices
    from edgetok.doctor import Check, Diagnosis, examine

    with progress() as tell:
        if on is not None:
            from edgetok.api import remote

            told = remote.doctor_on(remote.required(on, wheels), tell)
            diagnosis = Diagnosis(checks=tuple(map(Check.model_validate, told["checks"])))
        else:
            tell("trying what is installed", 0.0)
            diagnosis = examine(devices.load_all())
    data = diagnosis.model_dump(mode="json") | {"healthy": diagnosis.healthy}
    return Answer(data, diagnosis.render, exit_code=0 if diagnosis.healthy else 1)
