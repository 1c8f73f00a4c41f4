"""How figures are drawn: by matplotlib, as SVG that takes its colours from the page: light, dark and in print.

matplotlib draws with the stand-in colours below; each becomes a CSS variable of the page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#010101", "#020202"
SERIES = ("#030303", "#040404", "#050505", "#060606")
_VARIABLES = {INK: "--ink", FAINT: "--faint", **{color: f"--series-{i}" for i, color in enumerate(SERIES)}}
_STYLE: dict[str, Any] = {  # matplotlib's names
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT, "xtick.color": INK, "ytick.color": INK,
    "axes.facecolor": "none", "figure.facecolor": "none", "legend.frameon": False, "grid.color": FAINT,
    "legend.fontsize": 9, "legend.handlelength": 1.3, "legend.columnspacing": 1.3, "legend.handletextpad": 0.5,
}  # fmt: skip
WIDTH = 5.6  # inches; the page scales it, and its letters: 9 pixels high on a telephone, 17 where it is widest


@contextmanager
def drawing(name: str, height: float, panels: int = 1) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """A figure in the page's style. Not pyplot's: it is forgotten when it goes out of use."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):  # type: ignore[arg-type]
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        yield figure, list(axes)


def svg(figure: Figure) -> str:
    """The <svg> element, without a date, its colours as the page's variables."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    found = text.getvalue()
    found = found[found.index("<svg") :]
    found = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", found, count=1)
    found = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", found, count=1)
    return re.sub("|".join(_VARIABLES), lambda match: f"var({_VARIABLES[match[0]]})", found)
