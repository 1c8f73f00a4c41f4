"""manifest.json: one spelling, and nothing but a BundleError for what is no manifest."""

import hashlib
import json
import random
import re

import pytest

from edgetok import __version__
from edgetok.errors import BundleError
from edgetok.manifest import BuiltOn, Fidelity, FileDigest, Manifest, Recipe, Step, canonical_json, decode, encode
from edgetok.model import Origin, TensorSpec

MANIFEST = Manifest(
    source=Origin(kind="onnx", name="vit.onnx", sha256="ab" * 32, licence="Apache-2.0"),
    recipe=Recipe(reduce=("tome:r=16",), dtype="fp16", size=224, min_cosine=0.9),
    tokens=197,
    schedule=(Step(block=0, technique="tome", tokens_in=197, tokens_out=181),),
    inputs=(TensorSpec("image", "float32", ("batch", 3, 224, 224)),),
    outputs=(TensorSpec("pooled", "float16", ("batch", 384)),),
    fidelity=(Fidelity(output="pooled", cosine=0.98765432101, sqnr_db=31.4159265, max_abs=1 / 3, top1=1),),
    tools={"onnx": "1.19.0", "torch": None, "edgetok": "0.1.0"},
    built_on=BuiltOn(machine="aarch64", cpu_features=("asimd", "i8mm")),
    files={"model.onnx": FileDigest(sha256="0" * 64, bytes=12)},
)


def changed(**fields):
    """The bytes of a manifest that somebody spelt and sealed correctly, with other content."""
    body = json.loads(encode(MANIFEST)) | fields
    del body["checksum"]
    return canonical_json(body | {"checksum": hashlib.sha256(canonical_json(body)).hexdigest()})


def test_round_trip():
    read = decode(encode(MANIFEST))
    assert read == MANIFEST
    assert read.inputs[0].shape == ("batch", 3, 224, 224)
    assert encode(read) == encode(MANIFEST)


def test_spelling_is_canonical():
    data = encode(MANIFEST)
    body = json.loads(data)
    assert data.endswith(b"}\n") and data.count(b"\n}\n") == 1
    assert list(body) == sorted(body)
    reordered = MANIFEST.model_copy(update={"tools": dict(reversed(MANIFEST.tools.items()))})
    assert encode(reordered) == data


def test_figures_keep_six_digits():
    (fidelity,) = MANIFEST.fidelity
    assert (fidelity.cosine, fidelity.sqnr_db, fidelity.max_abs) == (0.987654, 31.4159, 0.333333)
    nearly = Fidelity(output="pooled", cosine=0.98765432102, sqnr_db=31.4159266, max_abs=0.33333334, top1=1)
    assert encode(MANIFEST.model_copy(update={"fidelity": (nearly,)})) == encode(MANIFEST)


def test_equal_outputs_have_no_noise_to_state():
    exact = Fidelity(output="pooled", cosine=1, sqnr_db=float("inf"), max_abs=0)
    assert exact.sqnr_db is None
    with pytest.raises(ValueError, match="finite number"):
        Fidelity(output="pooled", cosine=float("nan"), sqnr_db=1, max_abs=0)


def test_newer_version_says_both_and_how_to_upgrade():
    message = (
        f"the bundle has schema version 2, written by edgetok '9.1'; edgetok {__version__} reads version 1: "
        "upgrade: pip install -U edgetok"
    )
    with pytest.raises(BundleError, match=f"^{re.escape(message)}$"):
        decode(b'{"schema_version": 2, "tools": {"edgetok": "9.1"}, "unheard": "of"}')


def test_older_version():
    with pytest.raises(BundleError, match="schema version 0; edgetok .* reads version 1: export it again"):
        decode(b'{"schema_version": 0}')


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "manifest.json is not JSON: Expecting value"),
        (b"\xff\xfe", "manifest.json is not JSON"),
        (b"[" * 100_000, "manifest.json is not JSON"),
        (b'{"schema_version": 1e999}', "manifest.json is not JSON"),
        (b'{"schema_version": ' + b"9" * 5000 + b"}", "manifest.json is not JSON"),
        (b'"\\ud800"', "no manifest of a bundle: it has no schema_version"),
        (b"[1]", "no manifest of a bundle: it has no schema_version"),
        (b'{"schema_version": "1"}', "no manifest of a bundle: it has no schema_version"),
        (b'{"schema_version": 1}', "manifest.json was changed after it was written; copy the bundle anew or export"),
        (encode(MANIFEST) + b"\n", "manifest.json was changed after it was written"),
        (encode(MANIFEST).replace(b"vit.onnx", b"vet.onnx"), "manifest.json was changed after it was written"),
        (changed(surprise=1), "manifest.json: surprise: Extra inputs are not permitted"),
        (changed(tokens="many"), "manifest.json: tokens: Input should be a valid integer"),
        (changed(recipe={"dtype": "fp8"}), "manifest.json: recipe.dtype: Input should be 'fp32', 'fp16' or 'bf16'"),
    ],
)
def test_what_is_no_manifest(data, message):
    with pytest.raises(BundleError, match=re.escape(message)):
        decode(data)


@pytest.mark.parametrize(
    "name",
    ["../model.onnx", "/etc/passwd", "samples/../../x.safetensors", "C:\\model.onnx", "samples\\x.safetensors",
     "manifest.json", "evil.onnx", "model.onnx\n", "samples/.safetensors", "",
     ".model", "a/b.model", "..\\v.tiktoken", "config.json"],
)  # fmt: skip
def test_no_file_outside_the_folder(name):
    files = {name: {"sha256": "0" * 64, "bytes": 1}}
    expected = (
        f"{name!r} is no file of a bundle: model.onnx, model.onnx.data, encode.onnx, decode.onnx, "
        "encode_stream.onnx, decode_stream.onnx, tokenizer.json, tokenizer_config.json, NAME.model, NAME.tiktoken, "
        "samples/NAME.safetensors are"
    )
    with pytest.raises(BundleError, match=re.escape(expected)):
        decode(changed(files=files))


def test_every_flipped_bit_is_found():
    data = encode(MANIFEST)
    for position in range(len(data)):
        for bit in (0x01, 0x20):
            damaged = bytearray(data)
            damaged[position] ^= bit
            with pytest.raises(BundleError):
                decode(bytes(damaged))


def test_random_damage_is_a_bundle_error():
    """Cuts, doublings, foreign bytes and foreign values, also under a correct checksum."""
    generator = random.Random(0)
    data = encode(MANIFEST)
    values = [None, True, -1, 1e308, "", "\x00", "../x", [], {}, [[]], {"a": None}, 10**30]
    for _ in range(2000):
        start, stop = sorted(generator.randrange(len(data) + 1) for _ in range(2))
        damaged = data[:start] + generator.choice([b"", generator.randbytes(3), data[start:stop] * 2]) + data[stop:]
        if damaged != data:
            with pytest.raises(BundleError):
                decode(damaged)
        field = generator.choice([name for name in json.loads(data) if name != "checksum"])
        try:
            decode(changed(**{field: generator.choice(values)}))
        except BundleError:
            continue
