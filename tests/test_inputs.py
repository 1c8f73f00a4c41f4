"""Files, texts and arrays become a batch, or an error that says what to do."""

import zipfile
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import edgetok
from edgetok.errors import EdgetokError, InputError, UnknownName
from edgetok.inputs import check_inputs, example_inputs, load_inputs, samples_in
from edgetok.model import TensorSpec
from edgetok.preprocess import ImagePreprocess, LogMelPreprocess, TextPreprocess, WaveformPreprocess

ASTRONAUT = str(Path(util.find_spec("skimage").submodule_search_locations[0]) / "data" / "astronaut.png")
PICTURE = ImagePreprocess(
    size=(32, 32), box=(32, 32), fit="cover", resample="bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
PIXELS = TensorSpec("pixel_values", "float32", ("batch", 3, 32, 32), PICTURE)
IDS = TensorSpec("input_ids", "int64", ("batch", 12), TextPreprocess(length=12, yields="input_ids"))
MASK = TensorSpec("attention_mask", "int64", ("batch", 12), TextPreprocess(length=12, yields="attention_mask"))
SOUND = TensorSpec("input_values", "float32", ("batch", 4000), WaveformPreprocess(length=4000))
RAW = TensorSpec("x", "float32", ("batch", 4), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer made here, of BERT's kind."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "the", "river", "runs", "under", "a", "bridge"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    path = tmp_path_factory.mktemp("bundle")
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def refusal(files, specs, folder: Path = Path("."), kind: type[EdgetokError] = InputError) -> str:
    with pytest.raises(kind) as caught:
        load_inputs([str(file) for file in files], specs, folder)
    return str(caught.value)


def saved(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def test_several_pictures_are_a_batch():
    batch = load_inputs([ASTRONAUT, ASTRONAUT], [PIXELS], Path("."))
    assert batch["pixel_values"].shape == (2, 3, 32, 32)
    np.testing.assert_array_equal(batch["pixel_values"][0], batch["pixel_values"][1])


def test_inputs_take_the_graphs_type():
    half = TensorSpec("pixel_values", "float16", ("batch", 3, 32, 32), PICTURE)
    assert load_inputs([ASTRONAUT], [half], Path("."))["pixel_values"].dtype == np.float16
    brain = TensorSpec("pixel_values", "bfloat16", ("batch", 3, 32, 32), PICTURE)
    assert example_inputs([brain], Path("."))["pixel_values"].dtype.name == "bfloat16"


def test_texts_and_files_of_text(folder: Path, tmp_path: Path):
    (tmp_path / "a.txt").write_text("the bridge", encoding="utf-8-sig")
    batch = load_inputs([str(tmp_path / "a.txt"), "A river runs under the bridge, under a river."], [IDS, MASK], folder)
    assert batch["input_ids"][0].tolist() == [1, 4, 9, 2] + [0] * 8
    assert batch["attention_mask"].sum(axis=1).tolist() == [4, 12]  # the second is cut, its [SEP] stays
    assert batch["input_ids"][1, -1] == 2


def test_a_text_may_name_a_file_but_a_lost_file_is_no_text(folder: Path):
    assert load_inputs(["what is in photo.png"], [IDS], folder)["input_ids"][0, 0] == 1
    assert "lost.txt is missing: there is no such file" in refusal(["lost.txt"], [IDS], folder)
    assert "some/where is missing: there is no such file" in refusal(["some/where"], [IDS], folder)


def test_bad_texts(folder: Path, tmp_path: Path):
    (tmp_path / "latin.txt").write_bytes("süß".encode("latin-1"))
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "long.txt").write_text("a " * 600_000)
    assert "latin.txt is not text in UTF-8" in refusal([tmp_path / "latin.txt"], [IDS], folder)
    assert refusal([tmp_path / "empty.txt"], [IDS], folder).endswith("empty.txt is empty")
    assert refusal([""], [IDS], folder) == "the text given is empty"
    assert "long.txt is larger than 1 MiB: give the part that the model shall read" in refusal(
        [tmp_path / "long.txt"], [IDS], folder
    )
    assert "reads text with tokenizer.json, which is missing; give token ids as .npz" in refusal(
        ["a b"], [IDS], tmp_path
    )
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "tokenizer.json cannot encode the text: " in refusal(["a b"], [IDS], tmp_path)


def test_a_recording(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(3000) / 9), 16000)
    values = load_inputs([str(tmp_path / "a.wav")], [SOUND], Path("."))["input_values"]
    assert values.shape == (1, 4000)
    assert not values[0, 3000:].any()
    assert abs(values[0, :3000].std() - 1) < 1e-3


def test_arrays_for_anything_and_beside_files(tmp_path: Path):
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    one, two = saved(tmp_path / "1.npz", x=x[:1]), saved(tmp_path / "2.npz", x=x[1:])
    np.testing.assert_array_equal(load_inputs([str(one), str(two)], [RAW], Path("."))["x"], x)
    both = load_inputs([ASTRONAUT, str(one)], [PIXELS, RAW], Path("."))
    assert set(both) == {"pixel_values", "x"}


def test_how_many_samples_a_file_holds(tmp_path: Path):
    """As many as the loader makes of it; of what it refuses, one."""
    for shape, count in (((3, 4), 3), ((1, 4), 1), ((0, 4), 1), ((), 1)):
        assert samples_in(str(saved(tmp_path / "x.npz", x=np.zeros(shape, np.float32)))) == count
    (tmp_path / "no.npz").write_bytes(b"PK\x03\x04 and no more")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    assert [samples_in(str(tmp_path / name)) for name in ("no.npz", "empty.npz", "gone.npz")] == [1, 1, 1]
    assert samples_in(ASTRONAUT) == 1


def test_files_that_the_model_does_not_eat(tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "a.bin").write_bytes(b"")
    message = refusal([tmp_path / "a.wav"], [PIXELS])
    assert "a.wav is not what the model takes: give image (.jpg, .jpeg, .png, " in message
    assert message.endswith("or an .npz with pixel_values: float32 (batch, 3, 32, 32)")
    assert "a.bin is not a picture" in refusal([tmp_path / "a.bin"], [PIXELS])
    assert "a.bin is not what the model takes" in refusal([tmp_path / "a.bin"], [PIXELS, SOUND])
    assert "give an .npz with x: float32 (batch, 4)" in refusal([tmp_path / "a.wav"], [RAW])
    assert "is missing: there is no such file" in refusal(["no.jpg"], [PIXELS])
    assert "is a folder, not a file" in refusal([tmp_path], [PIXELS])
    assert "nothing was given for input 'input_values': give audio (.wav," in refusal([ASTRONAUT], [PIXELS, SOUND])
    assert "nothing was given for input 'x'" in refusal([ASTRONAUT], [PIXELS, RAW])


def test_arrays_that_do_not_fit(tmp_path: Path):
    good = np.zeros((1, 4), np.float32)
    file = tmp_path / "a.npz"
    assert (
        refusal([saved(file, pixelvalues=good)], [PIXELS], kind=UnknownName)
        == "no input 'pixelvalues': did you mean 'pixel_values'?"
    )
    assert (
        refusal([saved(file, x=good.astype(np.float64))], [RAW])
        == "input 'x' is float64, the model takes float32: convert it with .astype('float32')"
    )
    assert (
        refusal([saved(file, x=np.zeros((1, 5), np.float32))], [RAW])
        == "input 'x' has shape (1, 5), the model takes (batch, 4)"
    )
    assert refusal([saved(file, x=good[:0])], [RAW]) == "input 'x' has shape (0, 4), the model takes (batch, 4)"
    assert refusal([saved(file, x=good[0])], [RAW]) == "input 'x' has shape (4), the model takes (batch, 4)"
    bad = np.zeros((3, 4), np.float32)
    bad[1:, 2] = np.nan, np.inf
    assert (
        refusal([saved(file, x=bad)], [RAW])
        == "input 'x' has NaN or infinite values in sample 1, 2: mend or leave out these"
    )
    other = TensorSpec("y", "float32", ("batch", 4), None)
    assert (
        refusal([saved(file, x=good, y=np.zeros((2, 4), np.float32))], [RAW, other])
        == "input 'y' has shape (2, 4), the model takes (batch, 4), with batch = 1 as in the inputs before it"
    )
    fixed = TensorSpec("x", "float32", (2, 4), None)
    assert refusal([saved(file, x=good)], [fixed]) == "input 'x' has shape (1, 4), the model takes (2, 4)"


def test_hostile_archives(tmp_path: Path):
    file = tmp_path / "a.npz"
    assert "cannot be read as .npz, write it with numpy.savez" in refusal([_written(file, b"PK nonsense")], [RAW])
    np.savez(file, x=np.array([{"a": 1}], dtype=object))
    assert "input 'x' is object, the model takes float32" in refusal([file], [RAW])  # before any pickle is looked at
    header = np.lib.format
    with zipfile.ZipFile(file, "w") as archive, archive.open("x.npy", "w") as member:  # claims 16 TB
        header.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 4)})
    assert "cannot be read as .npz" in refusal([file], [RAW])
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../x.npy", b"")
    assert "no input '../../x'" in refusal([file], [RAW], kind=UnknownName)


