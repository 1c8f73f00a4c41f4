"""TempMe's merging within a frame is ToMe's, as docs/techniques.md says."""

from __future__ import annotations

import torch

from edgetok import technique
from edgetok.plugins import merge_tokens
from tests.test_golden import VALUES, arrays, rows, run_graph_form, state


def test_within_a_frame():
    golden = arrays("tempme_bsm_cls1_r7")
    seen = state(golden | {"class_token": golden["cls_num"]})
    chosen = technique.load("tome").reference(seen, int(golden["r"]), technique.parse("tome:r=7").config)
    merged, size = merge_tokens.reference(golden["x"], torch.ones(1, 31, 1), chosen.order, chosen.destination)
    graph = run_graph_form(technique.parse("tome:r=7"), golden["x"], golden["metric"][:, None], 0, 1)
    reference = {"order": chosen.order, "destination": chosen.destination, "x_merged": merged, "size_out": size}
    for got in (reference, graph):
        assert torch.equal(rows(got["order"], got["destination"]), golden["token_to_merged"].long())
        torch.testing.assert_close(got["x_merged"], golden["x_merged"], rtol=0, atol=VALUES)
        torch.testing.assert_close(got["size_out"], golden["size_out"])
