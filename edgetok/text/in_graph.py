"""A vocabulary as a graph: one text to a model's inputs, for runtimes that take operators of onnxruntime-extensions.

An operator is taken for a vocabulary only where it cuts as the library does. What surrounds a text, cutting it short
and padding are standard operators. Special tokens that are spelt out in a text are text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from edgetok.errors import InputError, MissingPackage, Refusal
from edgetok.graph import IR_VERSION, Emitter
from edgetok.preprocess import TextPreprocess

if TYPE_CHECKING:
    from edgetok.text.library import TextTokenizer

DOMAIN = "ai.onnx.contrib"
_OPSET = 21  # what onnxruntime 1.23 and newer run beside these operators

# Where pieces, spaces and normalisation differ if they differ at all.
TEXTS = (
    "The river runs under an old stone bridge.",
    "don't DON'T I'LL he's 'tis ''s",
    "a  b   c    d\te\n\nf \r\n g",
    "  spaces around  ",
    "naïve café, cafe\u0301, ﬁn, Ⅷ, ½, ²³, ＡＢＣ",
    "straße ſ ß ẞ ǅ İ ı Σς",
    "x1 12345 3.14159 1,000,000 ١٢٣ ௧௨ ➀",
    "日本語のテキスト、漢字かな交じり文 カー",
    "مرحبا بالعالم ﷽ שלום עולם नमस्ते ไทย 한국어",
    "👩‍👩‍👧‍👦 👍🏽 🇪🇺 ☃️ ❤️‍🔥 \u200b\ufeff\u00a0\u3000",
    "https://example.org/a_b?c=d&e[]=f#g  def f(x): return {x: [1, 2]}  # ok",
    "!!!...??? --- ___ ~~~ «»„“‘’",
    "a" * 300,
)


@dataclass(frozen=True)
class Operator:
    """An operator that cuts a text.

    Attributes:
        kind: its name in DOMAIN.
        attributes: the vocabulary.
        settings: further inputs.
        dtype: of the ids that it gives out.
    """

    kind: str
    attributes: Mapping[str, str | bytes | int]
    settings: tuple[np.ndarray, ...] = ()
    dtype: ir.DataType = ir.DataType.INT64


def build(tokenizer: TextTokenizer, wanted: Mapping[str, TextPreprocess]) -> onnx.ModelProto:
    """Write the graph: `text`, one string, to inputs (1, length) int64 by name.

    Raises:
        Refusal: no operator cuts as the vocabulary does.
    """
    operator, (before, behind) = tokenizer.operator(), _around(tokenizer)
    text = ir.Value(name="text", type=ir.TensorType(ir.DataType.STRING), shape=ir.Shape([1]))
    graph = ir.Graph([text], [], nodes=[], opset_imports={"": _OPSET, DOMAIN: 1}, name="text")
    op = Emitter(graph)
    made = getattr(op, operator.kind)(text, *operator.settings, outputs=2, domain=DOMAIN)
    ids = op.Reshape(op.Cast(made[0], to=ir.DataType.INT64.value), np.array([-1]))  # (tokens,)
    for name, said in wanted.items():
        free = max(0, said.length - len(before) - len(behind))
        cut = op.Slice(ids, np.array([0]), np.array([free]))
        row = op.Concat(np.array(before, np.int64), cut, np.array(behind, np.int64), axis=0)
        row = op.Slice(row, np.array([0]), np.array([said.length]))
        padding = op.Sub(np.array([said.length]), op.Shape(row))
        both = (np.array([0]), padding) if said.pad_side == "right" else (padding, np.array([0]))
        if said.yields != "input_ids":
            row = op.Add(op.Mul(row, np.int64(0)), np.int64(said.yields == "attention_mask"))
        fill = np.int64(said.pad_id if said.yields == "input_ids" else 0)
        out = op.Unsqueeze(op.Pad(row, op.Concat(*both, axis=0), fill), np.array([0]))
        out.name, out.type = name, ir.TensorType(ir.DataType.INT64)
        out.shape = ir.Shape([1, said.length])
        graph.outputs.append(out)
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION))
    (node,) = (node for node in model.graph.node if node.domain == DOMAIN)
    node.attribute.extend(onnx.helper.make_attribute(*each) for each in operator.attributes.items())  # bytes as well
    return model


def check(
    model: onnx.ModelProto, tokenizer: TextTokenizer, texts: Sequence[str], wanted: Mapping[str, TextPreprocess]
) -> None:
    """Compare the graph with the library.

    Raises:
        Refusal: they differ; the text is named.
        MissingPackage: onnxruntime or onnxruntime-extensions is not installed.
    """
    try:
        import onnxruntime
        from onnxruntime_extensions import get_library_path
    except ImportError:
        raise MissingPackage("edgetok[cpu,in-graph]", "checking a text graph") from None
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(get_library_path())
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    differing = []
    for text in texts:
        found = session.run(list(wanted), {"text": np.array([text], object)})
        library = [said.padded(tokenizer.rows([text], said.length)) for said in wanted.values()]
        if not all(map(np.array_equal, found, library)):
            differing.append(text)
    if differing:
        raise Refusal(
            f"the operator cuts {len(differing)} of {len(texts)} texts otherwise than the library, such as "
            f"{differing[0][:60]!r}",
            way_out="tokenize on the host",
        )


def _around(tokenizer: TextTokenizer) -> tuple[list[int], list[int]]:
    """The special tokens in front of a text and behind it."""
    ids, (row, types) = tokenizer.encode("a"), tokenizer.rows(["a"], 1000)[0]
    for start in range(len(row)):
        if ids and row[start : start + len(ids)] == ids and not any(types):
            return row[:start], row[start + len(ids) :]
    raise InputError("the vocabulary changes a text when it puts special tokens around it: tokenize on the host")
