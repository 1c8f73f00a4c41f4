"""DToMe: thresholds and counts by hand, the published arrays, and the counts found on photographs."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import edgetok
from edgetok import graph as g
from edgetok import technique, zoo
from edgetok.calibration import possible
from edgetok.errors import Refusal, UsageError
from edgetok.exporters import dtome, tome
from edgetok.exporters.dtome import Config
from edgetok.exporters.sources import CaptureOptions, capture
from edgetok.plugins import add_functions
from edgetok.transform import transform
from edgetok.view import TransformerView
from edgetok.view.site import Site
from tests import alone
from tests.alone import reduced, written
from tests.comparison import compare, reduce, run, session
from tests.families import captured, feeds
from tests.saliency import Saliency
from tests.test_golden import VALUES, arrays, rows, state
from tests.test_preprocess import PHOTOGRAPHS

PICTURES = ("astronaut.png", "coffee.png", "chelsea.png")
# Two samples, two blocks: the first block's tokens are more alike.
FOUND = {2: np.array([[0.9, 0.8, 0.7], [0.95, 0.85, 0.2]]), 5: np.array([[0.6, 0.3, 0.1], [0.75, 0.1, 0.0]])}


def test_a_threshold_by_hand():
    """Budget 2 a sample, of both blocks: 0.95 0.9 0.85 0.8 go, and 0.75 is the first that stays."""
    assert dtome.threshold(FOUND, 2) == 0.75
    assert dtome.counts(FOUND, {2: 1, 5: 1}, Config()) == {2: 2, 5: 0}
    # budget 3: 0.75 and 0.7 go too; above 0.6 lie 3 and 2 in block 2, 0 and 1 in block 5: means 2.5 and 0.5
    assert dtome.threshold(FOUND, 3) == 0.6
    assert dtome.counts(FOUND, {2: 2, 5: 1}, Config()) == {2: 2, 5: 1}


def test_a_threshold_is_never_below_zero():
    """Tokens that are unlike each other stay, whatever the budget."""
    unlike = {0: np.array([[0.5, -0.2, -0.4]])}
    assert dtome.threshold(unlike, 2) == 0
    assert dtome.counts(unlike, {0: 2}, Config()) == {0: 1}
    assert dtome.threshold(unlike, 3) == 0  # all may go


def test_equal_scores_at_the_threshold_stay():
    assert dtome.counts({0: np.array([[0.9, 0.8, 0.8, 0.8]])}, {0: 2}, Config()) == {0: 1}


def test_given_thresholds():
    at_most = {2: 9, 5: 9}
    assert dtome.counts(FOUND, at_most, Config(threshold="0.65")) == {2: 2, 5: 1}  # means 2.5 and 0.5
    assert dtome.counts(FOUND, at_most, Config(threshold="0.65/0.05")) == {2: 2, 5: 3}  # means 2.5 and 2.5, together 5
    assert dtome.counts(FOUND, {2: 1, 5: 1}, Config(threshold="0.1")) == {2: 1, 5: 1}
    with pytest.raises(UsageError, match=r"threshold=0.9/0.8/0.7 has 3 numbers for 2 reduced blocks"):
        dtome.counts(FOUND, at_most, Config(threshold="0.9/0.8/0.7"))


@pytest.mark.parametrize("text", ["alike", "1.5", "nan", "0.9//0.8"])
def test_what_is_no_threshold(text: str):
    with pytest.raises(UsageError, match=f"option threshold='{text}': accepted is a cosine such as 0.9"):
        technique.parse(f"dtome:r=4,threshold={text}")


def graph_scores(keys: torch.Tensor, prefix: int, size: torch.Tensor | None = None) -> np.ndarray:
    """(B, N, d) -> the scores, by the graph form."""
    seen = alone.state(keys, prefix=prefix, **{} if size is None else {"size": size})
    return written(seen, 0, lambda site: {"score": dtome.scores(site, Config())})["score"].numpy()


def test_the_published_code_by_a_threshold():
    """As many go as lie above it, and then it is ToMe."""
    golden = arrays("dymu_instance_thr0.97")
    found = graph_scores(golden["metric"], 1)
    asked = Config(threshold=f"{float(golden['threshold'])}")
    most = (golden["metric"].shape[1] - 1) // 2
    assert dtome.counts({0: found}, {0: most}, asked) == {0: int(golden["r_effective"])}
    out = reduced("dtome", state(golden), int(golden["r_effective"]), threshold=asked.threshold)
    torch.testing.assert_close(out.hidden, golden["x_merged"], rtol=0, atol=VALUES)
    torch.testing.assert_close(out.size, golden["size_out"])
    assert torch.equal(rows(out.choice.order, out.choice.destination), golden["pos_tracking"].argmax(dim=1))


def test_padding_counts_as_alike_and_takes_nothing_in():
    keys = torch.tensor([[[1.0, 0], [0, 1], [1, 1], [1, 0], [0, 1], [0, 1]]])  # A = 0, 2, 4; B = 1, 3, 5
    size = torch.tensor([1.0, 1, 1, 1, 0, 0])[None, :, None]
    found = graph_scores(keys, 0, size)
    np.testing.assert_allclose(found[0, 1:], [1, 0.5**0.5], atol=1e-6)  # the best first
    assert found[0, 0] > 1


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for name in PICTURES:
        shutil.copy(PHOTOGRAPHS / name, folder / name)
    return folder


def best_cosines(inputs: dict[str, np.ndarray], plan: dict[int, int]) -> dict[int, np.ndarray]:
    """{block: (samples, |A|)} in numpy, from the keys of the zoo's graph under ToMe."""
    model = capture("zoo:dinov2-style-s14", CaptureOptions()).model
    seen: dict[int, tuple[range, range]] = {}

    def select(site: Site, config: tome.Config) -> technique.Selection:
        seen[site.block] = tome.sets(site.prefix, site.tokens)
        site.metric.name = f"keys_{site.block}"
        model.graph.outputs.append(g.typed(site.metric, ir.DataType.FLOAT, [None, None, None]))
        return tome.select(site, config)

    recording = dataclasses.replace(tome.TECHNIQUE, select=select)
    TransformerView.of(model).reduce([technique.Plan("tome", recording, tome.Config(), plan)])
    add_functions(model)
    got = run(session(model), {name: torch.from_numpy(value) for name, value in inputs.items()})
    found = {}
    for block, (a, b) in seen.items():
        keys = got[f"keys_{block}"].double().numpy()
        unit = keys / np.linalg.norm(keys, axis=2, keepdims=True)
        found[block] = (unit[:, a] @ unit[:, b].transpose(0, 2, 1)).max(axis=2)
    return found


