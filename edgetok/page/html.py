"""A report as one HTML file that opens without a network, in light, dark and print."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from edgetok.page import figures
from edgetok.page.pictures import TokenPicture
from edgetok.render import in_words
from edgetok.report import ProfileReport

MOST_OPERATORS = 12


def profile_page(report: ProfileReport, pictures: Sequence[TokenPicture] = ()) -> str:
    """The whole file: text, tables, figures and style; it loads nothing and runs no script.

    Args:
        report: what was measured.
        pictures: of the tokens on the input that was measured.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    model, against = report.model, report.against
    drawn = {
        "latency": figures.latency([side for side in (model, against) if side]),
        "speedup": figures.speedup(report.comparison) if report.comparison else None,
        "tokens": figures.tokens(model.layers),
        "blocks": figures.blocks(model.layers, against.layers if against else None),
        "operators": figures.operators(model.operators[:MOST_OPERATORS]),
        "memory": figures.memory([side for side in (model, against) if side]),
        "roofline": figures.roofline(report.roofline, model.latency.median.value) if report.roofline else None,
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("edgetok.page").joinpath("report.html.j2").read_text(encoding="utf-8"))
    drawn_figures = {name: svg and Markup(svg) for name, svg in drawn.items()}
    told = in_words(report.roofline) if report.roofline else None
    return template.render(report=report, roofline=told, pictures=pictures, figures=drawn_figures)
