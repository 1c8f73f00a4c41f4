"""The file of zoo:dinov2-style-s14 as a PyTorch module: transformers' Dinov2Model and the head behind it."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model


class Decoder(nn.Module):
    """Patches (B, 384, 16, 16) to the logits (B, 1, 224, 224) of a saliency map."""

    def __init__(self) -> None:
        super().__init__()
        for i, (wide, narrow) in enumerate([(384, 256), (256, 128), (128, 64)], start=1):
            self.add_module(f"upconv{i}", nn.ConvTranspose2d(wide, narrow, kernel_size=4, stride=2, padding=1))
            self.add_module(f"bn{i}", nn.BatchNorm2d(narrow))
        self.final_conv = nn.Conv2d(64, 1, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in (1, 2, 3):
            x = self.get_submodule(f"bn{i}")(self.get_submodule(f"upconv{i}")(x)).relu()
        return nn.functional.interpolate(self.final_conv(x), size=(224, 224), mode="bilinear", align_corners=False)


class Saliency(nn.Module):
    """How salient each pixel is, (B, 1, 224, 224), with the weights of the ONNX file."""

    def __init__(self, path: Path):
        super().__init__()
        weights = read_weights(path)
        config = Dinov2Config(
            hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14,
            use_mask_token=False,
        )  # fmt: skip
        self.backbone, loaded = Dinov2Model.from_pretrained(  # renames the tensors as the installed release wants them
            None, config=config, state_dict=part(weights, "backbone."), output_loading_info=True
        )
        assert not loaded["missing_keys"] and not loaded["unexpected_keys"], loaded
        self.decoder = Decoder()
        self.decoder.load_state_dict(part(weights, "decoder."))
        self.eval()

    def forward(self, input_image: torch.Tensor) -> dict[str, torch.Tensor]:
        patches = self.backbone(input_image).last_hidden_state[:, 1:]  # (B, 256, 384), behind the class token
        return {"output_importance": self.decoder(patches.mT.unflatten(2, (16, 16))).sigmoid()}


class Features(nn.Module):
    """The encoder alone: its tokens (B, 257, 384) behind the last norm."""

    def __init__(self, backbone: Dinov2Model):
        super().__init__()
        self.embeddings, self.encoder, self.layernorm = backbone.embeddings, backbone.encoder, backbone.layernorm

    def forward(self, input_image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"features": self.layernorm(self.encoder(self.embeddings(input_image)).last_hidden_state)}


def part(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The weights of a submodule under its own names."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The file's weights under the names they had in PyTorch.

    The exporter kept the names of all but the matrices, which it transposed, and the position embeddings, which it
    split; a matrix is known by its MatMul: `/backbone/encoder/layer.0/mlp/fc1/MatMul` reads `onnx::MatMul_1981`.
    """
    graph = onnx.load(path).graph
    arrays = {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    named = {name: array for name, array in arrays.items() if not name.startswith("onnx::")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays:
            named[f"{node.name[1:].removesuffix('/MatMul').replace('/', '.')}.weight"] = arrays[node.input[1]].T
    class_token, patches = (arrays[name] for name in arrays if name.startswith(("onnx::Concat", "onnx::Reshape")))
    return named | {"backbone.embeddings.position_embeddings": torch.cat([class_token, patches], dim=1)}
