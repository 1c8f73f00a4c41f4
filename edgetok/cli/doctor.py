"""`edgetok doctor`: what is installed, what works, what to install."""

from __future__ import annotations

from edgetok.cli._console import Answer, Json, Verbose, progress


def command(json: Json = False, verbose: Verbose = False) -> Answer:
    """Look at this installation: what is there, what really works, what to install."""
    from edgetok import devices
    from edgetok.doctor import examine

    with progress() as tell:
        tell("trying what is installed", 0.0)
        diagnosis = examine(devices.load_all())
    data = diagnosis.model_dump(mode="json") | {"healthy": diagnosis.healthy}
    return Answer(data, diagnosis.render, exit_code=0 if diagnosis.healthy else 1)
