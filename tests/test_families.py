"""Every family x every technique: the graph on onnxruntime against hooks on the original module."""

import pytest
import torch

from edgetok import technique
from tests import families
from tests.comparison import check_values, compare, reduce, unreduced
from tests.families import captured

SPECS = [f"{name}:r=4" for name in technique.names()] + [
    "tome:keep=0.4,proportional=false",
    "pitome:ratio=0.85,variant=code",
]


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_untouched_graph_equals_the_module(family):
    data, module = captured(family)
    for batch in (1, 3):
        unreduced(data, module, families.feeds(family, batch))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_reduced_graph_equals_the_hooked_module(family, spec):
    data, module = captured(family)
    reduced = reduce(data, technique.parse(spec))
    assert len(reduced.plan) == 4
    ties = [compare(reduced, family, module, families.feeds(family, batch)) for batch in (1, 3)]
    print(f"{family}, {spec}: {sum(ties)} choices between equal scores")


@pytest.mark.parametrize("spoil", [lambda x: 0.9 * x, lambda x: x.index_fill(1, torch.tensor([0]), float("nan"))])
def test_the_check_rejects_wrong_values(spoil):
    wanted = {"x": torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))}
    plain = {"x": wanted["x"].float()}
    check_values(plain, wanted, plain)
    with pytest.raises(AssertionError, match="error"):
        check_values({"x": spoil(plain["x"])}, wanted, plain)