def _written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def test_check_inputs_names_what_is_missing_or_unknown():
    with pytest.raises(InputError, match="nothing was given for input 'x'"):
        check_inputs({}, [RAW])
    with pytest.raises(UnknownName, match="no input 'z': known: x"):
        check_inputs({"z": np.zeros(1)}, [RAW])


def test_examples_are_valid_and_depend_on_the_seed_alone(folder: Path):
    mel = TensorSpec("input_features", "float32", ("batch", 80, 100), LogMelPreprocess(length=16000))
    voice = TensorSpec("voice_mask", "int64", ("batch", 4000), WaveformPreprocess(length=4000, yields="attention_mask"))
    specs = [PIXELS, IDS, MASK, SOUND, voice, mel, RAW]
    batch = example_inputs(specs, folder, batch=3, seed=1)
    again = example_inputs(specs, folder, batch=3, seed=1)
    other = example_inputs(specs, folder, batch=3, seed=2)
    for spec in specs:
        np.testing.assert_array_equal(batch[spec.name], again[spec.name])
    assert (batch["pixel_values"] != other["pixel_values"]).any()
    assert (batch["input_ids"] != other["input_ids"]).any()
    # some rows are padded, some are full; ids and mask agree
    for name in ("attention_mask", "voice_mask"):
        full = batch[name].all(axis=1).tolist()
        assert full == [False, True, False]
    np.testing.assert_array_equal(batch["input_ids"] != 0, batch["attention_mask"] == 1)
    assert not batch["input_values"][batch["voice_mask"] == 0].any()


