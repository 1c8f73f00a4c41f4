"""Small Llamas, from a GGUF file to a graph without torch: one forward pass over a prompt of N tokens.

Spelt as transformers' LlamaForCausalLM comes out of the exporter, but for three things. Queries share keys inside the
Attention node, not by repeating them. The rotation is Split, Concat, two Mul and an Add, with the sign in the table of
sines. And the mask lets each position see itself, padding too, so that no row of attention is empty; tokens see what
they always see.

GGUF stores the rows of q and k so that a rotation turns neighbours; here they are put back into halves, as transformers
has them. Rows keep their order within, so blocks of weights that share a scale stay together.

The weights stay compressed in the file until somebody needs one: in fp32 SmolLM2's 98 MB are 540.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError

from edgetok.errors import CaptureError, UsageError
from edgetok.gguf_file import GgufFile
from edgetok.graph_builder import GraphBuilder

# Names in the file of what the configuration calls otherwise.
_FIELDS = {
    "hidden_size": "embedding_length",
    "layers": "block_count",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
    "intermediate_size": "feed_forward_length",
    "vocab_size": "vocab_size",
    "context": "context_length",
    "rotated": "rope.dimension_count",
    "rope_base": "rope.freq_base",
    "epsilon": "attention.layer_norm_rms_epsilon",
}


def build_llama(file: GgufFile, length: int, batch: int | None = None) -> ir.Model:
    """Build the graph of a Llama with a tied head: `input_ids` and `attention_mask` to `logits` (B, N, vocabulary).

    Raises:
        CaptureError: the file holds another kind of model.
        SourceError: a weight is missing, or has another shape than the file's metadata say.
        UsageError: more tokens than the model takes.
    """
    config = Config.read(file)
    if not 1 < length <= config.context:
        raise UsageError(f"--length {length}: the model takes 2 to {config.context} tokens")
    build = _Builder(file, config, length, batch)
    ids, mask = (build.input(name, ir.DataType.INT64, length) for name in ("input_ids", "attention_mask"))
    words = build.weight("token_embd.weight", config.vocab_size, config.hidden_size)
    hidden = build.op("embed_tokens", "Gather", words, ids, axis=0)
    allowed = build.mask(mask)
    for layer in range(config.layers):
        hidden = build.block(f"blk.{layer}", hidden, allowed)
    hidden = build.norm("output_norm", hidden)
    head = build.op("lm_head/Transpose", "Transpose", words, perm=[1, 0])  # tied: runtimes turn it around at loading
    return build.model("llama", [ids, mask], [build.op("logits", "MatMul", hidden, head)])


class Config(BaseModel):
    """What of the metadata shapes the graph."""

    model_config = ConfigDict(frozen=True)
    hidden_size: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    intermediate_size: PositiveInt
    vocab_size: PositiveInt
    context: PositiveInt
    rotated: PositiveInt
    rope_base: PositiveFloat
    epsilon: PositiveFloat

    @property
    def width(self) -> int:
        """Of a head, d."""
        return self.hidden_size // self.heads

    @classmethod
    def read(cls, file: GgufFile) -> Config:
        """Read and check it.

        Raises:
            CaptureError: the file holds another kind of model.
        """
        architecture = file.field("general.architecture")
        if architecture != "llama":
            raise CaptureError(f"{file.name} holds a model of the architecture {architecture!r}; accepted is 'llama'")
        if (scaling := file.field("llama.rope.scaling.type")) not in (None, "none"):
            raise CaptureError(f"{file.name} stretches its rotation ({scaling!r}); accepted is a plain one")
        try:
            config = cls.model_validate({key: file.field(f"llama.{name}") for key, name in _FIELDS.items()})
        except ValidationError as error:
            wrong = error.errors()[0]
            name = _FIELDS[str(wrong["loc"][0])]
            raise CaptureError(f"{file.name}: llama.{name}: {wrong['msg']}, not {wrong['input']!r}") from error
        if config.hidden_size % config.heads or config.heads % config.kv_heads or config.rotated != config.width:
            raise CaptureError(
                f"{file.name} has {config.heads} heads over {config.kv_heads} for {config.hidden_size} channels, of "
                f"which {config.rotated} a head are rotated; accepted are whole heads, rotated as a whole"
            )
        return config


class _Builder(GraphBuilder):
    """C is the hidden size, h the heads, d = C / h."""

    def __init__(self, file: GgufFile, config: Config, length: int, batch: int | None):
        super().__init__(batch)
        self.file, self.config, self.length = file, config, length
        angles = np.arange(length)[:, None] * config.rope_base ** (-np.arange(0, config.width, 2) / config.width)
        tables = {"cos": [np.cos(angles)] * 2, "sin": [-np.sin(angles), np.sin(angles)]}
        self.cos, self.sin = (
            self.constant(f"rotation.{name}", np.concatenate(halves, axis=1, dtype=np.float32)[None, None])
            for name, halves in tables.items()  # (1, 1, N, d)
        )

    def weight(self, name: str, *shape: int) -> ir.Value:
        self.file.check(name, *shape)
        return self.late_constant(name, shape, lambda: self.file.weight(name))

    def dense(self, name: str, x: ir.Value, width: int, out: int, heads: int | None = None) -> ir.Value:
        """Of q and k `heads` are given, whose rows are put back into halves."""
        self.file.check(f"{name}.weight", out, width)

        def read() -> np.ndarray:
            matrix = self.file.weight(f"{name}.weight")
            return (matrix if heads is None else in_halves(matrix, heads)).T

        return self.op(f"{name}/MatMul", "MatMul", x, self.late_constant(f"{name}.weight", (width, out), read))

    def norm(self, name: str, x: ir.Value) -> ir.Value:
        scale = self.weight(f"{name}.weight", self.config.hidden_size)
        return self.op(name, "RMSNormalization", x, scale, axis=-1, epsilon=self.config.epsilon, stash_type=1)

    def mask(self, mask: ir.Value) -> ir.Value:
        """(B, N) to (B, 1, N, N): each position sees itself and the tokens before it."""
        before = np.tril(np.ones((self.length, self.length), np.bool_), -1)[None, None]
        itself = self.constant("mask.itself", np.eye(self.length, dtype=np.bool_)[None, None])
        return self.op("mask/Or", "Or", self.keys_allowed(mask, before), itself)

    def block(self, name: str, x: ir.Value, mask: ir.Value) -> ir.Value:
        x = self.op(f"{name}.attn/Add", "Add", x, self._attention(name, self.norm(f"{name}.attn_norm", x), mask))
        return self.op(f"{name}.ffn/Add", "Add", x, self._gated(name, self.norm(f"{name}.ffn_norm", x)))

    def _attention(self, name: str, x: ir.Value, mask: ir.Value) -> ir.Value:
        config = self.config
        heads = []
        for part, count in (("q", config.heads), ("k", config.kv_heads), ("v", config.kv_heads)):
            turned = count if part != "v" else None
            flat = self.dense(f"{name}.attn_{part}", x, config.hidden_size, count * config.width, turned)
            split = self.split_heads(f"{name}.attn_{part}", flat, self.length, count, config.width)
            heads.append(split if part == "v" else self._rotate(f"{name}.attn_{part}", split))
        attended = self.op(f"{name}.attn/Attention", "Attention", *heads, mask, scale=config.width**-0.5)
        joined = self.join_heads(f"{name}.attn", attended, self.length, config.hidden_size)
        return self.dense(f"{name}.attn_output", joined, config.hidden_size, config.hidden_size)

    def _rotate(self, name: str, x: ir.Value) -> ir.Value:
        """(B, h, N, d): the halves a, b of a head become a cos - b sin, b cos + a sin."""
        first, second = self.halves(f"{name}/Split", x)
        swapped = self.op(f"{name}/Concat", "Concat", second, first, axis=-1)
        cosines = self.op(f"{name}/Mul.cos", "Mul", x, self.cos)
        return self.op(f"{name}/Add", "Add", cosines, self.op(f"{name}/Mul.sin", "Mul", swapped, self.sin))

    def _gated(self, name: str, x: ir.Value) -> ir.Value:
        """SwiGLU."""
        width, inner = self.config.hidden_size, self.config.intermediate_size
        gate = self.dense(f"{name}.ffn_gate", x, width, inner)
        gate = self.op(f"{name}.ffn/Mul.gate", "Mul", gate, self.op(f"{name}.ffn/Sigmoid", "Sigmoid", gate))
        up = self.op(f"{name}.ffn/Mul", "Mul", gate, self.dense(f"{name}.ffn_up", x, width, inner))
        return self.dense(f"{name}.ffn_down", up, inner, width)


def in_halves(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows (h d, ...) whose rotated pairs are neighbours -> rows whose pairs are d / 2 apart."""
    rows = matrix.reshape(heads, -1, 2, *matrix.shape[1:])
    return rows.swapaxes(1, 2).reshape(matrix.shape)
