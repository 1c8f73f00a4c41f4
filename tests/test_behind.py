"""Behind the encoder: what a language model receives, exported and used as a user would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgetok
from edgetok import technique
from edgetok.api import tokens_per_block
from edgetok.bundle import Bundle
from edgetok.cli import main
from edgetok.errors import Refusal, UsageError
from edgetok.manifest import Step, TokenMap
from edgetok.profiling import Effort
from tests import families
from tests.comparison import compare, reduce
from tests.families import captured

BEHIND = [name for name in technique.names() if technique.load(name).where == "output"]
SPECS = [spec for name in BEHIND for spec in technique.load(name).examples]


def clip() -> object:
    """A CLIP vision tower for the command line."""
    return families.build("clip-vision")


def arrays(bundle: Bundle) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What a bundle gives for its samples, and what its source gives."""
    with edgetok.load(bundle.path) as model:
        return model.run(bundle.samples("inputs")), bundle.samples("original")


def at(tokens: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(B, N, C), (B, K) -> (B, K, C)"""
    return np.take_along_axis(tokens, places[..., None], axis=1)


def check_inverse(rows: np.ndarray, positions: np.ndarray) -> None:
    """Every kept token's row is its own, and as many rows are used as there are tokens."""
    kept = np.arange(positions.shape[1])
    np.testing.assert_array_equal(np.take_along_axis(rows, positions, axis=1), np.tile(kept, (len(rows), 1)))
    assert rows.min() >= -1 and rows.max() == kept[-1]


@pytest.mark.parametrize("spec", SPECS)
def test_encoder_and_projector_as_one_source(spec: str):
    """Against hooks on the module: scores from the blocks, tokens from behind the projector, no class token."""
    asked = technique.parse(spec)
    crops = technique.Plan(asked.name, technique.load(asked.name), asked.config, {}).crops
    data, module = captured("llava", crops if crops > 1 else None)
    reduced = reduce(data, asked)
    for batch in [crops] if crops > 1 else [1, 3]:
        compare(reduced, "llava", module, families.feeds("llava", batch))


def test_clip_keeps_its_class_token(tmp_path: Path):
    bundle = edgetok.export("tests.test_behind:clip", out=tmp_path / "out", reduce=["vtc-cls:keep=0.25"])
    got, original = arrays(bundle)
    positions, rows = got["token_positions"], got["token_rows"]
    assert positions.shape == (2, 17) and rows.shape == (2, 65)
    assert (positions[:, 0] == 0).all() and (np.diff(positions) > 0).all()  # the class token, then raster order
    np.testing.assert_allclose(got["last_hidden_state"], at(original["last_hidden_state"], positions), atol=1e-4)
    np.testing.assert_allclose(got["pooler_output"], original["pooler_output"], atol=1e-4)
    check_inverse(rows, positions)
    assert ((rows == -1).sum(axis=1) == 48).all()
    assert bundle.manifest.schedule == (Step(block=None, technique="vtc-cls", tokens_in=65, tokens_out=17),)


def test_projected_tokens(tmp_path: Path):
    bundle = edgetok.export("tests.families:small_llava", out=tmp_path / "out", reduce=["vtc-cls:keep=0.25"])
    got, original = arrays(bundle)
    assert got["output"].shape == (2, 16, 64)
    np.testing.assert_allclose(got["output"], at(original["output"], got["token_positions"]), atol=1e-4)
    assert (np.diff(got["token_positions"]) > 0).all()
    check_inverse(got["token_rows"], got["token_positions"])
    manifest = bundle.manifest
    assert manifest.schedule == (Step(block=None, technique="vtc-cls", tokens_in=64, tokens_out=16),)
    assert manifest.token_map == TokenMap(
        tokens=64, kept=16, outputs=("output",), rows="token_rows", positions="token_positions"
    )
    assert {out.name: out.shape for out in manifest.outputs} == {
        "output": ("batch", 16, 64), "token_positions": ("batch", 16), "token_rows": ("batch", 64),
    }  # fmt: skip


@pytest.mark.parametrize(("source", "cut"), [("tests.families:small_llava", 1), ("tests.test_behind:clip", 0)])
def test_two_techniques_compose_to_one_map(source: str, cut: int, tmp_path: Path):
    """Merged in the blocks, then chosen behind them: each token is one of the merged ones, at its original place."""
    blocks = 3 if cut else 4  # nothing reads the last block of the source that gives out the last but one
    tome, both = (
        edgetok.export(source, out=tmp_path / str(i), reduce=reduce, emit="reduced", min_cosine=-1)
        for i, reduce in enumerate((["tome:r=2"], ["tome:r=2", "vtc-cls:keep=0.25"]))
    )
    (merged, _), (final, _) = arrays(tome), arrays(both)
    name = "output" if cut else "last_hidden_state"
    left = 64 - 2 * blocks
    kept = round(left * 0.25) + 1 - cut
    assert merged[name].shape[1] == left + 1 - cut and final[name].shape[1] == kept
    positions, rows = final["token_positions"], final["token_rows"]
    assert rows.shape == (2, 65 - cut)
    went = np.take_along_axis(merged["token_rows"], positions, axis=1)  # rows among the merged tokens
    np.testing.assert_allclose(final[name], at(merged[name], went), atol=1e-4)
    check_inverse(rows, positions)
    for sample in range(2):  # original -> merged -> final
        last = {int(row): new for new, row in enumerate(went[sample])}
        assert rows[sample].tolist() == [last.get(int(row), -1) for row in merged["token_rows"][sample]]
    assert both.manifest.token_map == TokenMap(
        tokens=65 - cut, kept=kept, outputs=(name,), rows="token_rows", positions="token_positions"
    )
    assert tome.manifest.token_map == TokenMap(
        tokens=65 - cut, kept=left + 1 - cut, outputs=(name,), rows="token_rows", sizes="token_size"
    )
    steps = both.manifest.schedule
    assert [step.block for step in steps] == [*range(blocks), None]
    assert (steps[-1].tokens_in, steps[-1].tokens_out) == (left + 1 - cut, kept)


def test_restored_tokens_need_no_map(tmp_path: Path):
    bundle = edgetok.export("tests.families:small_vit", out=tmp_path / "out", reduce=["tome:r=2"], min_cosine=-1)
    assert bundle.manifest.token_map is None


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, plain = str(tmp_path / "out"), str(tmp_path / "plain")
    assert main(["export", "tests.families:small_llava", "--reduce", "vtc-cls:keep=0.25", "-o", out]) == 0
    assert "65 > 16 of 64 behind" in capsys.readouterr().out
    assert main(["inspect", out]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["behind", "64", "16", "vtc-cls"] in [line.split() for line in lines]
    assert main(["run", out]) == 0
    shown = capsys.readouterr().out
    assert "token_positions" in shown and "int64" in shown and "largest of" not in shown  # places are no scores
    assert main(["export", "tests.families:small_llava", "-o", plain]) == 0
    assert main(["compare", out, plain, "--rounds", "9"]) == 0
    effort = Effort(min_seconds=0.02, max_seconds=0.5, warm_up_seconds=0.5, rounds=9, layer_seconds=0.05)
    report = edgetok.profile(out, against=plain, effort=effort)
    observed = {row.name: row.reduce is not None for row in report.model.layers.layers}
    assert observed == {"embed": False, "blocks.0": True, "blocks.1": True, "blocks.2": True, "head": False}
    assert tokens_per_block(edgetok.load(out).bundle) == ((65, 65),) * 3


def test_two_behind_the_encoder_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="vtc-cls and vtc-cls both act behind the encoder: give one"):
        edgetok.export("tests.families:small_llava", out=tmp_path / "out", reduce=["vtc-cls:keep=0.5"] * 2)


def test_an_output_without_tokens_is_refused():
    data, _ = captured("vit-mean")
    with pytest.raises(Refusal, match="no output holds the encoder's tokens, so vtc-cls has nothing to choose from"):
        reduce(data, technique.parse("vtc-cls:keep=0.25"))


def test_crops_come_out_as_one_row(tmp_path: Path):
    """A thumbnail and four crops: a quarter of their tokens, in the budget of the picture as a whole."""
    bundle = edgetok.export(
        "tests.families:small_llava", out=tmp_path / "out", reduce=["hired:keep=0.25,grid=2x2"], batch=5
    )
    got, original = arrays(bundle)
    positions = got["token_positions"]
    assert got["output"].shape == (1, 80, 64) and (np.diff(positions) > 0).all() and (positions[0] < 64).sum() == 40
    np.testing.assert_allclose(got["output"], at(original["output"].reshape(1, 320, 64), positions), atol=1e-4)
    check_inverse(got["token_rows"], positions)
    assert bundle.manifest.schedule == (Step(block=None, technique="hired", tokens_in=320, tokens_out=80),)
    assert bundle.manifest.token_map == TokenMap(
        tokens=320, kept=80, outputs=("output",), rows="token_rows", positions="token_positions"
    )
