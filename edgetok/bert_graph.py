"""BERT encoders, from a Hugging Face folder to a graph without torch.

Spelt as transformers' BertModel comes out of the exporter. Token types are all of the first type, as for single texts.

A sentence-transformers folder, whose modules.json names mean pooling, gets the output `sentence_embedding` as well: the
mean over the tokens that are no padding, spelt as Mul by the mask, ReduceSum and Div, and brought to length 1 where the
modules say so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError

from edgetok.errors import CaptureError, SourceError, UsageError
from edgetok.graph_builder import GraphBuilder
from edgetok.preprocess.huggingface import read_json


def build_bert(folder: Path, length: int, batch: int | None = None) -> ir.Model:
    """Build the graph of a BERT encoder: `input_ids` and `attention_mask` to `last_hidden_state`."""
    config = _Config.read(folder)
    if not 2 < length <= config.max_position_embeddings:  # [CLS], [SEP] and something between
        raise UsageError(f"--length {length}: the model takes 3 to {config.max_position_embeddings} tokens")
    build = _Builder(_Weights(folder), config, length, batch)
    ids, mask = (build.input(name, ir.DataType.INT64, length) for name in ("input_ids", "attention_mask"))
    hidden = build.embeddings(ids)
    attended = build.keys_allowed(mask, np.ones((1, 1, length, 1), np.bool_))
    for layer in range(config.num_hidden_layers):
        hidden = build.block(f"encoder.layer.{layer}", hidden, attended, last=layer == config.num_hidden_layers - 1)
    return build.model("bert", [ids, mask], [hidden, *build.sentence_embedding(hidden, mask, *_pooling(folder))])


_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("Gelu", {"approximate": "none"}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}


class _Config(BaseModel):
    """What of config.json shapes the graph, under the names it has there."""

    model_config = ConfigDict(frozen=True)
    model_type: Literal["bert"]
    is_decoder: Literal[False] = False
    position_embedding_type: Literal["absolute"] = "absolute"
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    intermediate_size: PositiveInt
    vocab_size: PositiveInt
    max_position_embeddings: PositiveInt
    type_vocab_size: PositiveInt
    layer_norm_eps: PositiveFloat

    @classmethod
    def read(cls, folder: Path) -> _Config:
        try:
            config = cls.model_validate(read_json(folder / "config.json"))
        except ValidationError as error:
            wrong = error.errors()[0]
            if wrong["type"] == "missing":
                raise CaptureError(f"config.json has no {wrong['loc'][0]}") from error
            raise CaptureError(
                "config.json is not of a BERT encoder that can be built without torch: "
                f"{wrong['loc'][0]}: {wrong['msg']}, not {wrong['input']!r}"
            ) from error
        if config.hidden_size % config.num_attention_heads:
            raise SourceError(
                f"config.json: hidden_size {config.hidden_size} is no multiple of "
                f"num_attention_heads {config.num_attention_heads}"
            )
        return config


class _Weights:
    """The tensors of model.safetensors, one at a time, as float32."""

    def __init__(self, folder: Path):
        from safetensors import SafetensorError, safe_open

        file = folder / "model.safetensors"
        if not file.is_file():
            pickled = (folder / "pytorch_model.bin").is_file()
            why = "pytorch_model.bin is a pickle, which can run any code: save it" if pickled else "save the model"
            raise SourceError(f"there is no model.safetensors in {folder.name}/: {why} with save_pretrained()")
        try:
            self._file = safe_open(file, "numpy")
        except (SafetensorError, OSError) as error:
            raise SourceError(f"{file.name} cannot be read, it may be truncated: {error}") from error
        # "bert." in the checkpoints of models with a head
        self._prefix = "" if "embeddings.word_embeddings.weight" in self._file.keys() else "bert."  # noqa: SIM118

    def __call__(self, name: str, *shape: int) -> np.ndarray:
        from safetensors import SafetensorError

        try:
            tensor = self._file.get_tensor(self._prefix + name)
        except SafetensorError as error:
            raise SourceError(
                f"model.safetensors has no {self._prefix + name}, which its config.json asks for"
            ) from error
        if tensor.shape != shape:
            raise SourceError(f"model.safetensors: {self._prefix + name} is {tensor.shape}, config.json says {shape}")
        values: np.ndarray = tensor.astype(np.float32, copy=False)
        return values


class _Builder(GraphBuilder):
    """C is the hidden size, h the heads, d = C / h."""

    def __init__(self, weights: _Weights, config: _Config, length: int, batch: int | None):
        super().__init__(batch)
        self.weights, self.config, self.length = weights, config, length

    def dense(self, name: str, x: ir.Value, width: int, out: int) -> ir.Value:
        weight, bias = self.weights(f"{name}.weight", out, width), self.weights(f"{name}.bias", out)
        return self.linear(name, x, weight, bias)

    def norm(self, name: str, x: ir.Value, out: str | None = None) -> ir.Value:
        scale, bias = (self.weights(f"{name}.{part}", self.config.hidden_size) for part in ("weight", "bias"))
        return self.layer_norm(out or name, x, scale, bias, self.config.layer_norm_eps)

    def embeddings(self, ids: ir.Value) -> ir.Value:
        config, name = self.config, "embeddings"
        words = self.weights(f"{name}.word_embeddings.weight", config.vocab_size, config.hidden_size)
        positions = self.weights(
            f"{name}.position_embeddings.weight", config.max_position_embeddings, config.hidden_size
        )
        types = self.weights(f"{name}.token_type_embeddings.weight", config.type_vocab_size, config.hidden_size)
        word = self.op(f"{name}/words", "Gather", self.constant(f"{name}.word_embeddings.weight", words), ids, axis=0)
        place = self.constant(f"{name}.places", (positions[: self.length] + types[0])[None])  # [1, N, C]
        return self.norm(f"{name}.LayerNorm", self.op(f"{name}/Add", "Add", word, place))

    def block(self, name: str, x: ir.Value, mask: ir.Value, last: bool) -> ir.Value:
        config = self.config
        attention = self._attention(f"{name}.attention", x, mask)
        x = self.norm(f"{name}.attention.output.LayerNorm", self.op(f"{name}.attention/Add", "Add", attention, x))
        kind, attributes = _ACTIVATIONS[config.hidden_act]
        inner = self.dense(f"{name}.intermediate.dense", x, config.hidden_size, config.intermediate_size)
        inner = self.op(f"{name}.intermediate/{kind}", kind, inner, **attributes)
        mlp = self.dense(f"{name}.output.dense", inner, config.intermediate_size, config.hidden_size)
        total = self.op(f"{name}.output/Add", "Add", mlp, x)
        return self.norm(f"{name}.output.LayerNorm", total, out="last_hidden_state" if last else None)

    def _attention(self, name: str, x: ir.Value, mask: ir.Value) -> ir.Value:
        config = self.config
        width = config.hidden_size // config.num_attention_heads
        heads = []
        for part in ("query", "key", "value"):
            flat = self.dense(f"{name}.self.{part}", x, config.hidden_size, config.hidden_size)
            heads.append(self.split_heads(f"{name}.self.{part}", flat, self.length, config.num_attention_heads, width))
        attended = self.op(f"{name}.self/Attention", "Attention", *heads, mask, scale=width**-0.5)
        joined = self.join_heads(f"{name}.self", attended, self.length, config.hidden_size)
        return self.dense(f"{name}.output.dense", joined, config.hidden_size, config.hidden_size)

    def sentence_embedding(self, tokens: ir.Value, mask: ir.Value, mean: bool, unit: bool) -> list[ir.Value]:
        """The mean over the tokens that are no padding, if it is wanted."""
        if not mean:
            return []
        weights = self.op("pooling/Cast", "Cast", mask, to=ir.DataType.FLOAT.value)
        weights = self.op("pooling/Unsqueeze", "Unsqueeze", weights, self.integers(-1))  # [batch, N, 1]
        total = self.op(
            "pooling/Sum", "ReduceSum", self.op("pooling/Mul", "Mul", tokens, weights), self.integers(1), keepdims=0
        )
        count = self.op("pooling/Count", "ReduceSum", weights, self.integers(1), keepdims=0)  # [batch, 1]
        one = self.constant("pooling.one", np.array(1, np.float32))
        count = self.op("pooling/Max", "Max", count, one)  # a row of nothing but padding gives zeros
        result = self.op("pooling/Div" if unit else "sentence_embedding", "Div", total, count)
        if unit:
            norm = self.op("normalize/ReduceL2", "ReduceL2", result, self.integers(-1), keepdims=1)
            tiny = self.constant("normalize.tiny", np.array(1e-6, np.float32))  # one that fp16 has as well
            norm = self.op("normalize/Max", "Max", norm, tiny)
            result = self.op("sentence_embedding", "Div", result, norm)
        return [result]


def _pooling(folder: Path) -> tuple[bool, bool]:
    """Whether the folder's modules end in mean pooling, and in bringing its result to length 1."""
    file = folder / "modules.json"
    if not file.is_file():
        return False, False
    try:
        modules = json.loads(file.read_text(encoding="utf-8"))
        kinds = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in modules}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(f"modules.json is not a list of modules, each with its type and path: {error!r}") from error
    if "Pooling" not in kinds:
        return False, False
    pooling = folder / str(kinds["Pooling"])
    if not pooling.resolve().is_relative_to(folder.resolve()):
        raise SourceError(f"modules.json points outside its folder: {kinds['Pooling']!r}")
    modes = read_json(pooling / "config.json")
    chosen = [name for name, value in modes.items() if name.startswith("pooling_mode") and value is True]
    return chosen == ["pooling_mode_mean_tokens"], "Normalize" in kinds