@pytest.mark.parametrize("spec", ["dtome:keep=0.6,layers=3-6", "dtome:ratio=0.5,layers=3-5,threshold=0.8"])
def test_on_photographs(spec: str, tmp_path: Path):
    """What is found is what the threshold implies, block by block; and it is not what the schedule said."""
    folder, said = tmp_path / "pictures", []
    folder.mkdir()
    for name in PICTURES:
        shutil.copy(PHOTOGRAPHS / name, folder / name)
    bundle = edgetok.export(
        "zoo:dinov2-style-s14", out=tmp_path / "small", reduce=[spec], samples=folder, min_cosine=0,
        progress=said.append,
    )  # fmt: skip
    asked = technique.parse(spec)
    plan = {step.block: step.tokens_in - step.tokens_out for step in bundle.manifest.schedule}
    scheduled, _ = asked.schedule.resolve(257, 1, 12)
    found = best_cosines(bundle.samples("inputs"), plan)
    limit = 0.8 if asked.config.threshold else dtome.threshold(found, sum(scheduled.values()))
    means = np.array([(found[block] > limit).sum(axis=1).mean() for block in plan])
    ends = np.round(np.cumsum(means)).astype(int)
    assert list(plan.values()) == np.diff(ends, prepend=0).tolist()
    assert plan != scheduled
    if not asked.config.threshold:
        assert sum(plan.values()) == sum(scheduled.values())
    assert any(text.startswith("dtome: on the samples r=") for text in said)
    print(spec, plan, "scheduled", scheduled, "threshold", limit)


def test_every_round_is_found_under_the_last(monkeypatch: pytest.MonkeyPatch):
    """Without samples the schedule stands; with them the technique is asked until its counts stay."""
    data, _ = captured("bert")
    inputs = feeds("bert", 3)
    asked: list[dict[int, int]] = []

    def on_samples(model: ir.Model) -> dict[str, np.ndarray]:
        add_functions(model)
        return {name: value.numpy() for name, value in run(session(model), inputs).items()}

    right = dtome.TECHNIQUE.calibration
    monkeypatch.setattr(
        dtome, "TECHNIQUE", dataclasses.replace(dtome.TECHNIQUE, calibration=dataclasses.replace(
            right, counts=lambda *args: asked.append(right.counts(*args)) or asked[-1]
        )),
    )  # fmt: skip
    model = ir.from_proto(onnx.ModelProto.FromString(data))
    plain = transform(model.clone(), [technique.parse("dtome:r=5")], dtype="fp32", emit="reduced")
    assert [step.tokens_in - step.tokens_out for step in plain.schedule] == [5, 5, 5, 5] and not asked
    found = transform(model, [technique.parse("dtome:r=5")], dtype="fp32", emit="reduced", run=on_samples)
    counts = {step.block: step.tokens_in - step.tokens_out for step in found.schedule}
    assert counts == {block: count for block, count in asked[-1].items() if count}
    assert len(asked) <= 4 and sum(counts.values()) <= 20
    assert found.notes[-1].endswith("scheduled were r=5/5/5/5,layers=0/1/2/3")


