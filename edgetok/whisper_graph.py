"""Whisper's encoder, from a CTranslate2 file to a graph without torch: a log-mel spectrogram to `last_hidden_state`.

Spelt as transformers' WhisperEncoder comes out of the exporter. CTranslate2 keeps q, k and v as one matrix, which is
taken apart here. The bias of k, zeros in Whisper, is left out: it adds the same to a query's every score.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from edgetok.ctranslate2_file import Ctranslate2File
from edgetok.errors import CaptureError, SourceError
from edgetok.graph_builder import GraphBuilder

EPSILON = 1e-5  # CTranslate2 has it fixed


def build_whisper(file: Ctranslate2File, batch: int | None = None) -> ir.Model:
    """Build the graph of the encoder: `input_features` (B, mels, 2 N) to `last_hidden_state` (B, N, C).

    Raises:
        CaptureError: the file holds another kind of model.
        SourceError: a tensor is missing, or does not fit the others.
    """
    build = _Builder(file, batch)
    features = build.input("input_features", ir.DataType.FLOAT, build.mels, 2 * build.length)
    hidden = build.embed(features)
    layer = 0
    while f"encoder/layer_{layer}/self_attention/linear_0/weight" in file.tensors:
        hidden = build.block(f"layers.{layer}", f"encoder/layer_{layer}", hidden)
        layer += 1
    if not layer:
        raise SourceError(f"{file.name} has no encoder/layer_0")
    return build.model("whisper", [features], [build.norm("last_hidden_state", "encoder/layer_norm", hidden)])


class Sizes(NamedTuple):
    """What the tensors say of the encoder."""

    length: int
    channels: int
    mels: int
    heads: int

    @classmethod
    def of(cls, file: Ctranslate2File) -> Sizes:
        """Read and check them.

        Raises:
            CaptureError: the file holds another kind of model.
            SourceError: a tensor is missing, or does not fit the others.
        """
        if file.spec != "WhisperSpec":
            raise CaptureError(f"{file.name} holds a {file.spec}; accepted is a WhisperSpec")
        (length, channels), (_, mels, _), () = (
            file.shape(f"encoder/{name}", rank)
            for name, rank in (("position_encodings/encodings", 2), ("conv1/weight", 3), ("num_heads", 0))
        )
        heads = int(file.tensors["encoder/num_heads"])
        if heads < 1 or channels % heads:
            raise SourceError(f"{file.name} has {heads} heads for {channels} channels")
        return cls(length, channels, mels, heads)


class _Builder(GraphBuilder):
    """C channels, h heads, d = C / h; `at` is where a layer lies in the file."""

    def __init__(self, file: Ctranslate2File, batch: int | None):
        super().__init__(batch)
        self.file = file
        self.length, self.channels, self.mels, self.heads = Sizes.of(file)

    def dense(self, name: str, at: str, x: ir.Value, width: int, out: int) -> ir.Value:
        return self.linear(name, x, self.file.weight(f"{at}/weight", out, width), self.file.weight(f"{at}/bias", out))

    def norm(self, name: str, at: str, x: ir.Value) -> ir.Value:
        scale, bias = (self.file.weight(f"{at}/{part}", self.channels) for part in ("gamma", "beta"))
        return self.layer_norm(name, x, scale, bias, EPSILON)

    def embed(self, features: ir.Value) -> ir.Value:
        """Two convolutions, of which the second halves the frames, and what says where each frame stands."""
        x = features
        for name, inner, stride in (("conv1", self.mels, 1), ("conv2", self.channels, 2)):
            weight = self.constant(
                f"{name}.weight", self.file.weight(f"encoder/{name}/weight", self.channels, inner, 3)
            )
            bias = self.constant(f"{name}.bias", self.file.weight(f"encoder/{name}/bias", self.channels))
            x = self.op(f"{name}/Conv", "Conv", x, weight, bias, kernel_shape=[3], pads=[1, 1], strides=[stride])
            x = self.op(f"{name}/Gelu", "Gelu", x, approximate="none")
        x = self.op("embed/Transpose", "Transpose", x, perm=[0, 2, 1])
        places = self.file.weight("encoder/position_encodings/encodings", self.length, self.channels)
        return self.op("embed/Add", "Add", x, self.constant("embed_positions", places))

    def block(self, name: str, at: str, x: ir.Value) -> ir.Value:
        normed = self.norm(f"{name}.self_attn_layer_norm", f"{at}/self_attention/layer_norm", x)
        x = self.op(f"{name}.self_attn/Add", "Add", x, self._attention(f"{name}.self_attn", at, normed))
        inner, _ = self.file.shape(f"{at}/ffn/linear_0/weight", 2)
        normed = self.norm(f"{name}.final_layer_norm", f"{at}/ffn/layer_norm", x)
        mlp = self.dense(f"{name}.fc1", f"{at}/ffn/linear_0", normed, self.channels, inner)
        mlp = self.op(f"{name}.fc1/Gelu", "Gelu", mlp, approximate="none")
        mlp = self.dense(f"{name}.fc2", f"{at}/ffn/linear_1", mlp, inner, self.channels)
        return self.op(f"{name}/Add", "Add", x, mlp)

    def _attention(self, name: str, at: str, x: ir.Value) -> ir.Value:
        channels, width = self.channels, self.channels // self.heads
        matrix = self.file.weight(f"{at}/self_attention/linear_0/weight", 3 * channels, channels)
        bias = self.file.weight(f"{at}/self_attention/linear_0/bias", 3 * channels)
        parts = zip("qkv", np.split(matrix, 3), np.split(bias, 3), strict=True)
        heads = []
        for part, rows, added in parts:
            flat = self.linear(f"{name}.{part}_proj", x, rows, None if part == "k" else added)
            heads.append(self.split_heads(f"{name}.{part}_proj", flat, self.length, self.heads, width))
        attended = self.op(f"{name}/Attention", "Attention", *heads, scale=width**-0.5)
        joined = self.join_heads(name, attended, self.length, channels)
        return self.dense(f"{name}.out_proj", f"{at}/self_attention/linear_1", joined, channels, channels)
