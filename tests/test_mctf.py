"""MCTF: by hand, against the published code's arrays, next to ToMe, and what must be noticed."""

from __future__ import annotations

import dataclasses
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch

from edgetok import plugins, technique
from edgetok.errors import UsageError
from edgetok.exporters import mctf
from edgetok.exporters.mctf import Config
from edgetok.exporters.sources.pytorch import capture_module
from edgetok.model import Origin
from edgetok.technique import Selection, State
from edgetok.transform import transform
from edgetok.view.site import Site
from tests.alone import reduced, state
from tests.comparison import compare, reduce, run, session
from tests.families import captured, feeds
from tests.test_golden import VALUES, Stack, arrays, check_stack, rows

STACK = ("mctf_blocks_osa1", 3, "mctf:r=5")


def fans(degrees: list[float], **more: Any) -> State:
    """Tokens of length one at angles in a plane, whose attention is flat unless queries and keys are given."""
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    hidden = torch.stack([angles.cos(), angles.sin()], dim=-1)[None].float()
    return state(hidden, **{"keys": torch.zeros(1, 1, len(degrees), 1)} | more)


def received(shares: list[float]) -> dict[str, torch.Tensor]:
    """A bias by which every query attends to the keys by these shares."""
    return {"bias": torch.tensor(shares).log()[None, None, None]}


def test_by_hand():
    """A = 0, 2, 4 at 0, 40, 100 degrees; B = 1, 3, 5 at 2, 45, 60: 0-1 lie 2 apart, 2-3 5, and so on.

    Two tokens go. A's: token 0 into token 1. Left of A: 2 and 4. B's: the nearest of what is left are 3 and 2.
    """
    out = reduced("mctf", fans([0, 2, 40, 45, 100, 60]), 2)
    # stay: A 2, 4; B by falling scores: 5 (20 from token 2), 1 (38); then go: A 0, B 3
    assert out.stay == [[2, 4, 5, 1]] and out.gone == [[0, 3]]
    assert out.choice.destination.tolist() == [[3, 0]]
    assert out.choice.ahead


def test_a_chain():
    """B's token 1 takes token 0 in and goes into token 2 itself: all three are one."""
    out = reduced("mctf", fans([0, 5, 11, 60, 120, 170]), 2)
    assert out.stay == [[2, 4, 3, 5]] and out.gone == [[0, 1]]
    assert out.choice.destination.tolist() == [[0, 0]]


def test_one_direction_keeps_places():
    out = reduced("mctf", fans([0, 2, 40, 45, 100, 60]), 2, bidirectional=False)
    assert out.stay == [[4, 1, 3, 5]] and out.gone == [[0, 2]]
    assert out.choice.destination.tolist() == [[1, 2]]


def test_attention_and_size_protect():
    """Of two pairs equally alike the one goes that is attended to less, or that is smaller; ties: the lower index."""
    pairs = [0, 10, 90, 100]

    def goes(seen: State, **options: float) -> int:
        return reduced("mctf", seen, 1, bidirectional=False, **options).gone[0][0]

    assert goes(fans(pairs)) == 0
    assert goes(fans(pairs, **received([0.4, 0.4, 0.1, 0.1]))) == 2
    assert goes(fans(pairs, size=torch.tensor([3.0, 3, 1, 1]).reshape(1, 4, 1))) == 2
    # information and size left out, 1 degree more decides; with them it does not
    heeded = fans([0, 10, 90, 101], **received([0.4, 0.4, 0.1, 0.1]))
    assert goes(heeded) == 2
    assert goes(heeded, tau_info=float("inf"), tau_size=float("inf")) == 0


def test_weights_are_attention_times_size():
    size = torch.tensor([1.0, 2, 3, 4]).reshape(1, 4, 1)
    chosen = reduced("mctf", fans([0, 10, 90, 100], size=size, **received([0.1, 0.2, 0.3, 0.4])), 1).choice
    # four queries in one head: 0.4 0.8 1.2 1.6, times the sizes
    torch.testing.assert_close(chosen.weight[0, :, 0], torch.tensor([0.4, 1.6, 3.6, 6.4]))


def test_what_nothing_attends_to_has_a_weight():
    chosen = reduced("mctf", fans([0, 10, 90, 100], **received([1e-30, 0.2, 0.4, 0.4])), 1).choice
    assert chosen.weight[0, 0, 0] == mctf.LEAST


def test_it_chooses_by_the_tokens_where_tome_compares_keys():
    """The keys of 0 and 3 are alike, the tokens 0 and 1."""
    keys = fans([0, 90, 200, 0]).hidden[:, None]
    seen = fans([0, 2, 40, 90], keys=keys, queries=torch.zeros_like(keys))
    ours, theirs = reduced("mctf", seen, 1, bidirectional=False), reduced("tome", seen, 1)
    assert ours.stay == theirs.stay == [[2, 1, 3]] and ours.gone == theirs.gone == [[0]]
    assert ours.into == [[1]] and theirs.into == [[3]]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_published_blocks(depth: int):
    check_stack(STACK[0], depth, STACK[2])


