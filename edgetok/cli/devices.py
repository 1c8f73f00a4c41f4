"""`edgetok devices`: the devices that have a profile."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from edgetok.cli._console import Answer, Json, Verbose, table
from edgetok.errors import UnknownName

if TYPE_CHECKING:
    from rich.console import Console

    from edgetok.device import Device, Peak, Sourced
    from edgetok.machine import Machine

_RATES: tuple[Peak, ...] = ("fp32", "fp16", "int8", "fp8", "fp4")


def command(
    query: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME|WORDS]", help="A device to show, or words to search for.")
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """List the devices that edgetok knows and which of them this machine is, or show one with its sources."""
    from edgetok import devices
    from edgetok.machine import Machine, here

    known, machine = devices.load_all(), Machine.read()
    matching = here(known, machine)
    words = " ".join(query or ()).lower().split()
    exact = [device for device in known if words == [device.name]]
    found = exact or [each for each in known if all(word in f"{each.name} {each.title}".lower() for word in words)]
    if not found:
        raise UnknownName("device", " ".join(words), [device.name for device in known])
    data = {
        "machine": str(machine),
        "devices": [device.model_dump(mode="json") | {"here": device.name in matching} for device in found],
    }
    if exact:
        return Answer(data, lambda console: _show(exact[0], exact[0].name in matching, console))
    return Answer(data, lambda console: _list(found, machine, matching, console))


def _list(found: list[Device], machine: Machine, matching: list[str], console: Console) -> None:
    by_group = sorted(found, key=lambda device: (device.group, device.name))
    for group, members in groupby(by_group, key=lambda device: device.group):
        made = table(group, "", "memory", "few bits", "runtimes")
        made.columns[0].no_wrap = made.columns[-1].no_wrap = True
        for device in members:
            memory = f"{device.memory.gigabytes:g} GB" if device.memory else ""
            mark = "[green]here[/]" if device.name in matching else ""
            few = " ".join(each for each in device.precisions if each in ("int8", "int4", "fp8", "fp4"))
            made.add_row(device.name, mark, memory, few, "\n".join(f"{r.name} {r.version}" for r in device.runtimes))
        console.print(made)
    console.print(f"this machine: {machine}", style="dim", markup=False)


def _show(device: Device, is_here: bool, console: Console) -> None:
    console.print(f"{device.title}{' (this machine)' if is_here else ''}", style="bold", markup=False)
    sourced = table("", "", "source")
    sourced.add_row("precisions", " ".join(device.precisions), device.precisions_source)
    if device.sm:
        sourced.add_row("compute capability", device.sm, "")
    if device.memory:
        shared = ", CPU and GPU share it" if device.memory.shared else ""
        sourced.add_row("memory", f"{device.memory.gigabytes:g} GB{shared}", _source(device.memory))
    if device.software:
        ptx = f", PTX {device.software.ptx}" if device.software.ptx else ""
        sourced.add_row(
            "software",
            f"{device.software.release}, CUDA {device.software.cuda}{ptx}",
            _source(device.software),
        )
    for compute in device.compute:
        rates = [f"{name} {rate}" for name in _RATES if (rate := getattr(compute, name))]
        needs = f" with {' '.join(compute.needs)}" if compute.needs else ""
        sourced.add_row(f"per clock and {compute.unit}{needs}", ", ".join(rates), _source(compute))
    if device.headline:
        sparse = "sparse" if device.headline.sparse else "dense"
        told = f"{device.headline.int8_tops:g} int8 TOPS, {sparse}, {device.headline.mode}"
        sourced.add_row("on the box", told, _source(device.headline))
    for offer in device.runtimes:
        opset = f", opset up to {offer.max_opset}" if offer.max_opset else ""
        sourced.add_row(offer.name, f"{offer.version}, Python {', '.join(offer.python)}{opset}", _source(offer))
    console.print(sourced)
    if device.modes:
        _show_modes(device, console)


def _show_modes(device: Device, console: Console) -> None:
    made = table("mode", "units", "MHz", "GB/s", "CPU", "dense peaks, T/s")
    made.columns[0].no_wrap = True
    for mode in device.modes:
        number = "" if mode.id is None else f"{mode.id} "
        clock = "" if mode.cpu_mhz is None else f" x {mode.cpu_mhz:g}"
        peaks = [(name, device.peak(name, mode.name)) for name in _RATES]
        made.add_row(
            f"{number}{mode.name}{' (as shipped)' if mode.default and len(device.modes) > 1 else ''}",
            str(mode.units),
            f"{mode.mhz:g}",
            f"{mode.bandwidth_gbs:g}",
            "" if mode.cpu_cores is None else f"{mode.cpu_cores}{clock}",
            ", ".join(f"{name} {peak * 1e-12:.4g}" for name, peak in peaks if peak),
        )
    console.print(made)
    for source, modes in groupby(sorted(device.modes, key=_source), key=_source):
        console.print(f"{', '.join(mode.name for mode in modes)}: {source}", style="dim", markup=False)


def _source(entry: Sourced) -> str:
    """Where a table's numbers come from, and how far to trust them."""
    return f"{entry.confidence}: {entry.source}"
