"""`edgetok techniques`: what --reduce and --attention take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetok.cli._console import Answer, Json, Verbose
from edgetok.cli._options import explained, options

if TYPE_CHECKING:
    from rich.console import Console

PLACES = {
    "block": "between the attention and the MLP of blocks",
    "start": "in front of blocks",
    "output": "behind the encoder",
}


def command(json: Json = False, verbose: Verbose = False) -> Answer:
    """List the techniques that make tokens or attention fewer, with their papers and options."""
    from edgetok import attention, technique
    from edgetok.schedule import Schedule

    sparse = {name: attention.load(name) for name in attention.names()}
    found = {name: technique.load(name) for name in technique.names()}
    data = {
        "techniques": [
            {
                "name": name,
                "summary": each.summary,
                "paper": each.paper,
                "class": f"token-{each.kind}",
                "where": PLACES[each.where],
                "needs": ["class token"] * each.needs_class_token
                + ["patches on a square grid"] * each.needs_grid
                + ["crops or frames as a fixed batch, where they share tokens"] * (each.across is not None),
                "example": each.examples[0],
                "options": options(each.config),
            }
            for name, each in found.items()
        ],
        "shared_options": options(Schedule),
        "attention": [
            {
                "name": name,
                "summary": each.summary,
                "paper": each.paper,
                "serves": "encoders, DiTs and causal models" if each.serves == "both" else each.serves,
                "example": each.examples[0],
                "options": options(each.config),
            }
            for name, each in sparse.items()
        ],
        "shared_options_of_attention": options(attention.Shared),
    }
    return Answer(data, lambda console: _render(data, console))


def _render(data: dict[str, Any], console: Console) -> None:
    from rich.padding import Padding
    from rich.text import Text

    for each in data["techniques"]:
        console.print(Text.assemble((each["name"], "bold"), "  ", each["summary"]))
        console.print(Padding(Text(each["paper"], style="dim"), (0, 0, 0, 2)))
        needs = f"; needs: {', '.join(each['needs'])}" if each["needs"] else ""
        console.print(Padding(f"{each['class']}, {each['where']}{needs}; --reduce {each['example']}", (0, 0, 0, 2)))
        console.print(explained(each["options"]))
    console.print(Text("options that all of them take", style="bold"))
    console.print(explained(data["shared_options"]))
    console.print("as in --reduce tome:r=16,layers=2-11", style="dim")
    for each in data["attention"]:
        console.print(Text.assemble("\n", (each["name"], "bold"), "  ", each["summary"]))
        console.print(Padding(Text(each["paper"], style="dim"), (0, 0, 0, 2)))
        console.print(Padding(f"sparse attention for {each['serves']}; --attention {each['example']}", (0, 0, 0, 2)))
        console.print(explained(each["options"]))
    console.print(Text("options that all sparse attentions take", style="bold"))
    console.print(explained(data["shared_options_of_attention"]))
