"""The Pareto front, against the definition on random figures and on ties."""

import random

from edgetok.pareto import front


def test_what_nothing_beats_is_on_the_front():
    assert front([(10, 0.9), (20, 0.99), (15, 0.8), (30, 0.95)]) == [True, True, False, False]


def test_ties():
    assert front([(10, 0.9), (10, 0.8)]) == [True, False]  # as fast, and nearer
    assert front([(10, 0.9), (20, 0.9)]) == [True, False]  # as near, and faster
    assert front([(10, 0.9), (10, 0.9)]) == [True, True]  # neither beats the other
    assert front([]) == [] and front([(1, -1.0)]) == [True]


def test_what_was_never_compared_is_left_out():
    assert front([(1, None), (10, 0.9), (20, 0.95)]) == [False, True, True]


def test_walking_along_the_front_gets_slower_and_nearer_and_everything_else_lies_behind_it():
    draw = random.Random(0)
    figures = [(draw.uniform(1, 100), draw.uniform(0.5, 1)) for _ in range(200)]
    on = [figure for figure, best in zip(figures, front(figures), strict=True) if best]
    assert sorted(on) == sorted(on, key=lambda figure: figure[1]) and 1 < len(on) < 50
    for time, cosine in set(figures) - set(on):
        assert any(other <= time and near >= cosine for other, near in on)
