"""`edgetok quantisers`: what --quantize and --activations take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetok.cli._console import Answer, Json, Verbose
from edgetok.cli._options import explained, options

if TYPE_CHECKING:
    from rich.console import Console


def command(json: Json = False, verbose: Verbose = False) -> Answer:
    """List the formats for weights and activations of few bits, with their papers and options."""
    from edgetok.lowbit import activations, quantiser

    found = {name: quantiser.load(name) for name in quantiser.names()}
    data = {
        "quantisers": [
            {
                "name": name,
                "summary": each.summary,
                "paper": each.paper,
                "samples": each.samples,
                "example": each.examples[0],
                "options": options(each.config),
            }
            for name, each in found.items()
        ],
        "activations": [
            {"name": name, "summary": each.summary, "options": options(each.config)}
            for name, each in activations.TYPES.items()
        ],
        "shared_options": options(quantiser.Where),
    }
    return Answer(data, lambda console: _render(data, console))


def _render(data: dict[str, Any], console: Console) -> None:
    from rich.padding import Padding
    from rich.text import Text

    for each in data["quantisers"]:
        console.print(Text.assemble((each["name"], "bold"), "  ", each["summary"]))
        console.print(Padding(Text(each["paper"], style="dim"), (0, 0, 0, 2)))
        looks = {"needed": "; needs --samples", "used": "; better with --samples"}.get(each["samples"], "")
        console.print(Padding(f"--quantize {each['example']}{looks}", (0, 0, 0, 2)))
        console.print(explained(each["options"]))
    for each in data["activations"]:
        console.print(Text.assemble((f"activations: {each['name']}", "bold"), "  ", each["summary"]))
        console.print(Padding(f"--activations {each['name']}; needs --samples", (0, 0, 0, 2)))
        console.print(explained(each["options"]))
    console.print(Text("options that all of them take", style="bold"))
    console.print(explained(data["shared_options"]))
    console.print("as in --quantize nvfp4:skip=head", style="dim")
