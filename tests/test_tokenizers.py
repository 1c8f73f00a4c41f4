"""Tokenizer bundles: every family from a model to files and back, the commands, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers as tf
from PIL import Image

from edgetok import api
from edgetok.bundle import open_bundle, write_bundle
from edgetok.errors import BundleError, InputError, OutputError, ParityError, SourceError, UsageError
from edgetok.exporters.sources import CaptureOptions
from edgetok.exporters.sources.tokenizer import capture_tokenizer
from edgetok.fidelity import check_exact
from edgetok.manifest import decode, encode
from edgetok.model import Origin
from edgetok.tokenizer import family as families
from edgetok.tokenizer.tokens import Tokens, read, write
from edgetok.tokenizer.waveform import Waveform
from tests import codecs, near_ties, test_latent_tokenizers
from tests.comparison import check_values, run, session
from tests.test_cli import edgetok
from tests.test_shipped_tokenizers import near_ties_of
from tests.test_wavtokenizer import model as wavtokenizer


def vqgan(name: str) -> torch.nn.Module:
    """Small ones with drawn weights, codebooks spread out so that many codes are near to something."""
    from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE
    from transformers.models.janus.modeling_janus import JanusVQVAE

    torch.manual_seed(0)
    small = {"base_channels": 32, "channel_multiplier": [1, 2], "num_res_blocks": 1}
    model = {
        "chameleon": lambda: ChameleonVQVAE(tf.ChameleonVQVAEConfig(
            **small, embed_dim=8, num_embeddings=64, latent_channels=8, resolution=16)),
        "janus": lambda: JanusVQVAE(tf.JanusVQVAEConfig(
            **small, embed_dim=8, num_embeddings=64, latent_channels=8, num_patches=8)),
        "emu3": lambda: tf.Emu3VQVAE(tf.Emu3VQVAEConfig(
            **small, embed_dim=4, latent_channels=4, codebook_size=64, temporal_downsample_factor=2, hidden_size=64)),
    }[name]()  # fmt: skip
    return codecs.frozen(model)


LATENT = test_latent_tokenizers.CASES
MODELS = {
    "dac": codecs.dac,
    "encodec": codecs.encodec,
    "encodec-48k": codecs.encodec_48k,
    "mimi": codecs.mimi,
    "wavtokenizer": wavtokenizer,
    "xcodec": codecs.xcodec,
    "xcodec2": codecs.xcodec2,
    **{name: case.make for name, case in LATENT.items()},
    **{name: partial(vqgan, name) for name in ("chameleon", "janus", "emu3")},
}
QUICK = {"dac", "one-d-piece", "janus", "larp"}
NAMES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.more) for name in MODELS]
SIZES = {"chameleon": (16, 24), "emu3": (16, 24)}


@cache
def captured(name: str):
    """The graphs, and (ids, signal) -> how many ids are not PyTorch's; all of those have to be near-ties."""
    model, size = MODELS[name](), SIZES.get(name)
    kind = families.family_of(model)
    assert kind is not None
    made = capture_tokenizer(model, kind, Origin("callable", name), CaptureOptions(size=size))
    encode = families.load(kind).parts(model, None, size).encode

    def differing(got: torch.Tensor, signal: np.ndarray) -> int:
        wanted = torch.from_numpy(made.reference({made.inputs[0].name: signal})["ids"])
        return near_ties.differing(got, wanted, kind, encode, torch.from_numpy(signal))

    return made, differing


