"""TokenFlow: against the authors' arrays, torch's resizing, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgetok.errors import UsageError
from edgetok.modules.resize import Resize
from edgetok.modules.tokenflow import SharedCodebook, TokenFlow, TokenFlowConfig, weights_of
from tests.seeded import seeded

GOLDEN = Path(__file__).parent / "golden" / "tokenizers"
SMALL = TokenFlowConfig(
    image=28,
    patch=7,
    codes=256,
    scales=(1, 2, 3, 4),
    width=32,
    layers=2,
    heads=2,
    hidden=64,
    z_channels=32,
    channels=32,
    multipliers=(1, 2),
)
FULL = TokenFlowConfig(width=32, layers=2, heads=2, hidden=64, z_channels=32, channels=32)  # networks of a few channels


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return seeded(TokenFlow(SMALL))


def test_equals_the_authors(model: TokenFlow) -> None:
    """Ids of all scales one by one; pictures of all scales, and of the first two, to the rounding of fp32."""
    with np.load(GOLDEN / "tokenflow_scales_1234.npz") as arrays, torch.no_grad():
        ids = model.encode(torch.from_numpy(arrays["picture"]))
        assert (ids.numpy() == arrays["ids"]).all()
        for kept in (30, 5):
            decoded, wanted = model.decode(ids[:1, :kept]).numpy(), arrays[f"decoded_{kept}"]
            assert np.linalg.norm(decoded - wanted) <= 1e-4 * np.linalg.norm(wanted)


def test_one_scale_equals_the_authors() -> None:
    with np.load(GOLDEN / "tokenflow_256_32_8.npz") as arrays, torch.no_grad():
        book = SharedCodebook(256, 32, 8)
        book.embedding_vqkd.weight.copy_(torch.from_numpy(arrays["codebook_sem"]))
        book.embedding_vqgan.weight.copy_(torch.from_numpy(arrays["codebook_pix"]))
        ids = book.nearest(torch.from_numpy(arrays["x"]).flatten(2).mT)
        assert (ids.flatten().numpy() == arrays["indices"]).all()
        assert np.abs(book(ids).mT.unflatten(2, (4, 4)).numpy() - arrays["quantized"]).max() <= 1e-6


@pytest.mark.parametrize(("given", "made", "mode"), [(27, 4, "area"), (27, 22, "area"), (5, 27, "bicubic")])
def test_resizes_as_torch_does(given: int, made: int, mode: str) -> None:
    x = torch.randn(2, 3, given, given, dtype=torch.float64)
    resize = Resize(given, made, mode).double()  # type: ignore[arg-type]
    assert (resize(x) - functional.interpolate(x, (made, made), mode=mode)).abs().max() < 1e-5  # its table is fp32


def test_published_weights_hold_more_than_a_tokenizer(model: TokenFlow) -> None:
    own = {k.replace("encoder_vqkd.", "encoder_vqkd.vision_model."): v for k, v in model.state_dict().items()}
    more = ("decoder_vqkd.norm.weight", "quantize.codebook_used", "encoder_vqkd.vision_model.head.probe")
    assert list(weights_of({**own, **dict.fromkeys(more, torch.zeros(1))})) == list(model.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": (1, 2)}, r"scales=\(1, 2\): accepted are sizes that end with the grid of patches, 4"),
        ({"layers": 1}, r"layers from 2 up"),
    ],
)
def test_refuses(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(SMALL, **change)  # type: ignore[arg-type]
