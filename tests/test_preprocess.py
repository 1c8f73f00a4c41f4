"""Files become exactly what the models were trained on: compared with transformers' own processors."""

import json
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from edgetok.errors import InputError, SourceError
from edgetok.preprocess import ImagePreprocess, LogMelPreprocess, Preprocess, TextPreprocess, WaveformPreprocess
from edgetok.preprocess.audio import read_audio
from edgetok.preprocess.huggingface import from_huggingface
from edgetok.preprocess.image import open_picture

PHOTOGRAPHS = Path(util.find_spec("skimage").submodule_search_locations[0]) / "data"
ASTRONAUT = str(PHOTOGRAPHS / "astronaut.png")  # 512 x 512
COFFEE = str(PHOTOGRAPHS / "coffee.png")  # 600 x 400
NOWHERE = Path("no-such-folder")
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.fixture(scope="module")
def beckett() -> str:
    spec = util.find_spec("moonshine_voice")
    if spec is None:
        pytest.skip("a recording of speech: pip install --no-deps moonshine-voice==0.0.44")
    return str(Path(spec.submodule_search_locations[0]) / "assets" / "beckett.wav")


def processor(family: str):
    pytest.importorskip("transformers", reason="the processors compared with are transformers'")
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    imagenet = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    return {
        "vit": lambda: ViTImageProcessorPil(),
        "deit": lambda: DeiTImageProcessorPil(**imagenet),
        "dinov2": lambda: BitImageProcessorPil(size={"shortest_edge": 256}, **imagenet),
        "clip": lambda: CLIPImageProcessorPil(),
        "siglip": lambda: SiglipImageProcessorPil(),
    }[family]()


@pytest.mark.parametrize("family", ["vit", "deit", "dinov2", "clip", "siglip"])
def test_a_photograph_becomes_what_transformers_makes_of_it(family: str, tmp_path: Path):
    theirs = processor(family)
    theirs.save_pretrained(tmp_path)
    stored = from_huggingface(tmp_path, {"model_type": family})["pixel_values"]
    default = from_huggingface(NOWHERE, {"model_type": family})["pixel_values"]
    assert stored == default
    for photograph in (ASTRONAUT, COFFEE, str(PHOTOGRAPHS / "rocket.jpg"), str(PHOTOGRAPHS / "camera.png")):
        expected = theirs(Image.open(photograph).convert("RGB"), return_tensors="np")["pixel_values"]
        ours = stored.load([photograph], NOWHERE)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_a_size_written_as_one_number_means_what_it_meant_to_its_processor(tmp_path: Path):
    old = {"size": 224, "resample": 3, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    for name, fit in (("CLIPFeatureExtractor", "cover"), ("ViTFeatureExtractor", "squash")):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({**old, "feature_extractor_type": name}))
        assert from_huggingface(tmp_path, {})["pixel_values"].fit == fit


def test_another_size_keeps_the_share_that_is_cut_away():
    picture = from_huggingface(NOWHERE, {"model_type": "dinov2"}, size=448)["pixel_values"]
    assert (picture.size, picture.box) == ((448, 448), (512, 512))
    own = from_huggingface(NOWHERE, {"model_type": "clip", "vision_config": {"image_size": 336}})["pixel_values"]
    assert own.size == (336, 336)


def test_what_cannot_be_said_is_left_to_arrays(tmp_path: Path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"longest_edge": 512}, "do_pad": True}))
    assert from_huggingface(tmp_path, {"model_type": "vit"}) == {}
    assert from_huggingface(NOWHERE, {"model_type": "unheard-of"}) == {}


def test_contain_pads_with_black_around_the_whole_picture():
    contain = ImagePreprocess(size=(224, 224), box=(224, 224), fit="contain", resample="hamming", **HALF)
    picture = np.asarray(contain.cut(open_picture(COFFEE), "coffee"))
    assert picture.shape == (224, 224, 3)
    rows = picture.any(axis=(1, 2))
    assert (rows.argmax(), rows.sum()) == (37, 149)  # 600 x 400 becomes 224 x 149, 75 rows are padding: 37 above
    assert contain.load([COFFEE], NOWHERE)[0, :, 0, 0].tolist() == [-1, -1, -1]


