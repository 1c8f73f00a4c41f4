"""A Hugging Face folder with a BERT encoder, captured without torch (see edgetok/bert_graph.py)."""

from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.bert_graph import build_bert
from edgetok.inputs import example_inputs
from edgetok.model import Captured, Origin, TensorSpec
from edgetok.preprocess.huggingface import from_huggingface, read_json

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from edgetok.preprocess import Preprocess


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
    inputs = tuple(_spec(value, "int64", preprocess) for value in model.graph.inputs)
    tokenizer = folder / "tokenizer.json"
    return Captured(
        model=model,
        inputs=inputs,
        outputs=tuple(_spec(value, "float32", {}) for value in model.graph.outputs),
        origin=origin,
        # Built anew for each run: techniques change `model` in place, and a second copy of the weights is not kept.
        reference=lambda feeds: _run(build_bert(folder, length, batch), feeds),
        example=example_inputs(inputs, folder, batch=batch or 2, seed=seed),
        files={tokenizer.name: tokenizer} if tokenizer.is_file() else {},
    )


def _spec(value: "ir.Value", dtype: str, preprocess: "dict[str, Preprocess]") -> TensorSpec:
    name, shape = str(value.name), tuple(value.shape or ())
    return TensorSpec(name, dtype, tuple(n if isinstance(n, int) else str(n) for n in shape), preprocess.get(name))


def _run(model: "ir.Model", feeds: "dict[str, np.ndarray]") -> "dict[str, np.ndarray]":
    """Run a graph on stock onnxruntime."""
    import onnx_ir as ir
    import onnxruntime

    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))
