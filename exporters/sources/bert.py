"""BERT encoders, from a Hugging Face folder to a graph without torch.

The graph is spelt as `torch.onnx.export(dynamo=True)` spells transformers' BertModel at opset 23, so that what finds blocks there
finds them here. Token types are all of the first type, as for single texts.

A sentence-transformers folder, whose modules.json names mean pooling, gets the output `sentence_embedding` as well: the mean over the
tokens that are no padding, spelt as Mul by the mask, ReduceSum and Div, and brought to length 1 where the modules say so.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetok.errors import CaptureError, SourceError, UsageError
from edgetok.inputs import example_inputs
from edgetok.model import Captured, Origin, TensorSpec
from edgetok.preprocess.huggingface import from_huggingface, read_json

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

OPSET, IR_VERSION = 23, 10


def capture(folder: Path, origin: Origin, *, length: int = 128, batch: int | None = None, seed: int = 0) -> Captured:
    """Capture a BERT encoder from a folder with config.json, model.safetensors and tokenizer.json.

    Args:
        folder: the Hugging Face folder.
        origin: what the manifest shall say of the source.
        length: tokens per text.
        batch: texts per run; free where not given.
        seed: of the example.
    """
    preprocess = from_huggingface(folder, read_json(folder / "config.json"), length=length)
    model = build_bert(folder, length, batch)
    inputs = tuple(
        TensorSpec(value.name, "int64", _shape(value), preprocess.get(value.name)) for value in model.graph.inputs
    )
    tokenizer = folder / "tokenizer.json"
    return Captured(
        model=model,
        inputs=inputs,
        outputs=tuple(TensorSpec(value.name, "float32", _shape(value), None) for value in model.graph.outputs),
        origin=origin,
        # Built anew for each run: techniques change `model` in place, and a second copy of the weights is not kept.
        reference=lambda feeds: _run(build_bert(folder, length, batch), feeds),
        example=example_inputs(inputs, folder, batch=batch or 2, seed=seed),
        files={tokenizer.name: tokenizer} if tokenizer.is_file() else {},
    )


def build_bert(folder: Path, length: int, batch: int | None = None) -> "ir.Model":
    """Build the graph of a BERT encoder: `input_ids` and `attention_mask` to `last_hidden_state`."""
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    config = _Config.read(folder, length)
    build = _Builder(_Weights(folder), config)
    axis = "batch" if batch is None else batch
    ids, mask = (
        ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([axis, length]))
        for name in ("input_ids", "attention_mask")
    )
    hidden = build.embeddings(ids)
    attended = build.attention_mask(mask)
    for layer in range(config.layers):
        hidden = build.block(f"encoder.layer.{layer}", hidden, attended, last=layer == config.layers - 1)
    outputs = [hidden, *build.sentence_embedding(hidden, mask, *_pooling(folder))]
    for output in outputs:
        output.type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [ids, mask],
        outputs,
        nodes=build.tape.nodes,
        initializers=build.tape.initializers,
        opset_imports={"": OPSET},
        name="bert",
    )
    model = ir.Model(graph, ir_version=IR_VERSION, producer_name="edgetok")
    model = ShapeInferencePass()(model).model
    for node in model.graph:
        for value in node.outputs:  # a free axis is the batch, though behind a Reshape inference no longer knows it
            if value.shape is not None:
                value.shape = ir.Shape([size if isinstance(size, int) else axis for size in value.shape])
    return model


@dataclass(frozen=True)
class _Config:
    """What of config.json shapes the graph."""

    layers: int
    hidden: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float
    activation: str
    length: int

    @classmethod
    def read(cls, folder: Path, length: int) -> "_Config":
        content = read_json(folder / "config.json")
        kind, positions = content.get("model_type"), content.get("position_embedding_type", "absolute")
        if kind != "bert" or content.get("is_decoder"):
            raise CaptureError(f"model_type {kind!r} is not a BERT encoder: only these are built without torch")
        if positions != "absolute":
            raise CaptureError(f"position_embedding_type {positions!r} is not supported: only 'absolute' is")
        if content["hidden_act"] not in _ACTIVATIONS:
            raise CaptureError(f"hidden_act {content['hidden_act']!r} is not supported: only {', '.join(_ACTIVATIONS)} are")
        if not 2 < length <= content["max_position_embeddings"]:
            raise UsageError(f"--length {length}: the model takes 3 to {content['max_position_embeddings']} tokens")
        return cls(
            layers=content["num_hidden_layers"],
            hidden=content["hidden_size"],
            heads=content["num_attention_heads"],
            inner=content["intermediate_size"],
            vocabulary=content["vocab_size"],
            positions=content["max_position_embeddings"],
            token_types=content["type_vocab_size"],
            epsilon=content["layer_norm_eps"],
            activation=content["hidden_act"],
            length=length,
        )


_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("Gelu", {"approximate": "none"}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}


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

    def __call__(self, name: str, *shape: int) -> "np.ndarray":
        import numpy as np
        from safetensors import SafetensorError

        try:
            tensor = self._file.get_tensor(self._prefix + name)
        except SafetensorError as error:
            raise SourceError(f"model.safetensors has no {self._prefix + name}, which its config.json asks for") from error
        if tensor.shape != shape:
            raise SourceError(f"model.safetensors: {self._prefix + name} is {tensor.shape}, config.json says {shape}")
        return tensor.astype(np.float32, copy=False)


class _Builder:
    """Writes nodes; N is the length, C the hidden size, h the heads, d = C / h."""

    def __init__(self, weights: _Weights, config: _Config):
        import onnx_ir as ir

        self.tape, self._ir = ir.tape.Tape(), ir
        self.weights, self.config = weights, config
        self._shared: dict[tuple[int, ...], ir.Value] = {}

    def op(self, name: str, kind: str, *inputs: "ir.Value", **attributes: Any) -> "ir.Value":
        value = self.tape.op(kind, inputs, attributes, name=name)
        value.name = name
        return value

    def constant(self, name: str, array: "np.ndarray") -> "ir.Value":
        return self.tape.initializer(self._ir.tensor(array, name=name))

    def integers(self, *numbers: int) -> "ir.Value":
        """A shape or a list of axes, one initializer for all that are equal."""
        import numpy as np

        if numbers not in self._shared:
            self._shared[numbers] = self.constant(f"integers_{len(self._shared)}", np.array(numbers, np.int64))
        return self._shared[numbers]

    def linear(self, name: str, x: "ir.Value", width: int, out: int) -> "ir.Value":
        # Stored as a view: transposed when the model is written, so that no second copy lives here.
        weight = self.constant(f"{name}.weight", self.weights(f"{name}.weight", out, width).T)
        bias = self.constant(f"{name}.bias", self.weights(f"{name}.bias", out))
        return self.op(f"{name}/Add", "Add", self.op(f"{name}/MatMul", "MatMul", x, weight), bias)

    def layer_norm(self, name: str, x: "ir.Value", out: str | None = None) -> "ir.Value":
        scale, bias = (self.constant(f"{name}.{part}", self.weights(f"{name}.{part}", self.config.hidden)) for part in ("weight", "bias"))
        return self.op(out or name, "LayerNormalization", x, scale, bias, axis=-1, epsilon=self.config.epsilon, stash_type=1)

    def embeddings(self, ids: "ir.Value") -> "ir.Value":
        config, name = self.config, "embeddings"
        words = self.weights(f"{name}.word_embeddings.weight", config.vocabulary, config.hidden)
        positions = self.weights(f"{name}.position_embeddings.weight", config.positions, config.hidden)
        types = self.weights(f"{name}.token_type_embeddings.weight", config.token_types, config.hidden)
        word = self.op(f"{name}/words", "Gather", self.constant(f"{name}.word_embeddings.weight", words), ids, axis=0)
        place = self.constant(f"{name}.places", (positions[: config.length] + types[0])[None])  # [1, N, C]
        return self.layer_norm(f"{name}.LayerNorm", self.op(f"{name}/Add", "Add", word, place))

    def attention_mask(self, mask: "ir.Value") -> "ir.Value":
        """[batch, N] of 0 and 1 to [batch, 1, N, N]: onnxruntime's CPU kernel takes no mask that is to be broadcast."""
        import numpy as np

        keys = self.op("mask/Cast", "Cast", mask, to=self._ir.DataType.BOOL.value)
        keys = self.op("mask/Unsqueeze", "Unsqueeze", keys, self.integers(1, 2))  # [batch, 1, 1, N]
        queries = self.constant("mask.queries", np.ones((1, 1, self.config.length, 1), np.bool_))
        return self.op("mask/And", "And", queries, keys)

    def block(self, name: str, x: "ir.Value", mask: "ir.Value", last: bool) -> "ir.Value":
        config = self.config
        attention = self._attention(f"{name}.attention", x, mask)
        x = self.layer_norm(f"{name}.attention.output.LayerNorm", self.op(f"{name}.attention/Add", "Add", attention, x))
        kind, attributes = _ACTIVATIONS[config.activation]
        inner = self.linear(f"{name}.intermediate.dense", x, config.hidden, config.inner)
        inner = self.op(f"{name}.intermediate/{kind}", kind, inner, **attributes)
        mlp = self.linear(f"{name}.output.dense", inner, config.inner, config.hidden)
        total = self.op(f"{name}.output/Add", "Add", mlp, x)
        return self.layer_norm(f"{name}.output.LayerNorm", total, out="last_hidden_state" if last else None)

    def _attention(self, name: str, x: "ir.Value", mask: "ir.Value") -> "ir.Value":
        config = self.config
        width = config.hidden // config.heads
        heads = []
        for part in ("query", "key", "value"):
            flat = self.linear(f"{name}.self.{part}", x, config.hidden, config.hidden)
            split = self.op(f"{name}.self.{part}/Reshape", "Reshape", flat, self.integers(-1, config.length, config.heads, width))
            heads.append(self.op(f"{name}.self.{part}/Transpose", "Transpose", split, perm=[0, 2, 1, 3]))  # [b, h, N, d]
        attended = self.op(f"{name}.self/Attention", "Attention", *heads, mask, scale=width**-0.5)
        joined = self.op(f"{name}.self/Transpose", "Transpose", attended, perm=[0, 2, 1, 3])
        joined = self.op(f"{name}.self/Reshape", "Reshape", joined, self.integers(-1, config.length, config.hidden))
        return self.linear(f"{name}.output.dense", joined, config.hidden, config.hidden)

    def sentence_embedding(self, tokens: "ir.Value", mask: "ir.Value", mean: bool, unit: bool) -> "list[ir.Value]":
        """The mean over the tokens that are no padding, if it is wanted."""
        import numpy as np

        if not mean:
            return []
        weights = self.op("pooling/Cast", "Cast", mask, to=self._ir.DataType.FLOAT.value)
        weights = self.op("pooling/Unsqueeze", "Unsqueeze", weights, self.integers(-1))  # [batch, N, 1]
        total = self.op("pooling/Sum", "ReduceSum", self.op("pooling/Mul", "Mul", tokens, weights), self.integers(1), keepdims=0)
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
    import json

    file = folder / "modules.json"
    if not file.is_file():
        return False, False
    modules = json.loads(file.read_text(encoding="utf-8"))
    kinds = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in modules}
    if "Pooling" not in kinds:
        return False, False
    modes = read_json(folder / kinds["Pooling"] / "config.json")
    chosen = [name for name, value in modes.items() if name.startswith("pooling_mode") and value is True]
    return chosen == ["pooling_mode_mean_tokens"], "Normalize" in kinds


def _shape(value: "ir.Value") -> tuple[int | str, ...]:
    return tuple(size if isinstance(size, int) else str(size) for size in value.shape)


def _run(model: "ir.Model", feeds: "dict[str, np.ndarray]") -> "dict[str, np.ndarray]":
    """Run a graph on stock onnxruntime."""
    import onnx_ir as ir
    import onnxruntime

    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))