@pytest.mark.parametrize("name", NAMES)
def test_ids_and_signals_are_pytorch_s(name):
    """Of real sounds and soft pictures, batch 1 and 3; the decoder also of the first tokens, where these suffice."""
    made, differing = captured(name)
    described, (given,) = made.tokenizer, made.inputs
    encoder = session(made.model)
    shape = [size if isinstance(size, int) else made.example[given.name].shape[i] for i, size in enumerate(given.shape)]
    for batch in (1, 3):
        feeds = {given.name: described.signal.example((batch, *shape[1:])).astype(np.float32)}
        wanted = made.reference(feeds)
        got = run(encoder, {key: torch.from_numpy(value) for key, value in feeds.items()})
        assert got["ids"].shape == described.layout.shape(batch, got["ids"].shape[1])
        print(f"{differing(got['ids'], feeds[given.name])} of {got['ids'].numel()} ids differ, at near-ties")
        assert all(got["ids"][..., i].min() >= 0 and got["ids"][..., i].max() < size
                   for i, size in enumerate(described.sizes)) or len(described.sizes) == 1  # fmt: skip
        if made.decoder is None:
            assert name == "chameleon"
            continue
        decoder = session(made.decoder.model)
        for count in {got["ids"].shape[1], 3 if described.keep == "tokens" else got["ids"].shape[1]}:
            feeds = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in wanted.items()}
            feeds["ids"] = feeds["ids"][:, :count]
            right = {key: torch.from_numpy(value) for key, value in
                     made.decoder.reference({key: value.numpy() for key, value in feeds.items()}).items()}  # fmt: skip
            check_values(run(decoder, feeds), right, right)


@pytest.mark.more
def test_emu3_decodes_as_transformers_does():
    """All frames there, the first one here; in fp64, for each adds up in an order of its own."""
    model = MODELS["emu3"]().eval().double()
    decode = families.load("vq-image").parts(model, None, SIZES["emu3"]).decode
    ids = torch.randint(0, model.config.codebook_size, (3, *decode.grid), generator=torch.manual_seed(0))
    with torch.no_grad():
        wanted, got = model.decode(ids), decode(ids.flatten(1))["picture"]
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_ids_of_a_captured_graph_are_held_to_near_ties(name):
    """PyTorch's own ids are that, or the best; a single one that is far from both is refused, and named as such."""
    made, _ = captured(name)
    ids = made.reference(made.example)["ids"]
    judged = partial(made.check_near_ties, made.example)
    judged(ids)
    assert check_exact({"ids": ids}, {"ids": ids}, judged) == ()
    wrong = ids.copy()
    wrong.flat[-1] = (wrong.flat[-1] + 1) % made.tokenizer.sizes[-1]
    told = f"1 of {ids.size} 'ids' are not the original's, and 1 of .* are no near-ties: .*; please report"
    with pytest.raises(ParityError, match=told):
        check_exact({"ids": wrong}, {"ids": ids}, judged)


def odd_signals(signal, shape, photograph, folder):
    """Files that are no whole pieces, as the family reads them: (1, channels, ...) each."""
    if signal.kind == "video":
        yield signal.example((1, shape[0], signal.frames + 1, *shape[2:])).astype(np.float32)
        yield signal.example((1, shape[0], 1, *shape[2:])).astype(np.float32)
    elif signal.kind == "picture":
        height, width = shape[1:]
        with Image.open(photograph) as whole:
            for up, left in ((1, -1), (-1, 0), (0, 1)):
                whole.resize((width + left, height + up)).save(folder / "odd.png")
                yield signal.read(str(folder / "odd.png")).array
    else:
        piece, sound = signal.length or shape[1], codecs.speech(signal.rate, 3 * shape[1], 1, 2)[0].T.numpy()
        for samples, channels in ((1, 1), (piece - 1, 2), (piece, 1), (piece + 1, 2), (2 * piece + 3, 1)):
            soundfile.write(folder / "odd.wav", sound[:samples, :channels], signal.rate, subtype="FLOAT")
            yield signal.read(str(folder / "odd.wav")).array


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_no_whole_pieces(name, photograph, tmp_path):
    """One pixel off; one sample, one less and more than a piece, stereo and mono: PyTorch's ids, and the whole size."""
    made, differing = captured(name)
    described, (given,) = made.tokenizer, made.inputs
    encoder, decoder = session(made.model), made.decoder and session(made.decoder.model)
    for array in odd_signals(described.signal, made.example[given.name].shape[1:], photograph, tmp_path):
        decoded = []
        for piece in described.signal.cut(array):
            got = run(encoder, {given.name: torch.from_numpy(piece)})
            print(f"{differing(got['ids'], piece)} of {got['ids'].numel()} ids differ, at near-ties")
            if decoder is not None:
                decoded += run(decoder, {spec.name: got[spec.name] for spec in made.decoder.inputs}).values()
        if decoder is not None:
            back = described.signal.join([each.numpy() for each in decoded], array.shape[2:])
            assert back.shape == array.shape and np.isfinite(back).all()