def test_pictures_that_are_not_squares_are_cut_about_their_centre():
    cover = ImagePreprocess(size=(32, 64), box=(40, 80), fit="cover", resample="bilinear", **HALF)
    assert cover.load([COFFEE, ASTRONAUT], NOWHERE).shape == (2, 3, 32, 64)
    assert (cover._resized_to(600, 400), cover._resized_to(400, 100)) == ((80, 53), (160, 40))


def solid(mode: str, colour, tmp_path: Path, suffix: str = "png", **options) -> str:
    file = tmp_path / f"{mode.replace(';', '')}.{suffix}"
    Image.new(mode, (8, 6), colour).save(file, **options)
    return str(file)


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "rgb"),
    [
        ("RGB", (200, 100, 50), "png", (200, 100, 50)),
        ("L", 77, "png", (77, 77, 77)),
        ("1", 1, "png", (255, 255, 255)),
        ("I;16", 0x4D80, "png", (0x4D, 0x4D, 0x4D)),
        ("I;16", 0x4D80, "tiff", (0x4D, 0x4D, 0x4D)),
        ("RGBA", (255, 0, 0, 0), "png", (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), "png", (255, 0, 0)),
        ("LA", (0, 51), "png", (204, 204, 204)),
        ("CMYK", (0, 255, 255, 0), "tiff", (255, 0, 0)),
    ],
)
def test_every_mode_becomes_8_bit_rgb(mode, colour, suffix, rgb, tmp_path: Path):
    picture = open_picture(solid(mode, colour, tmp_path, suffix))
    assert (picture.mode, picture.getpixel((3, 3))) == ("RGB", rgb)


def test_a_picture_taken_sideways_is_turned_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert open_picture(solid("RGB", "red", tmp_path, "jpg", exif=exif)).size == (6, 8)


def test_bgr_swaps_the_channels_and_leaves_the_statistics_in_that_order(tmp_path: Path):
    file = solid("RGB", (255, 0, 0), tmp_path)
    how = {"size": (2, 2), "box": (2, 2), "fit": "squash", "resample": "box", "mean": (0.1, 0, 0), "std": (1, 1, 1)}
    bgr = ImagePreprocess(**how, channels="BGR").load([file], NOWHERE)[0, :, 0, 0]
    np.testing.assert_allclose(bgr, [-0.1, 0, 1], atol=1e-6)


@pytest.mark.parametrize("damage", ["text", "truncated", "float", "bomb", "extreme"])
def test_bad_pictures_are_refused(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cover = ImagePreprocess(size=(224, 224), box=(224, 224), fit="cover", resample="bilinear", **HALF)
    file = tmp_path / "bad.png"
    if damage == "text":
        file.write_text("this is no picture")
        message = "bad.png is not a picture: give a file that Pillow reads, such as JPEG, PNG or WebP"
    elif damage == "truncated":
        file.write_bytes(Path(COFFEE).read_bytes()[:20000])
        message = "bad.png cannot be read as a picture, it may be damaged: "
    elif damage == "float":
        file = tmp_path / "bad.tiff"
        Image.new("F", (8, 8), 0.5).save(file)
        message = "bad.tiff has floating-point pixels, whose range is not known"
    elif damage == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000_000)
        Image.new("1", (2000, 1500)).save(file)
        message = "bad.png has more than 2 million pixels: make it smaller"
    else:
        Image.new("1", (60000, 1)).save(file)
        message = "bad.png: a picture of 60000x1 would be resized to 13440000x224 before it is cut"
    with pytest.raises(InputError) as caught:
        cover.load([str(file)], NOWHERE)
    assert message in str(caught.value)


