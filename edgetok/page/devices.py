"""One bundle on several devices as one HTML file: a table, and what to know of each device, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from edgetok.report import ProfileReport


@dataclass(frozen=True)
class OnDevice:
    """What came of one device.

    Attributes:
        name: what it was asked for by.
        folder: of its own report, beside the page.
        report: what was measured; None where it failed.
        error: why it failed.
    """

    name: str
    folder: str
    report: ProfileReport | None = None
    error: str | None = None


def page(title: str, devices: Sequence[OnDevice]) -> str:
    """The whole file; it loads nothing and runs no script, and links to the devices' own reports.

    Args:
        title: what was measured.
        devices: in the order they are to be listed.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("edgetok.page").joinpath("devices.html.j2").read_text(encoding="utf-8"))
    return template.render(title=title, devices=devices)