def test_every_family_is_tried():
    assert {families.family_of(make()) for make in MODELS.values()} == set(families.names())


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    for name in ("photo-fsq", "photo-vq", "speech-pq"):
        api.export(f"zoo:{name}", out=folder / name)
    return folder


def test_a_picture_there_and_back(bundles, photograph, tmp_path):
    """One pixel off in both directions; without torch, through the commands."""
    with Image.open(photograph) as whole:
        picture = whole.convert("RGB").crop((100, 0, 301, 175))
    picture.save(tmp_path / "odd.png")
    told = edgetok("tokenize", bundles / "photo-fsq", tmp_path / "odd.png", "-o", tmp_path / "t.npz", "--json")
    data = json.loads(told.stdout)
    assert data["ids"] == [1, 26 * 22, 5] and data["extent"] == [175, 201] and 0.55 < data["bits_per_unit"] < 0.65
    done = edgetok("detokenize", bundles / "photo-fsq", tmp_path / "t.npz", "-o", tmp_path / "back.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "back.png") as back:
        assert back.size == picture.size
        error = np.square(np.asarray(back, float) - np.asarray(picture, float)).mean()
    assert 10 * np.log10(255**2 / error) > 22
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.png", "odd.png", "t.npz"]


def test_pieces_that_decode_longer_keep_their_places():
    """xcodec2 gives a sample more than a piece has."""
    signal = Waveform(rate=16000, channels=1, length=4)
    pieces = [np.full((1, 1, 5), k, np.float32) for k in range(3)]
    np.testing.assert_array_equal(signal.join(pieces, (10,))[0, 0], [0, 0, 0, 0, 1, 1, 1, 1, 2, 2])


def test_fewer_levels_are_a_coarser_picture(bundles, photograph):
    tokens = api.tokenize(bundles / "photo-vq", photograph)
    signals = [api.detokenize(bundles / "photo-vq", tokens, keep=keep) for keep in (6, 3, 1)]
    whole = open_bundle(bundles / "photo-vq").manifest.tokenizer.signal.read(str(photograph)).array
    errors = [float(np.square(signal - whole).mean()) for signal in signals]
    assert errors == sorted(errors) and errors[0] < errors[2] / 2
    kept = api.tokenize(bundles / "photo-vq", photograph, keep=3)
    np.testing.assert_array_equal(api.detokenize(bundles / "photo-vq", kept), signals[1])


def test_a_recording_there_and_back(bundles, speech, tmp_path):
    """Stereo at another rate; as many samples come back as went in, after resampling."""
    sound, rate = soundfile.read(speech, always_2d=True)
    soundfile.write(tmp_path / "stereo.wav", np.repeat(sound[: 2 * rate], 2, axis=1), rate + 6050)
    tokens = api.tokenize(bundles / "speech-pq", tmp_path / "stereo.wav")
    assert tokens.note == f"mean of 2 channels, resampled from {rate + 6050} to 16000 Hz"
    signal = api.detokenize(bundles / "speech-pq", tokens, tmp_path / "back.wav")
    assert signal.shape == (1, 1, *tokens.extent)
    assert soundfile.info(tmp_path / "back.wav").frames == tokens.extent[0]
    for name in ("back.wav", "back.flac"):
        with pytest.raises(OutputError, match=f"{name} cannot be written: there is no folder .*gone"):
            api.detokenize(bundles / "speech-pq", tokens, tmp_path / "gone" / name)


def test_the_bundle_says_what_it_is(bundles):
    bundle = open_bundle(bundles / "speech-pq")
    described = bundle.manifest.tokenizer
    assert bundle.model_path.name == "encode.onnx" and bundle.decoder_path.name == "decode.onnx"
    assert described.same_ids == 1 and described.signal.rate == 16000
    assert decode(encode(bundle.manifest)) == bundle.manifest
    with api.load(bundle.path) as model:
        assert model.check() == {"ids": 0.0}
    done = edgetok("lint", bundle.path, "--for", "jetson-orin-nano-jp62", "--json")
    nodes = {node.partition(":")[0] for each in json.loads(done.stdout)["findings"] for node in each["nodes"]}
    assert nodes <= {"encode", "decode"} and done.returncode in (0, 1)
    told = edgetok("inspect", bundle.path)
    assert "28 ids of 256" in told.stdout and "11.31 kbit a second of its samples, 50.5 tokens a second" in told.stdout


def test_a_bundle_that_is_no_tokenizer_keeps_its_bytes(bundles):
    manifest = open_bundle(bundles / "photo-fsq").manifest.model_copy(update={"tokenizer": None})
    assert b'"tokenizer"' not in encode(manifest)


def test_changed_decoders_are_noticed(bundles, tmp_path):
    bundle = open_bundle(bundles / "photo-fsq")
    samples = {kind: bundle.samples(kind) for kind in ("inputs", "original", "expected", "decoded")}
    import onnx_ir as ir

    again = write_bundle(
        tmp_path / "again", bundle.model_path.read_bytes(), bundle.manifest, samples,
        decoder=ir.load(bundle.decoder_path),
    )  # fmt: skip
    data = bytearray(again.decoder_path.read_bytes())
    data[len(data) // 2] ^= 1
    again.decoder_path.write_bytes(data)
    with pytest.raises(BundleError, match=r"decode.onnx was changed"):
        open_bundle(again.path)


def test_tokens_of_another_bundle(bundles, photograph):
    tokens = api.tokenize(bundles / "photo-fsq", photograph)
    with pytest.raises(InputError, match="tokens of the bundle .*, and this is .*: use theirs"):
        api.detokenize(bundles / "photo-vq", tokens)


def test_ids_outside_the_codebook(bundles, photograph):
    tokens = api.tokenize(bundles / "photo-fsq", photograph)
    tokens.arrays["ids"][0, 3, 1] = 168
    with pytest.raises(InputError, match=r"1 of \d+ ids lie outside the codebook: the first, 168 at \(0, 3, 1\)"):
        api.detokenize(bundles / "photo-fsq", tokens)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("photo-fsq", {"grid": np.array([[50, 75]])}, r"a grid of 50 x 75 tokens: there are 4096"),
        ("photo-fsq", {"grid": np.array([[1, 4096]])}, r"a picture of 8x512, and say that they were made of one"),
        ("photo-fsq", {"grid": np.array([-64])}, r"a grid of -64 tokens: there are 4096"),
        ("speech-pq", {"extent": (3, 2)}, r"a signal of 2 axes: a waveform has 1"),
    ],
)
def test_tokens_that_make_no_such_signal(bundles, photograph, speech, name, change, message):
    tokens = api.tokenize(bundles / name, photograph if name == "photo-fsq" else speech)
    extent = change.pop("extent", tokens.extent)
    changed = replace(tokens, arrays=tokens.arrays | change, extent=extent)
    with pytest.raises(InputError, match=message):
        api.detokenize(bundles / name, changed)


