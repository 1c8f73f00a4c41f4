"""What profile times to say from how many tokens on sparse attention is faster."""

import pytest

from edgetok import attention
from edgetok.api import break_even
from edgetok.manifest import Manifest, Recipe, SparseBlock


def manifest(recipe: str, *densities: float) -> Manifest:
    """Of a model whose blocks attend with these densities."""
    blocks = tuple(
        SparseBlock(block=i, technique="block-topk", tokens=512, size=64, density=density, heads=2, width=16)
        for i, density in enumerate(densities)
    )
    return Manifest.model_construct(recipe=Recipe(attention=recipe, dtype="fp32", emit="full"), sparse=blocks)


def test_each_block_is_timed_with_its_own_options_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []
    monkeypatch.setattr(break_even, "break_even", lambda spec, h, d, density: asked.append((str(spec), density)))
    recipe = "block-topk:density=0.3,layers=0-1+block-topk:density=0.3,means=true,layers=2"
    layers = break_even.sparse_layers(manifest(recipe, 0.3, 0.31, 0.31))
    assert [layer.density for layer in layers] == [0.3, 0.31, 0.31]
    assert [density for _, density in asked] == [0.3125, 0.3125]
    assert asked[0][0] == "block-topk:density=0.3125" and ",means=true" in asked[1][0]


@pytest.mark.parametrize("text", ["block=16", "block=64", "block=16,means=true", "block=64,means=true"])
@pytest.mark.parametrize("tokens", [512, 2048])
def test_options_of_a_density_have_it(text: str, tokens: int) -> None:
    """Counted as the graph's lists are: whole blocks, and with means those that these fill."""
    spec = attention.parse(f"block-topk:{text}")
    config = attention.load(spec.name).of_density(spec.config, 0.5, tokens)
    blocks = -(-tokens // config.block)
    listed = config.count(blocks)
    means = -(-(blocks - listed) // config.block) if config.means else 0
    assert abs((listed + means) / blocks - 0.5) <= 1 / blocks
