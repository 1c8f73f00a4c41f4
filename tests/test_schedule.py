"""How many tokens go in which block."""

import pytest

from edgetok.errors import UsageError
from edgetok.schedule import Schedule


def counts(**given: str) -> dict[int, int]:
    return Schedule.parse(given).resolve(197, 1, 12)[0]


def test_a_constant_r():
    assert counts(r="13") == dict.fromkeys(range(12), 13)


def test_the_papers_token_counts():
    """ToMe on DeiT-S: 197 tokens, r=16, ends with 21 and then 11 (the last step is clipped to 10)."""
    schedule, notes = Schedule.parse({"r": "16"}).resolve(197, 1, 12)
    left = 197 - sum(schedule[i] for i in range(11))
    assert (left, left - schedule[11]) == (21, 11)
    assert notes == ["block 11: 16 tokens wanted, 10 of 21 can go"]


def test_pitomes_token_counts():
    """PiToMe at 0.925 on 197 tokens, as its published code counts."""
    left, seen = 197, []
    for r in counts(ratio="0.925").values():
        left -= r
        seen.append(left)
    assert seen == [183, 170, 158, 147, 137, 127, 118, 110, 102, 95, 88, 82]


@pytest.mark.parametrize(("inflect", "first", "last"), [("-1", 26, 0), ("1", 0, 26), ("0", 13, 13)])
def test_inflection(inflect: str, first: int, last: int):
    schedule = counts(r="13", inflect=inflect)
    assert (schedule.get(0, 0), schedule.get(11, 0)) == (first, last)


def test_keep_leaves_the_share_of_the_tokens_without_prefix():
    schedule = counts(keep="0.5")
    assert sum(schedule.values()) == 98 and max(schedule.values()) - min(schedule.values()) <= 1


def test_tokens_are_those_left_without_prefix():
    schedule = Schedule.parse({"tokens": "64"}).resolve(201, 5, 12)[0]
    assert sum(schedule.values()) == 196 - 64 and max(schedule.values()) - min(schedule.values()) <= 1
    assert Schedule.parse({"tokens": "64", "layers": "2/5/8"}).resolve(197, 1, 12)[0] == {2: 44, 5: 44, 8: 44}
    assert Schedule.parse({"tokens": "64"}).options() == ["tokens=64"]


def test_layers_and_one_number_each():
    assert counts(r="8/4/0", layers="3/5-6") == {3: 8, 5: 4}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"r": "99"}, "99 tokens cannot go from block 0: it has 197, 1 of them prefix; give at most 98"),
        ({"r": "4", "layers": "2-12"}, "block 12 does not exist; the model has blocks 0-11"),
        ({"tokens": "197"}, "tokens=197: there are 196, prefix not counted; give fewer"),
        ({"r": "4/4", "layers": "1-3"}, "r=4/4 has 2 numbers for 3 blocks"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model(given: dict[str, str], message: str):
    with pytest.raises(UsageError, match=message):
        counts(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tokens": "0"}, "tokens='0': accepted is a count such as 64"),
        ({"tokens": "half"}, "tokens='half': accepted is a count such as 64"),
        ({"budget": "0.6"}, "budget='0.6': accepted is a share of the multiplications, as in flops:0.6"),
        ({"budget": "flops:1.5"}, "budget=1.5: accepted is a number from 0 to 1"),
        ({"keep": "0.5", "tokens": "64"}, "give exactly one of .*; got keep and tokens"),
    ],
)  # fmt: skip
def test_what_is_no_schedule(given: dict[str, str], message: str):
    with pytest.raises(UsageError, match=message):
        Schedule.parse(given)