def test_examples_of_inputs_without_a_preprocess():
    specs = [
        TensorSpec("mask", "bool", ("batch", 6), None),
        TensorSpec("token_type_ids", "int32", (2, 6), None),
        TensorSpec("ids", "int64", (2, 6), None),
    ]
    batch = example_inputs(specs, Path("."), batch=2)
    assert batch["mask"].sum(axis=1).tolist() == [4, 6]
    assert not batch["token_type_ids"].any()
    assert batch["ids"].max() < 100
    with pytest.raises(InputError, match="input 'ids' has the free axis 'n': fix it with --length"):
        example_inputs([TensorSpec("ids", "int64", ("batch", "n"), None)], Path("."))


def test_a_picture_of_another_kind_than_its_name(tmp_path: Path):
    Image.open(ASTRONAUT).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert load_inputs([str(tmp_path / "a.jpg")], [PIXELS], Path("."))["pixel_values"].shape == (1, 3, 32, 32)


def test_signals_of_a_tokenizer(tmp_path: Path) -> None:
    """`run` and `profile` take the files that `tokenize` takes: a picture of any size, a recording of any rate."""
    tokenizer = edgetok.export("zoo:photo-fsq", out=tmp_path / "tok")
    (pixels,) = tokenizer.load([ASTRONAUT]).values()
    assert pixels.shape == (1, 3, 512, 512)
    ids = edgetok.tokenize(tokenizer.path, ASTRONAUT).arrays["ids"]
    with edgetok.load(tokenizer.path) as model:
        np.testing.assert_array_equal(model.run_files([ASTRONAUT])["ids"], ids)
    Image.new("RGB", (40, 24)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match=r"unlike sizes make no batch: .*astronaut.*\(3, 512, 512\), .*\(3, 24, 40\)"):
        tokenizer.load([ASTRONAUT, str(tmp_path / "small.png")])
    np.savez(tmp_path / "x.npz", pixels=pixels)
    np.testing.assert_array_equal(tokenizer.load([str(tmp_path / "x.npz")])["pixels"], pixels)