def test_no_more_go_than_can(tmp_path: Path):
    """Counts that were found under others before them are held to half of what is left."""
    assert possible({0: 40, 2: 10, 3: 40}, 64, 0.5) == {0: 32, 2: 10, 3: 11}
    bundle = edgetok.export("tests.families:small_vit", out=tmp_path / "few", reduce=["dtome:keep=0.05"], min_cosine=-1)
    for step in bundle.manifest.schedule:
        assert step.tokens_in - step.tokens_out <= (step.tokens_in - 1) // 2


def angles(*degrees: float) -> torch.Tensor:
    """(N,) -> (N, 2): keys whose cosines are those of the angles between them."""
    turned = torch.tensor(degrees) * torch.pi / 180
    return torch.stack([turned.cos(), turned.sin()], dim=1)


# A = 0, 2, 4, 6 and B = 1, 3, 5, 7. The best cosines of A: cos 0, cos 10, cos 20, cos 60 degrees: 1, 0.985, 0.94, 0.5.
RICH = angles(0, 0, 90, 80, 180, 160, 270, 330)
EASY = angles(0, 0, 90, 90, 180, 180, 270, 270)


@pytest.mark.parametrize(("limit", "gone"), [("0.9", 3), ("0.95", 2), ("0.99", 1), ("1", 0), ("0.4", 4), ("-1", 4)])
def test_counts_by_hand(limit: str, gone: int):
    """As many go as lie strictly above the threshold, best first, and half of them at most."""
    out = reduced("dtome", alone.state(RICH[None]), 9, threshold=limit, dynamic=True)
    assert out.gone == [[0, 2, 4, 6][:gone]] and out.into == [[1, 3, 5, 7][:gone]]
    assert out.hidden.shape == (1, 8 - gone, 2)
    assert out.size.flatten().sort().values.tolist() == [1.0] * (8 - 2 * gone) + [2.0] * gone


def test_the_count_is_the_most_that_may_go():
    assert reduced("dtome", alone.state(RICH[None]), 2, threshold="0.4", dynamic=True).gone == [[0, 2]]


def test_a_batch_merges_the_least():
    """Alone the first merges 4 and the second 2; together 2 each: of equal ones the first."""
    both = alone.state(torch.stack([EASY, RICH]))
    assert reduced("dtome", alone.state(EASY[None]), 9, threshold="0.95", dynamic=True).gone == [[0, 2, 4, 6]]
    assert reduced("dtome", both, 9, threshold="0.95", dynamic=True).gone == [[0, 2], [0, 2]]


def test_a_class_token_stays_and_two_patches_are_left():
    alike = torch.ones(1, 6, 2)  # prefix 1: A = 2, 4 and B = 1, 3, 5
    assert reduced("dtome", alone.state(alike, prefix=1), 9, threshold="0.5", dynamic=True).stay == [[0, 1, 3, 5]]
    for tokens, left in ((2, 2), (3, 2), (4, 2), (5, 3)):
        seen = alone.state(alike[:, :tokens])
        assert reduced("dtome", seen, 9, threshold="0.5", dynamic=True).hidden.shape[1] == left


def test_padding_goes_whatever_the_threshold():
    """Tokens 4 to 7 are padding, A's half of it goes; of the others none is alike."""
    size = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0])[None, :, None]
    keys = angles(0, 90, 180, 270, 0, 0, 0, 0)[None]
    out = reduced("dtome", alone.state(keys, size=size), 9, threshold="0.9", dynamic=True)
    assert out.gone == [[4, 6]] and out.size.sum() == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "dynamic=true merges by a threshold: give threshold=0.9, or samples to find it on"),
        ({"threshold": "0.9/0.8"}, "threshold=0.9/0.8 has 2 numbers, and more blocks are reduced"),
    ],
)
def test_no_threshold_for_a_block(options: dict[str, str], said: str):
    with pytest.raises(UsageError, match=said):
        Config(dynamic=True, **options).limit(2)
    assert Config(threshold="0.9").limit(7) == 0.9
    assert Config(threshold="0.9/0.8").limit(1) == 0.8


def test_what_is_settled_on_samples():
    """A threshold that is given stands, and the schedule is the most; one that is found is written down."""
    given = Config(threshold="0.5", dynamic=True)
    assert dtome.settle(FOUND, {2: 1, 5: 1}, given) == ({2: 1, 5: 1}, given)
    assert dtome.settle(FOUND, {2: 1, 5: 1}, Config(dynamic=True)) == (
        {2: 3, 5: 3}, Config(threshold="0.75", dynamic=True)
    )  # fmt: skip