@pytest.mark.parametrize("mels", [80, 128])
def test_log_mel_is_whispers(mels: int, beckett: str):
    transformers = pytest.importorskip("transformers", reason="the extractor compared with is transformers'")
    theirs = transformers.WhisperFeatureExtractor(feature_size=mels)
    sound, rate = soundfile.read(beckett, dtype="float32")
    ours = LogMelPreprocess(mels=mels).load([beckett], NOWHERE)
    assert ours.shape == (1, mels, 3000)
    # Its torch path computes in fp32, its numpy path in fp64 as ours does.
    np.testing.assert_allclose(
        ours, theirs(sound, sampling_rate=rate, return_tensors="np")["input_features"], atol=3e-5
    )
    padded = np.pad(sound, (0, 480000 - len(sound)))[None]
    np.testing.assert_allclose(ours, theirs._np_extract_fbank_features(padded, "cpu"), atol=1e-6)


@pytest.mark.parametrize("length", [80000, 200000])  # beckett.wav has 159414 samples
def test_waveform_is_wav2vec2s(length: int, beckett: str):
    transformers = pytest.importorskip("transformers", reason="the extractor compared with is transformers'")
    theirs = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    sound, rate = soundfile.read(beckett, dtype="float32")
    expected = theirs(
        sound, sampling_rate=rate, padding="max_length", max_length=length, truncation=True, return_tensors="np"
    )
    ours = from_huggingface(NOWHERE, {"model_type": "wav2vec2"}, length=length)
    np.testing.assert_allclose(ours["input_values"].load([beckett], NOWHERE), expected["input_values"], atol=1e-6)
    np.testing.assert_array_equal(ours["attention_mask"].load([beckett], NOWHERE), expected["attention_mask"])


def test_recordings_are_mixed_down_and_resampled(tmp_path: Path):
    time = np.arange(48000) / 48000
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time)
    soundfile.write(tmp_path / "stereo.wav", np.stack([2 * tone, 0 * tone], axis=1), 48000, subtype="FLOAT")
    sound = read_audio(str(tmp_path / "stereo.wav"), 16000, 12000)
    assert (sound.shape, sound.dtype) == ((12000,), np.float32)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(12000) / 16000)
    np.testing.assert_allclose(sound[200:], expected[200:], atol=1e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros(0), "bad.wav holds no sound"),
        (np.array([0.1, np.nan, 0.2]), "bad.wav holds samples that are not finite"),
        (None, "bad.wav cannot be read as a recording: give WAV, FLAC, Ogg or MP3"),
    ],
)
def test_bad_recordings_are_refused(content, message: str, tmp_path: Path):
    file = tmp_path / "bad.wav"
    if content is None:
        file.write_text("this is no recording")
    else:
        soundfile.write(file, content, 16000, subtype="FLOAT")
    with pytest.raises(InputError) as caught:
        WaveformPreprocess(length=100).load([str(file)], NOWHERE)
    assert message in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path):
    for file in (tmp_path / "gone.wav", tmp_path):
        with pytest.raises(InputError, match=": there is no such file"):
            read_audio(str(file), 16000, 100)
        with pytest.raises(InputError, match=": there is no such file"):
            open_picture(str(file))


def test_the_manifests_json_brings_a_preprocess_back():
    adapter = TypeAdapter(Preprocess)
    for how in (
        *from_huggingface(NOWHERE, {"model_type": "dinov2"}).values(),
        *from_huggingface(NOWHERE, {"model_type": "wav2vec2"}).values(),
        *from_huggingface(NOWHERE, {"model_type": "whisper"}).values(),
        TextPreprocess(length=16, yields="attention_mask"),
    ):
        assert adapter.validate_json(adapter.dump_json(how)) == how


@pytest.mark.parametrize("name", ["../tokenizer.json", "/etc/passwd", "a/b.json", ".hidden", "..", "a\\b", ""])
def test_a_tokenizer_lies_in_the_bundle(name: str):
    with pytest.raises(ValidationError):
        TextPreprocess(tokenizer=name, length=16, yields="input_ids")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds a list, not an object"),
        ('{"size": 224, "resample": 99}', "is malformed: IndexError"),
        ('{"size": {"height": 224}}', "is malformed: KeyError"),
        ('{"size": 224, "image_std": [0, 0, 0]}', r"is malformed: std\.0: Input should be greater than 0, not 0$"),
    ],
)
def test_a_bad_configuration_is_refused(content: str, message: str, tmp_path: Path):
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(SourceError, match=message):
        from_huggingface(tmp_path, {"model_type": "vit"})
