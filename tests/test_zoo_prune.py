"""zoo-prune: how a projector reacts, by hand; and encoder and projector as one source."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from edgetok import plugins, technique
from edgetok.errors import Refusal, UsageError
from edgetok.exporters import zoo_prune
from edgetok.exporters.sources.pytorch import capture_module
from edgetok.model import Origin
from edgetok.transform import transform
from tests.alone import reduced, state
from tests.comparison import compare, reduce, run, session
from tests.families import build, captured, feeds

SPEC = "zoo-prune:keep=0.25,directions=3,step=0.1"


class Encoder(torch.nn.Module):
    """The last block's patches through LLaVA's projector: Linear, GELU, Linear."""

    def __init__(self):
        super().__init__()
        self.encoder, _ = build("vit")
        self.projector = torch.nn.Sequential(torch.nn.Linear(48, 64), torch.nn.GELU(), torch.nn.Linear(64, 32))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.projector(self.encoder(pixel_values=pixel_values).last_hidden_state[:, 1:])


def chosen(sensitivity: list[float], angles: list[float], kept: int, **given: torch.Tensor) -> list[int]:
    """What stays of tokens given out at these angles, by a projector that multiplies each token by a number."""
    radians = torch.tensor(angles).deg2rad()
    hidden = torch.stack([radians.cos(), radians.sin()], dim=1)[None]
    factor = torch.tensor(sensitivity)[None, :, None]
    seen = state(hidden, source=torch.zeros_like(hidden), project=lambda x: x * factor, **given)
    gone = len(angles) - kept
    return zoo_prune.reference(seen, gone, zoo_prune.Config()).order[0, :kept].tolist()


def test_sensitivity_times_distance():
    """A projector that stretches by 5, 4, 3, 1, 2, brought to 1, .75, .5, 0, .25: 0 is first. Times 1 - cosine to 0:
    10 has .75 x .015 = .01, 60 has .5 x .5 = .25, 180 has 0 x 2 = 0, 100 has .25 x 1.17 = .29, so 100; then 60, which
    has .5 x .23 = .12. divprune would take 180."""
    assert chosen([5, 4, 3, 1, 2], [0, 10, 60, 180, 100], 2) == [0, 4]
    assert chosen([5, 4, 3, 1, 2], [0, 10, 60, 180, 100], 3) == [0, 2, 4]


def test_padding_goes_first():
    size = torch.tensor([1.0, 1, 1, 0, 1])[None, :, None]
    assert chosen([5, 4, 3, 9, 2], [0, 10, 60, 180, 100], 4, size=size) == [0, 1, 2, 4]


def test_ties_take_the_lower_index():
    assert chosen([1, 1, 1, 1], [30, 30, 30, 30], 2) == [0, 1]


def test_moves_have_the_length_of_the_step():
    moves = zoo_prune.Config(directions=3, step=0.5).moves(7)
    np.testing.assert_allclose(np.linalg.norm(moves, axis=1), [0.5] * 3, rtol=1e-6)
    assert (zoo_prune.Config(directions=3, step=0.5, seed=1).moves(7) != moves).any()


def test_encoder_and_projector_as_one_source():
    """Against differences in fp64 over a hundredth of the step."""
    torch.manual_seed(3)
    module = Encoder().eval()
    pixels = feeds("vit", 2)
    model = capture_module(module, feeds("vit", 2), Origin("callable", "one")).model
    transform(model, [technique.parse("zoo-prune:keep=0.25,directions=6")], dtype="fp32", emit="full")
    plugins.add_functions(model)
    got = run(session(model), pixels)
    with torch.no_grad():
        whole = module(**pixels)
        last: list[torch.Tensor] = []
        module.encoder.layernorm.register_forward_pre_hook(lambda _, args: last.append(args[0]))
        module(**pixels)
        exact, source = module.double(), last[0].double()

        def project(x: torch.Tensor) -> torch.Tensor:
            return exact.projector(exact.encoder.layernorm.forward(x)[:, 1:])

        moves = torch.from_numpy(zoo_prune.Config(directions=6, step=1e-4).moves(48)).double()
        s = sum((project(source + u) - project(source - u)).norm(dim=-1) for u in moves)
    s = (s - s.amin(1, keepdim=True)) / (s.amax(1, keepdim=True) - s.amin(1, keepdim=True))
    unit = torch.nn.functional.normalize(whole.double(), dim=-1)
    gain = s[:, None] * (1 - unit @ unit.mT)
    index = plugins.load("greedy_select").reference(gain, s, 16, "max_min").sort(dim=1).values
    assert torch.equal(got["token_positions"], index)
    tokens = next(value for value in got.values() if value.is_floating_point())
    torch.testing.assert_close(tokens, whole.gather(1, index[..., None].expand(-1, -1, 32)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("zoo-prune:keep=0.5,directions=0", "option directions=0: accepted is a count from 1 on"),
        ("zoo-prune:keep=0.5,step=0", "option step=0: accepted is a length above 0"),
    ],
)
def test_what_is_no_option(spec: str, message: str):
    with pytest.raises(UsageError, match=message):
        technique.parse(spec)


def test_without_a_projector():
    with pytest.raises(Refusal, match="those of the last block itself.*capture encoder and projector as one source"):
        reduced("zoo-prune", state(torch.zeros(1, 4, 2)), 2, directions=3, step=0.1)


MISTAKES = {"other directions": {"seed": 1}, "one direction": {"directions": 1}, "a long step": {"step": 5.0}}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_noticed(name: str):
    data, module = captured("vit")

    def wrong(site, config):
        return zoo_prune.select(site, dataclasses.replace(config, **MISTAKES[name]))

    with pytest.raises(AssertionError, match="other tokens are chosen|error"):
        compare(reduce(data, technique.parse(SPEC), select=wrong), "vit", module, feeds("vit", 3))


def test_the_graph_holds_no_more_weights():
    """The projector's copies read the projector's own weights."""
    data, _ = captured("vit")
    sizes = []
    for directions in (1, 4):
        model = ir.from_proto(onnx.ModelProto.FromString(data))
        transform(model, [technique.parse(f"zoo-prune:keep=0.25,directions={directions}")], dtype="fp32", emit="full")
        sizes.append(sum(value.const_value.size for value in model.graph.initializers.values()))
    assert sizes[1] - sizes[0] < 3 * 48 + 32
