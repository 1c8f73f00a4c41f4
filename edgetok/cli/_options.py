"""How options of techniques and quantisers are listed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edgetok.options import named

if TYPE_CHECKING:
    from rich.padding import Padding


def options(config: type) -> list[dict[str, Any]]:
    """The fields of a config with their defaults, explained by its docstring."""
    texts = "\n".join(parent.__doc__ or "" for parent in reversed(config.__mro__))
    told = dict(re.findall(r"^ {8}(\w+): (.+(?:\n {12}.+)*)", texts, re.MULTILINE))
    return [
        {"name": name, "default": field.default, "help": " ".join(told.get(name, "").split())}
        for name, field in named(config).items()
    ]


def explained(rows: list[dict[str, Any]]) -> Padding:
    """The options in two columns: name and default, and what it does."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for row in rows:
        default = str(row["default"]).lower() if isinstance(row["default"], bool) else row["default"]
        grid.add_row(Text(f"{row['name']}={default}" if default else row["name"], style="cyan"), Text(row["help"]))
    return Padding(grid, (0, 0, 1, 2))
