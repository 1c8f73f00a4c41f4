"""LARP: against the authors' arrays, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgetok.errors import UsageError
from edgetok.modules.larp import Larp, LarpConfig, weights_of
from tests.seeded import seeded

GOLDEN = Path(__file__).parent / "golden" / "tokenizers" / "larp_8x256.npz"
SMALL = LarpConfig(frames=8, image=16, tokens=8, codes=256, width=64, layers=2, heads=4)


def larp(config: LarpConfig = SMALL) -> Larp:
    """With seeded weights, but the fixed places that it was made with."""
    model = Larp(config)
    fixed = {name: value.clone() for name, value in model.named_buffers()}
    seeded(model).load_state_dict(fixed, strict=False)
    return model


def test_equals_the_authors() -> None:
    """Ids one by one; videos to the rounding of fp32."""
    with np.load(GOLDEN) as arrays, torch.no_grad():
        model = larp()
        assert np.abs(model.encoder_patch_pe.numpy() - arrays["places"]).max() <= 2.0**-22
        assert (model.encode(torch.from_numpy(arrays["video"])).numpy() == arrays["ids"]).all()
        decoded, wanted = model.decode(torch.from_numpy(arrays["ids"][:1])).numpy(), arrays["decoded"]
        assert np.linalg.norm(decoded - wanted) <= 1e-4 * np.linalg.norm(wanted)


def test_published_weights_hold_more_than_a_tokenizer() -> None:
    published = {**larp().state_dict(), "prior_model.head.weight": torch.zeros(1)}
    assert list(weights_of(published)) == list(Larp(SMALL).state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 6}, r"frames=6, image=16: accepted are multiples of patch_frames=4 and patch=8"),
        ({"width": 66}, r"width=66: accepted is a multiple of 4 and of heads=4"),
        ({"tokens": 0}, r"tokens, codes and token_width are numbers from 1 up"),
    ],
)
def test_refuses(change: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(SMALL, **change)
