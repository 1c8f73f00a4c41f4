"""TempMe's merging within a frame is ToMe's, as docs/techniques.md says."""

from __future__ import annotations

import torch

from tests.alone import reduced
from tests.test_golden import VALUES, arrays, rows, state


def test_within_a_frame():
    golden = arrays("tempme_bsm_cls1_r7")
    seen = state(golden | {"class_token": golden["cls_num"]})
    out = reduced("tome", seen, int(golden["r"]))
    assert torch.equal(rows(out.choice.order, out.choice.destination), golden["token_to_merged"].long())
    torch.testing.assert_close(out.hidden, golden["x_merged"], rtol=0, atol=VALUES)
    torch.testing.assert_close(out.size, golden["size_out"])
