"""A report as one HTML file that opens without a network, in light, dark and print."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from edgetok import parts
from edgetok.comparison_report import UNLIKE, ComparisonReport
from edgetok.page import choices, figures
from edgetok.page.pictures import TokenPicture
from edgetok.render import in_words
from edgetok.report import ProfileReport

if TYPE_CHECKING:
    from edgetok.tradeoff import Tradeoff

MOST_OPERATORS = 12


def profile_page(report: ProfileReport, pictures: Sequence[TokenPicture] = ()) -> str:
    """The whole file: text, tables, figures and style; it loads nothing and runs no script.

    Args:
        report: what was measured.
        pictures: of the tokens on the input that was measured.
    """
    model, against = report.model, report.against
    sides = [side for side in (model, against) if side]
    drawn = {
        "latency": figures.latency(sides),
        "speedup": figures.speedup(report.comparison) if report.comparison else None,
        "tokens": figures.tokens(model.layers) if model.layers else None,
        "blocks": figures.blocks(model.layers, against.layers if against else None) if model.layers else None,
        "operators": figures.operators(model.operators[:MOST_OPERATORS]) if model.operators else None,
        "memory": figures.memory(sides),
        "roofline": figures.roofline(report.roofline, model.latency.median.value) if report.roofline else None,
    }
    return _rendered(
        "profile.html.j2",
        drawn,
        report=report,
        roofline=in_words(report.roofline) if report.roofline else None,
        parts_told=parts.in_words(model.parts),
        together=parts.together(model.parts),
        pictures=pictures,
        ids={side.label: side.model_id for side in sides},
    )


def comparison_page(report: ComparisonReport) -> str:
    """The whole file of a comparison, as `profile_page` is of a profile."""
    limits = report.limits
    drawn = {
        "pareto": choices.pareto(report.points, least=limits.min_cosine),
        "energy": choices.energy(report.points),
        "rounds": choices.rounds(report),
        "spread": choices.spread(report),
    }
    return _rendered(
        "comparison.html.j2",
        drawn,
        report=report,
        unlike=[check.detail for check in report.checks if check.name == UNLIKE],
        ids={row.label: row.model_id for row in report.rows},
    )


def tradeoff_page(table: Tradeoff) -> str:
    """The whole file of a sweep or a search, as `profile_page` is of a profile."""
    wanted = table.wanted
    drawn = {
        "pareto": choices.pareto(
            table.points, least=wanted.cosine if wanted else None, most=wanted.milliseconds if wanted else None
        )
    }
    return _rendered("tradeoff.html.j2", drawn, table=table, rows=list(zip(table.rows, table.points, strict=True)))


def _rendered(name: str, drawn: dict[str, str | None], **values: Any) -> str:
    """A template of this folder, filled in; figures are markup, all else is text."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=FunctionLoader(lambda name: files("edgetok.page").joinpath(name).read_text(encoding="utf-8")),
    )  # fmt: skip
    return environment.get_template(name).render(
        figures={name: svg and Markup(svg) for name, svg in drawn.items()}, **values
    )