def test_published_matching():
    golden = arrays("mctf_uni_r16_197")
    out = reduced("mctf", state(golden["x"], attention=golden["attn"], prefix=1), 16, bidirectional=False)
    assert torch.equal(rows(out.choice.order, out.choice.destination), golden["token_to_merged"].long())
    torch.testing.assert_close(out.hidden, golden["x_merged"], rtol=0, atol=VALUES)
    torch.testing.assert_close(out.size, golden["size_out"])
    torch.testing.assert_close(out.attention, golden["attn_merged"], rtol=0, atol=VALUES)


@pytest.mark.parametrize("family", ["vit", "whisper", "bert"])
@pytest.mark.parametrize("spec", ["mctf:r=1", "mctf:r=5,tau_sim=2,tau_info=1,tau_size=3", "mctf:ratio=0.5"])
def test_other_counts_and_temperatures(family: str, spec: str):
    data, module = captured(family)
    compare(reduce(data, technique.parse(spec)), family, module, feeds(family, 3))


WRONG = {
    "fewer tokens": (*STACK[:2], "mctf:r=4"),
    "one direction": (*STACK[:2], "mctf:r=5,bidirectional=false"),
    "attention computed anew": (*STACK[:2], "mctf:r=5,ahead=false"),
    "no size": (*STACK[:2], "mctf:r=5,tau_size=inf"),
    "another temperature": (*STACK[:2], "mctf:r=5,tau_info=1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_is_noticed(name: str):
    with pytest.raises((AssertionError, StopIteration)):
        check_stack(*WRONG[name])


@pytest.mark.parametrize("change", [{"weight": None}, {"ahead": False}, {"proportional": False}])
def test_is_noticed_in_a_family(change: dict[str, Any]):
    def select(site: Site, config: Config) -> Selection[ir.Value]:
        return dataclasses.replace(mctf.select(site, config), **change)

    data, module = captured("vit")
    with pytest.raises((AssertionError, KeyError), match="other tokens are chosen|error|keys"):
        compare(reduce(data, technique.parse("mctf:r=5"), select=select), "vit", module, feeds("vit", 3))


def test_queries_and_keys_are_of_all_tokens_and_values_of_the_merged():
    """Nothing is computed twice, and names say what is the block's attention and what reduces."""
    data, _ = captured("vit")
    model = ir.from_proto(onnx.ModelProto.FromString(data))
    transform(model, [technique.parse("mctf:r=5,layers=2")], dtype="fp32", emit="reduced")
    linear = [node for node in model.graph if node.name.startswith("blocks.2/") and node.op_type == "MatMul"]
    assert sum(node.inputs[1].is_initializer() for node in linear) == 6  # q, k, v, out, fc1, fc2
    parts = {node.name.split("/")[1] for node in model.graph if node.name.startswith("blocks.2/")}
    assert parts == {"attention", "reduce", "mlp"}
    (softmax,) = (node for node in model.graph if node.op_type == "Softmax")
    assert softmax.name.startswith("blocks.2/attention/")


def test_a_joint_projection_is_computed_once():
    """Its queries and keys from all tokens, its values from the merged ones."""
    stack = arrays(STACK[0])
    model = capture_module(Stack(stack, 1), {"x": stack["x_in"]}, Origin("callable", "stack")).model
    transform(model, [technique.parse("mctf:r=5")], dtype="fp32", emit="reduced")
    linear = [node for node in model.graph if node.op_type == "MatMul" and node.inputs[1].is_initializer()]
    assert [list(node.inputs[1].shape) for node in linear] == [[24, 24]] * 4 + [[24, 96], [96, 24]]


def test_with_what_is_observed():
    """Behind the encoder vtc-cls looks at the attention of the merged tokens, in blocks that looked ahead too."""
    data, _ = captured("vit")
    model = ir.from_proto(onnx.ModelProto.FromString(data))
    specs = [technique.parse("mctf:r=5"), technique.parse("vtc-cls:keep=0.5,first=0,last=2")]
    transform(model, specs, dtype="fp32", emit="reduced")
    plugins.add_functions(model)
    got = run(session(model), feeds("vit", 2))
    kept = got["last_hidden_state"].shape[1]
    assert kept == 1 + round((64 - 20) * 0.5) and got["token_positions"].shape[1] == kept
    assert all(value.isfinite().all() for value in got.values())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mctf:r=4,tau_size=0", r"option tau_size=0\.0: accepted is a number above 0"),
        ("mctf:r=4,tau_info=nan", "option tau_info=nan: accepted is a number above 0"),
        ("mctf:r=4,tau_sim=99", r"option tau_sim=99\.0: accepted is at most 4 times tau_info and tau_size"),
    ],
)
def test_messages(spec: str, message: str):
    with pytest.raises(UsageError, match=message):
        technique.parse(spec)
