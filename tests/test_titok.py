"""TiTok: against the authors' arrays, as graphs, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgetok.errors import UsageError
from edgetok.modules.titok import Size, TiTok, TiTokConfig
from tests.seeded import seeded

GOLDEN = Path(__file__).parent / "golden" / "tokenizers"
LEGACY = TiTokConfig(
    image=32,
    tokens=8,
    codes=256,
    encoder=Size(64, 2, 8),
    decoder=Size(64, 2, 8),
    pixel_codes=64,
    pixel_width=32,
    pixel_channels=32,
    pixel_multipliers=(1, 1, 1, 1, 2),
)
PLAIN = replace(LEGACY, legacy=False, unit=False)


@pytest.mark.parametrize(("name", "config"), [("legacy", LEGACY), ("plain", PLAIN)])
def test_equals_the_authors(name: str, config: TiTokConfig) -> None:
    """Ids one by one; pictures to the rounding of fp32."""
    with np.load(GOLDEN / "titok_8x256.npz") as arrays, torch.no_grad():
        model = seeded(TiTok(config))
        ids = model.encode(torch.from_numpy(arrays["picture"]))
        assert (ids.numpy() == arrays[f"{name}_ids"]).all()
        wanted = arrays[f"{name}_picture"]
        assert np.linalg.norm(model.decode(ids[:1]).numpy() - wanted) <= 1e-4 * np.linalg.norm(wanted)
        other = replace(config, legacy=not config.legacy)
        assert (seeded(TiTok(other)).encode(torch.from_numpy(arrays["picture"])).numpy() != arrays[f"{name}_ids"]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": 40}, r"image=40: accepted is a multiple of patch=16"),
        ({"pixel_multipliers": (1, 2)}, r"2 levels enlarge by 2; the patches are of 16"),
        ({"codes": 0}, r"codes=0: accepted are numbers from 1 up"),
    ],
)
def test_refuses(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(LEGACY, **change)  # type: ignore[arg-type]