def test_a_recording_that_is_cut_off(bundles, speech, tmp_path):
    """As a download that stopped leaves it; one whose header leaves its length open is read to the end."""
    data = bytearray(speech.read_bytes())
    (tmp_path / "cut.wav").write_bytes(data[:20000])
    with pytest.raises(InputError, match=r"cut.wav is cut off: \d+ of \d+ bytes of sound are there"):
        api.tokenize(bundles / "speech-pq", tmp_path / "cut.wav")
    data[40:44] = b"\xff" * 4
    (tmp_path / "open.wav").write_bytes(data[:20000])
    assert api.tokenize(bundles / "speech-pq", tmp_path / "open.wav").extent == ((20000 - 44) // 2,)


def test_what_cannot_be(bundles, photograph, speech, tmp_path):
    with pytest.raises(UsageError, match="'photo-fsq' needs all of its tokens: leave --keep out"):
        api.tokenize(bundles / "photo-fsq", photograph, keep=2)
    with pytest.raises(UsageError, match="--keep 7: at least 1 and at most 6 levels are kept"):
        api.tokenize(bundles / "photo-vq", photograph, keep=7)
    with pytest.raises(InputError, match="is not a picture"):
        api.tokenize(bundles / "photo-fsq", speech)
    with pytest.raises(InputError, match="cannot be read as a recording"):
        api.tokenize(bundles / "speech-pq", photograph)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    with pytest.raises(InputError, match="holds no sound"):
        api.tokenize(bundles / "speech-pq", tmp_path / "empty.wav")
    tokens = api.tokenize(bundles / "photo-fsq", photograph)
    with pytest.raises(OutputError, match=r"it is written as \.png, "):
        api.detokenize(bundles / "photo-fsq", tokens, tmp_path / "back.wav")
    with pytest.raises(SourceError, match="takes signals of any size: leave --length and --size out"):
        api.export("zoo:photo-fsq", out=tmp_path / "no", size=64)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.wav"]


def test_hostile_token_files(tmp_path):
    good = Tokens({"ids": np.zeros((1, 4), np.int64)}, (2, 2), "0" * 64)
    write(good, tmp_path / "t.npz")
    assert read(tmp_path / "t.npz").arrays["ids"].shape == (1, 4)
    with pytest.raises(OutputError, match="tokens are written as .npz"):
        write(good, tmp_path / "t.txt")
    for name, content, told in (
        ("text.npz", b"no archive", "cannot be read as tokens"),
        ("cut.npz", (tmp_path / "t.npz").read_bytes()[:-30], "cannot be read as tokens"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=told):
            read(tmp_path / name)
    for arrays, told in (
        ({"ids": np.zeros((1, 4), np.int64)}, "holds no bundle and no extent"),
        ({"ids": np.array([object()]), "extent": np.ones(1, int), "bundle": np.array("0")}, "cannot be read as tokens"),
        ({"ids": np.zeros((1, 4)), "extent": np.array([-1]), "bundle": np.array("0")}, "its extent or its bundle"),
        ({"ids": np.zeros((0, 4)), "extent": np.ones(1, int), "bundle": np.array("0")}, "holds no ids"),
    ):
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(InputError, match=told):
            read(tmp_path / "bad.npz")
    with pytest.raises(InputError, match="there is no such file"):
        read(Path("gone.npz"))


def test_half_precision(tmp_path, photograph):
    """Both directions are typed; other ids are near-ties of half precision, and the bundle says how many there are."""
    bundle = api.export("zoo:photo-vq", out=tmp_path / "half", dtype="fp16")
    described = bundle.manifest.tokenizer
    signal = described.signal.read(str(photograph)).array[..., :200, :136]
    ids = run(session(bundle.model_path.read_bytes()), {"pixels": torch.from_numpy(signal)})["ids"]
    turned = near_ties_of("photo-vq", ids.numpy(), signal, torch.float16)
    print(f"{turned} of {ids.numel()} ids are near-ties in half precision")
    assert 0.99 < described.same_ids < 1 and bundle.manifest.fidelity[-1].cosine > 0.999
    with pytest.raises(ParityError, match="of the samples' ids are the original's, at least 100.00% are asked for"):
        api.export("zoo:photo-vq", out=tmp_path / "refused", dtype="fp16", min_same_ids=1)
    with pytest.raises(UsageError, match="zoo:minilm is no discrete tokenizer .* leave --min-same-ids out"):
        api.export("zoo:minilm", out=tmp_path / "refused", min_same_ids=1)
    assert not (tmp_path / "refused").exists()
    assert bundle.decoder_path.stat().st_size < 700_000
    with api.load(bundle.path) as model:
        model.check()


def test_weights_of_few_bits_are_judged_there_and_back(tmp_path):
    """What other ids decode to counts: the decoder alone, which keeps its weights, would be as near as can be."""
    bundle = api.export("zoo:photo-vq", out=tmp_path / "coarse", quantize=["lut:bits=2"], min_cosine=0)
    near = bundle.manifest.fidelity[-1]
    assert near.output == "pixels" and bundle.manifest.tokenizer.same_ids < 0.9
    with pytest.raises(ParityError, match="output 'pixels' has cosine .* at least 0.9999 is asked for"):
        api.export("zoo:photo-vq", out=tmp_path / "refused", quantize=["lut:bits=2"], min_cosine=0.9999)


def test_a_saved_folder_is_recognised(tmp_path):
    """transformers' own folder of a codec, with its safetensors."""
    model = codecs.dac()
    model.save_pretrained(tmp_path / "dac")
    bundle = api.export(str(tmp_path / "dac"), out=tmp_path / "bundle")
    assert bundle.manifest.tokenizer.family == "dac" and bundle.manifest.source.kind == "huggingface"
