"""pool: which cell each patch belongs to, and M3's arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgetok import technique
from edgetok.errors import Refusal, UsageError
from edgetok.exporters import pool
from tests.alone import reduced, state
from tests.comparison import compare, reduce
from tests.families import captured, feeds
from tests.test_golden import arrays

GRID = pool.Config()


def test_a_grid_of_4_x_4_behind_a_class_token():
    order, row = pool.pool(tokens=17, prefix=1, count=12, config=GRID)
    assert order[:5].tolist() == [0, 1, 3, 9, 11]  # CLS, then the upper left patch of each 2 x 2
    assert dict(zip(order[5:].tolist(), row.tolist(), strict=True)) == {
        2: 1, 5: 1, 6: 1, 4: 2, 7: 2, 8: 2, 10: 3, 13: 3, 14: 3, 12: 4, 15: 4, 16: 4,
    }  # fmt: skip


def test_a_side_that_is_no_multiple():
    """5 x 5 to 2 x 2: cells of 3 and 2 rows and columns."""
    assert pool.cells(25, 4, GRID).reshape(5, 5).tolist() == [[0, 0, 0, 1, 1]] * 3 + [[2, 2, 2, 3, 3]] * 2


def test_other_grids():
    assert pool.cells(8, 2, pool.Config(rows=2)).reshape(2, 4).tolist() == [[0, 0, 1, 1]] * 2
    assert pool.cells(7, 3, pool.Config(rows=1)).tolist() == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("left", [576, 144, 36, 9, 1])
def test_m3(left: int):
    golden = arrays("m3_pool")
    out = reduced("pool", state(golden["x"]), 576 - left)
    torch.testing.assert_close(out.hidden, golden[f"out_{left}"], rtol=0, atol=2e-6)
    assert (out.size == 576 // left).all()


def test_padding_has_no_weight():
    """4 tokens in a row to 2; the last is padding, so the second cell is the third token alone."""
    x = torch.tensor([[[1.0], [3.0], [5.0], [100.0]]])
    size = torch.tensor([[[1.0], [1.0], [1.0], [0.0]]])
    torch.testing.assert_close(reduced("pool", state(x, size=size), 2, rows=1).hidden, torch.tensor([[[2.0], [5.0]]]))


@pytest.mark.parametrize(
    ("free", "left", "rows", "error", "message"),
    [
        (50, 10, 0, Refusal, r"50 tokens \(prefix not counted\) make none of as many rows as columns.*give rows="),
        (50, 10, 7, Refusal, "make none of 7 rows"),
        (50, 10, -1, Refusal, "make none of -1 rows"),
        (64, 17, 0, UsageError, "cannot leave 17 of 8 x 8 tokens: .* leave 1, 4, 9, 16, .*for example keep=0.25"),
    ],
)
def test_what_is_no_grid(free: int, left: int, rows: int, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        pool.cells(free, left, pool.Config(rows))


def test_tokens_that_were_reduced_before_are_no_grid():
    seen = state(torch.zeros(1, 16, 2), positions=torch.arange(16)[None])
    with pytest.raises(Refusal, match="no grid is left"):
        reduced("pool", seen, 12)


@pytest.mark.parametrize("wrong", ["transposed cells", "first patches alone"])
def test_a_mistake_is_noticed(wrong: str):
    def select(site, config):
        order, row = pool.pool(site.tokens, site.prefix, site.count, config)
        if wrong == "transposed cells":
            row = np.array([1, 3, 2, 4])[row % 4] + site.prefix
        chosen = pool.Selection(site.per_sample(order), site.per_sample(row))
        return chosen if wrong == "transposed cells" else pool.Selection(chosen.order, None)

    data, module = captured("vit")
    with pytest.raises(AssertionError, match="other tokens are chosen|error"):
        compare(reduce(data, technique.parse("pool:keep=0.25"), select=select), "vit", module, feeds("vit", 3))
