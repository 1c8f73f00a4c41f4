"""`edgetok devices`: the devices that have a profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetok.cli._console import Answer, Json, Verbose, table

if TYPE_CHECKING:
    from rich.console import Console

    from edgetok.device import Device


def command(json: Json = False, verbose: Verbose = False) -> Answer:
    """List the devices that edgetok knows, and which of them this machine is."""
    from edgetok import devices
    from edgetok.machine import Machine, here

    known, machine = devices.load_all(), Machine.read()
    matching = here(known, machine)
    data = {
        "machine": str(machine),
        "devices": [device.model_dump(mode="json") | {"here": device.name in matching} for device in known],
    }
    return Answer(data, lambda console: _render(known, machine, matching, console))


def _render(known: list[Device], machine: object, matching: list[str], console: Console) -> None:
    made = table("device", "", "memory", "precisions", "runtimes")
    made.columns[0].no_wrap = made.columns[-1].no_wrap = True
    for device in known:
        memory = f"{device.memory.gigabytes:g} GB" if device.memory else "its own"
        runtimes = "\n".join(f"{offer.name} {offer.version}" for offer in device.runtimes)
        mark = "[green]here[/]" if device.name in matching else ""
        made.add_row(device.name, mark, memory, " ".join(device.precisions), runtimes)
    console.print(made)
    console.print(f"this machine: {machine}", style="dim", markup=False)
