"""The search on a real space: fidelity of every point computed, latency taken from its multiplications."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime
import pytest
import torch
import transformers as tf

from edgetok import technique, tuning
from edgetok.exporters.sources.pytorch import capture_module
from edgetok.fidelity import compare_outputs
from edgetok.flops import Work
from edgetok.model import Origin
from edgetok.plugins import add_functions
from edgetok.search import Candidate, Goal, next_candidate
from edgetok.serialize import write_model
from edgetok.transform import aligned, transform
from edgetok.view import TransformerView
from tests import families

POINTS, EVALUATIONS = 60, 20


@cache
def space() -> tuple[tuple[Candidate, ...], tuple[float, ...]]:
    """Every point of a search space on a small ViT of eight blocks, and its cosine with the original."""
    torch.manual_seed(0)
    config = tf.ViTConfig(patch_size=8, **families.VISION | {"num_hidden_layers": 8})
    module = families.spread(tf.ViTModel(config, add_pooling_layer=False))
    captured = capture_module(module, families.pixels(), Origin("callable", "vit"))
    feeds = {name: value.numpy() for name, value in families.pixels(batch=4).items()}
    original = captured.reference(feeds)
    view = TransformerView.of(captured.model)
    candidates = tuple(tuning.grid(["tome,pitome,random"], Work.of(view), view.prefix))
    cosines = []
    for candidate in candidates:
        done = transform(captured.model.clone(), [technique.parse(candidate.reduce)], dtype="fp32", emit="full")
        add_functions(done.model)
        with TemporaryDirectory() as folder:
            write_model(done.model, Path(folder))
            session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        outputs = dict(zip(names, session.run(None, feeds), strict=True))
        cosines.append(compare_outputs(*aligned(outputs, original))[0].cosine)
    return candidates, tuple(cosines)


def latency(candidate: Candidate, overhead: float) -> float:
    """A share of the unreduced model's: what is left to multiply, and something for each block that reduces."""
    return candidate.flops + overhead * candidate.blocks * {"tome": 2, "pitome": 3, "random": 1}[candidate.technique]


def search(goal: Goal, overhead: float) -> tuple[int, float, float]:
    """How many points were measured, and the cost of the best of them and of the best of all."""
    candidates, cosines = space()
    figures = [(latency(each, overhead), cosine) for each, cosine in zip(candidates, cosines, strict=True)]
    measured: dict[int, tuple[float, float]] = {}
    while len(measured) < EVALUATIONS:
        chosen = next_candidate(candidates, measured, goal)
        if chosen is None:
            break
        measured[chosen] = figures[chosen]

    def best(among: list[tuple[float, float]]) -> float:
        holding = [each for each in among if goal.holds(*each)]
        if goal.latency is not None:
            return max(cosine for _, cosine in holding)
        return min([1.0, *(latency for latency, _ in holding)])

    return len(measured), best(list(measured.values())), best(figures)


def test_the_space_has_points_enough() -> None:
    candidates, cosines = space()
    assert len(candidates) == len(set(candidates)) == POINTS
    assert min(cosines) < 0.9 < 0.995 < max(cosines)


@pytest.mark.parametrize("overhead", [0.0, 0.05])
@pytest.mark.parametrize("cosine", [0.85, 0.9, 0.95, 0.97, 0.98, 0.99])
def test_the_fastest_that_holds_a_cosine(cosine: float, overhead: float) -> None:
    evaluations, found, optimum = search(Goal(cosine=cosine), overhead)
    assert evaluations <= EVALUATIONS and found <= 1.03 * optimum


@pytest.mark.parametrize("overhead", [0.0, 0.05])
@pytest.mark.parametrize("target", [0.95, 0.9, 0.8, 0.7, 0.6])
def test_the_nearest_that_meets_a_latency(target: float, overhead: float) -> None:
    evaluations, found, optimum = search(Goal(latency=target), overhead)
    assert evaluations <= EVALUATIONS and found >= 0.97 * optimum
    assert 1 - found <= 1.2 * (1 - optimum)  # what is lost, which is the harder measure


def test_it_stops_when_nothing_is_to_be_won() -> None:
    assert search(Goal(cosine=0.85), 0.0)[0] < EVALUATIONS


def test_the_same_measurements_lead_to_the_same_candidate() -> None:
    candidates, cosines = space()
    measured = {i: (latency(candidates[i], 0.05), cosines[i]) for i in (3, 25, 44)}
    again = dict(reversed(measured.items()))
    goal = Goal(cosine=0.95)
    assert next_candidate(candidates, measured, goal) == next_candidate(candidates, again, goal) is not None


def test_a_space_that_is_measured_whole() -> None:
    candidates, cosines = space()
    measured = {i: (latency(each, 0.0), cosines[i]) for i, each in enumerate(candidates)}
    assert next_candidate(candidates, measured, Goal(cosine=0.9)) is None
