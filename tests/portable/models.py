"""The plain vision transformer among the portable bundles."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def vit_small() -> "tuple[torch.nn.Module, dict[str, torch.Tensor]]":
    """A ViT-S/16 with seeded random weights, and an example input for it."""
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)
    return ViTModel(config, add_pooling_layer=False).eval(), {"pixel_values": torch.randn(2, 3, 224, 224)}
