"""Whole models of the length that sparse attention is for: exported, near the original, and the same with C++."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

import edgetok
from edgetok import attention
from edgetok.errors import BundleError

pytestmark = pytest.mark.more

CASES = [
    ("zoo:minilm", {"length": 512}, "block-topk:density=0.5", 0.95),
    ("zoo:minilm", {"length": 512}, "hisa:density=0.5,candidates=0.8", 0.9),
    ("zoo:whisper-tiny-en", {}, "block-topk:density=0.25", 0.95),
    ("zoo:whisper-tiny-en", {}, "hisa:density=0.25", 0.95),
    ("zoo:whisper-tiny-en", {}, "svg2:most=0.5", 0.9),
    ("zoo:whisper-tiny-en", {}, "llsa:top=24,block=16", 0.8),
    ("zoo:smollm2", {"length": 2048}, "streaming:size=1024", 0.9),
    ("zoo:smollm2", {"length": 2048}, "minference", 0.9),
    ("zoo:smollm2", {"length": 512}, "quest:budget=128", 0.99),
    ("zoo:smollm2", {"length": 512}, "double-sparsity:tokens=128", 0.99),
    ("zoo:smollm2", {"length": 512}, "tokenselect:top=64,local=64", 0.98),
    # Each of smollm2 takes minutes; block-topk:density=0.5 and sepllm with five separators passed by hand.
    ("tests.test_sparse_models:vit", {}, "block-topk:density=0.5", 0.8),
    ("tests.test_sparse_models:dinov2", {}, "hisa:density=0.5,candidates=0.8", 0.8),
]


def vit() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """Two blocks at 1024 pixels, random weights."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=192, num_hidden_layers=2, num_attention_heads=3, image_size=1024, patch_size=16)
    return drawn(ViTModel(config, add_pooling_layer=False), 1024)


def dinov2() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """Two blocks at 518 pixels, random weights."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=192, num_hidden_layers=2, num_attention_heads=3, image_size=518, patch_size=14)
    return drawn(Dinov2Model(config), 518)


def drawn(model: torch.nn.Module, size: int) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    seeded = torch.Generator().manual_seed(0)
    return model.eval(), {"pixel_values": torch.randn(1, 3, size, size, generator=seeded)}


@pytest.mark.parametrize(("source", "options", "spec", "cosine"), CASES)
def test_a_whole_model_stays_near_and_runs_the_same_in_cpp(source, options, spec, cosine, tmp_path, library):
    bundle = edgetok.export(source, out=tmp_path / "sparse", attention=spec, min_cosine=cosine, **options)
    assert bundle.manifest.recipe.attention == str(attention.parse(spec)) and bundle.manifest.sparse
    with edgetok.load(tmp_path / "sparse") as model:
        model.check()


def test_check_accepts_near_ties_only(tmp_path, library, monkeypatch):
    """A choice that a rounding turns changes a row, and those that hear of it: not half of all, and not by much."""
    edgetok.export("zoo:minilm", out=tmp_path / "sparse", attention="block-topk:density=0.5", length=256)
    with edgetok.load(tmp_path / "sparse") as model:
        outputs = model.run(model.bundle.samples("inputs"))
        exact, size = outputs["last_hidden_state"], np.abs(outputs["last_hidden_state"]).max()
        for share, error, accepted in ((0.25, 0.003, True), (0.75, 0.003, False), (0.25, 0.3, False)):
            moved = exact.copy()
            moved[:, : int(share * 256)] += error * size
            monkeypatch.setattr(model, "run", lambda _, moved=moved: outputs | {"last_hidden_state": moved})
            with nullcontext() if accepted else pytest.raises(BundleError, match="'last_hidden_state' is off by"):
                assert model.check()["last_hidden_state"] < 1e-4


def test_auto_is_told_by_profile(tmp_path, library):
    """BERT's kind at 512 tokens: the recipe holds what was picked, and the report what was kept and when it pays."""
    bundle = edgetok.export("zoo:minilm", out=tmp_path / "auto", attention="auto:mass=0.8", length=512)
    assert bundle.manifest.sparse and "auto" not in bundle.manifest.recipe.attention
    report = edgetok.profile(tmp_path / "auto", out=tmp_path / "report")
    assert [layer.block for layer in report.sparse] == [each.block for each in bundle.manifest.sparse]
    assert all(layer.mass >= 0.8 and layer.break_even and 0 < layer.density < 0.8 for layer in report.sparse)
    assert 'id="sparse"' in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert '"break_even"' in (tmp_path / "report" / "report.json").read_text(encoding="utf-8")
