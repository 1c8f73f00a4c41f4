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
from edgetok import technique
from edgetok.calibration import possible
from edgetok.errors import UsageError
from edgetok.exporters import dtome, tome
from edgetok.exporters.dtome import Config
from edgetok.exporters.sources import CaptureOptions, capture
from edgetok.plugins import add_functions
from edgetok.transform import transform
from edgetok.view import TransformerView
from edgetok.view.site import Site
from tests import alone
from tests.alone import reduced, written
from tests.comparison import run, session
from tests.families import captured, feeds
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
    np.testing.assert_allclose(found[0, :2], [1, 0.5**0.5], atol=1e-6)
    assert found[0, 2] > 1


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