def test_what_stands_behind_is_refused():
    data, _ = captured("vit")
    wanted = "tome stands behind dtome, whose counts differ from input to input, and has to know how many tokens"
    for behind in ("tome:r=2,layers=3", "divprune:keep=0.5"):
        specs = [technique.parse(text) for text in ("dtome:r=4,layers=1,threshold=0.9,dynamic=true", behind)]
        model = ir.from_proto(onnx.ModelProto.FromString(data))
        with pytest.raises(Refusal, match=wanted.replace("tome", specs[1].name, 1)):
            transform(model, specs, dtype="fp32", emit="full")
    first = [technique.parse(text) for text in ("tome:r=2,layers=0", "dtome:r=4,layers=1-3,threshold=0.9,dynamic=true")]
    done = transform(ir.from_proto(onnx.ModelProto.FromString(data)), first, dtype="fp32", emit="full")
    assert [step.dynamic for step in done.schedule] == [False, True, True, True]


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> edgetok.Bundle:
    """zoo:dinov2-style-s14 whose counts differ, its threshold found on photographs."""
    folder = tmp_path_factory.mktemp("dynamic")
    return edgetok.export(
        "zoo:dinov2-style-s14", out=folder / "bundle", reduce=["dtome:keep=0.5,dynamic=true"], emit="reduced",
        samples=pictures(folder / "pictures"), min_cosine=0,
    )  # fmt: skip


def test_a_bundle_whose_counts_differ(dynamic: edgetok.Bundle):
    """A flat picture keeps the fewest tokens; a batch as many as its richest picture at least."""
    steps = dynamic.manifest.schedule
    assert [step.block for step in steps] == list(range(12)) and all(step.dynamic for step in steps)
    assert dynamic.manifest.token_map.kept is None
    photographs = dynamic.samples("inputs")["input_image"]
    flat = np.full_like(photographs[:1], 0.3)
    with edgetok.load(dynamic.path) as model:
        model.check()
        alone = [model.run({"input_image": picture}) for picture in (*np.split(photographs, len(photographs)), flat)]
        batch = model.run({"input_image": photographs})
    left = [each["token_size"].shape[1] for each in alone]
    assert left[-1] < min(left[:-1]) and len(set(left)) > 2
    assert batch["token_size"].shape[:2] == (3, batch["tokens"].shape[2]) and batch["token_size"].shape[1] >= max(left)
    for each in (*alone, batch):
        assert (each["token_size"].sum(axis=1) == 256).all()
        assert each["token_rows"].max() == each["token_size"].shape[1] - 1
    print("tokens left", left, "in a batch", batch["token_size"].shape[1], "mean", steps[-1].tokens_out)


def test_photographs_against_the_reference(saliency_of_photographs):
    """Per picture and as a batch of 3: the same counts, the same tokens, the same values."""
    data, module, photographs = saliency_of_photographs
    flat = torch.full_like(photographs[:1], 0.3)
    for text in ("dtome:r=128,threshold=0.9,dynamic=true", "dtome:r=60,layers=2-4,threshold=0.95/0.8/1,dynamic=true"):
        graph = reduce(data, technique.parse(text))
        for pixels in (photographs[:1], photographs[1:2], flat, photographs):
            compare(graph, "dinov2", module, {"input_image": pixels})
            print(text, [choice.destination.shape[1] for choice in graph.run({"input_image": pixels})[1]])


def test_none_go_and_half_go(saliency_of_photographs):
    data, module, photographs = saliency_of_photographs
    nothing = reduce(data, technique.parse("dtome:r=128,threshold=1,layers=0-2,dynamic=true"))
    compare(nothing, "dinov2", module, {"input_image": photographs[:1]})
    assert [c.destination.shape[1] for c in nothing.run({"input_image": photographs[:1]})[1]] == [0, 0, 0]
    everything = reduce(data, technique.parse("dtome:r=128,threshold=-1,dynamic=true"))
    gone = [c.destination.shape[1] for c in everything.run({"input_image": photographs[:1]})[1]]
    assert gone == [128, 64, 32, 16, 8, 4, 2, 0]  # the schedule has 1 for the last, and nothing behind it


@pytest.fixture(scope="module")
def saliency_of_photographs() -> tuple[bytes, torch.nn.Module, torch.Tensor]:
    """zoo:dinov2-style-s14 as captured from its file, as a PyTorch module, and three photographs."""
    entry = zoo.find("dinov2-style-s14")
    pixels = entry.preprocess["input_image"].load([str(PHOTOGRAPHS / name) for name in PICTURES], PHOTOGRAPHS)
    data = ir.to_proto(capture("zoo:dinov2-style-s14").model).SerializeToString()
    return data, Saliency(entry.locate()), torch.from_numpy(pixels)
