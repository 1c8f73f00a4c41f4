"""The figures of choices: what they draw of which points, and when there is nothing to draw."""

from dataclasses import replace
from itertools import pairwise

from edgetok.limits import Limits
from edgetok.page.choices import LEAST_MARKER, MARKER, _area, _Nearness, energy, pareto, rounds, spread
from edgetok.page.html import comparison_page
from edgetok.pareto import Point
from tests.test_comparison_report import ROWS, report
from tests.test_page import Reader

POINTS = (
    Point("half", 20, 0.97, 19, 21, 10**7, 0.3, best=True),
    Point("most", 30, 0.99, 29, 31, 2 * 10**7, 0.4, best=True, chosen=True),
    Point("worse", 35, 0.95, 34, 36, 4 * 10**7, 0.5),
)
CHOSEN, FRONT, BEATEN = "var(--series-1)", "var(--series-0)", "var(--faint)"


def test_kinds_of_points_are_told_apart_and_named() -> None:
    drawn = pareto(POINTS, least=0.98, most=40)
    assert drawn is not None and "chosen: 2 most" in drawn and "on the front" in drawn and "beaten" in drawn
    assert all(f">{number}<" in drawn for number in (1, 2, 3)) and CHOSEN in drawn
    plain = pareto([replace(point, chosen=False, best=True) for point in POINTS])
    assert plain is not None and CHOSEN not in plain and "chosen" not in plain and "beaten" not in plain
    assert FRONT in plain and BEATEN in plain  # of the axes


def test_what_was_never_compared_is_not_drawn() -> None:
    blind = Point("blind", 10, None)
    drawn = pareto([blind, *POINTS])
    assert drawn is not None and ">1<" not in drawn and ">4<" in drawn
    assert pareto([blind, POINTS[0]]) is None and pareto([]) is None


def test_energy_is_drawn_where_all_tell_it() -> None:
    assert energy(POINTS) is not None
    assert energy([*POINTS, Point("silent", 10, 0.5)]) is None and energy(POINTS[:1]) is None


def test_areas_go_with_the_bytes_of_the_files() -> None:
    areas = [_area(point, POINTS) for point in POINTS]
    assert areas == [MARKER / 4, MARKER / 2, MARKER]
    assert _area(replace(POINTS[0], bytes=1), POINTS) == LEAST_MARKER
    alike = [replace(point, bytes=10**7) for point in POINTS]
    unknown = [replace(POINTS[0], bytes=None), *POINTS[1:]]
    assert len({_area(point, among) for among in (alike, unknown) for point in among}) == 1


def test_cosines_are_spread_by_what_they_lack_of_1() -> None:
    place = _Nearness([0.9, 0.99, 0.999])
    steps = [after - before for before, after in pairwise(map(place, (0.9, 0.99, 0.999)))]
    assert abs(steps[0] - 1) < 1e-9 and abs(steps[1] - 1) < 1e-9
    assert place(-1) < place(0) < place(0.999) < place(1) < place(0.999) + 1
    assert _Nearness([1.0, 1.0])(1) > _Nearness([1.0, 1.0])(0.99)


def test_a_page_has_the_figures_that_its_data_allow() -> None:
    turns = [(40.0, 20.0, 30.0, 35.0)] * 9
    whole = report(*ROWS, limits=Limits(min_cosine=0.98), rounds=turns)
    found = Reader(comparison_page(whole))
    assert {"figure-pareto", "figure-energy", "figure-rounds", "figure-spread", "limits"} <= set(found.ids)
    assert rounds(whole) is not None and spread(whole)
    silent = [row.model_copy(update={"energy": replace(row.energy, gross=None), "fidelity": ()}) for row in ROWS]
    bare = report(*silent, limits=Limits())
    found = Reader(comparison_page(bare))
    assert {"figure-pareto", "figure-energy", "figure-rounds", "limits"}.isdisjoint(found.ids)
    assert "not told" in found.text  # of cosines
    assert rounds(bare) is None and found.text.index("no limit was given") < found.text.index("Latency and fidelity")
