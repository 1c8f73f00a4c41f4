"""FlexTok: against the authors' modules, any number of tokens, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgetok.errors import UsageError
from edgetok.modules.flextok import FlexTok, FlexTokConfig
from tests.seeded import seeded

GOLDEN = Path(__file__).parent / "golden" / "tokenizers" / "flextok_8x64000.npz"
SMALL = FlexTokConfig(
    channels=3,
    size=16,
    patch=4,
    tokens=8,
    encoder_width=64,
    encoder_layers=2,
    decoder_width=64,
    decoder_layers=2,
    head=16,
    steps=3,
)


def test_equals_the_authors() -> None:
    """Ids one by one; pictures of 8, 3 and 1 tokens to the rounding of fp32."""
    with np.load(GOLDEN) as arrays, torch.no_grad():
        model = seeded(FlexTok(SMALL))
        assert np.array_equal(model.noise.numpy(), arrays["noise"])
        ids = model.encode(torch.from_numpy(arrays["picture"]))
        assert (ids.numpy() == arrays["ids"]).all()
        for kept in (8, 3, 1):
            decoded, wanted = model.decode(ids[:1, :kept]).numpy(), arrays[f"decoded_{kept}"]
            assert np.linalg.norm(decoded - wanted) <= 1e-5 * np.linalg.norm(wanted)
        assert np.linalg.norm(arrays["decoded_8"] - arrays["decoded_3"]) > 1e-3 * np.linalg.norm(arrays["decoded_3"])


def test_a_register_sees_no_later_one() -> None:
    """What comes first does not depend on what comes after it: the first k tokens are the same in a shorter model."""
    with torch.no_grad():
        model, picture = seeded(FlexTok(SMALL)), torch.randn(2, 3, 16, 16)
        before = model.encode(picture)
        model.encoder.registers[5:] *= -1
        after = model.encode(picture)
    assert (before[:, :5] == after[:, :5]).all() and (before[:, 5:] != after[:, 5:]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 18}, r"size=18: accepted is a multiple of patch=4"),
        ({"decoder_width": 72}, r"decoder_width=72: accepted is a multiple of 4 and of head=16"),
        ({"steps": 0}, r"tokens=8, steps=0: accepted are numbers from 1 up"),
    ],
)
def test_refuses(change: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(SMALL, **change)
