"""Formats chosen layer by layer: by hand, and on a small model."""

from pathlib import Path

import numpy as np
import pytest

import edgetok
from edgetok.errors import Refusal, UnknownName, UsageError
from edgetok.exporters.quantisers.auto import Choice, cheapest
from edgetok.lowbit import quantiser
from tests import families

MODEL = "tests.families:small_vit"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two inputs."""
    folder = tmp_path_factory.mktemp("samples")
    for seed in range(2):
        feeds = families.feeds("vit", batch=1, seed=seed)
        np.savez(folder / f"{seed}.npz", **{name: value.numpy() for name, value in feeds.items()})
    return folder


def test_the_cheapest_by_hand() -> None:
    """Two formats, 2 and 4 bits, then 32. 100 weights in the first layer, 200 in the second, 10 in the third."""
    first = Choice((200, 400, 3200), (0.010, 0.001, 0))  # saves 2800 bits for 0.001, 200 more for 0.009
    second = Choice((400, 800, 6400), (0.003, 0.002, 0))  # 5600 for 0.002, 400 more for 0.001
    third = Choice((20, 40, 320), (0.5, 0.4, 0))  # 280 for 0.4
    layers = [first, second, third]
    assert cheapest(layers, 0.0005) == {}
    assert cheapest(layers, 0.001) == {0: 1}
    assert cheapest(layers, 0.0031) == {0: 1, 1: 1}
    assert cheapest(layers, 0.0041) == {0: 1, 1: 0}
    assert cheapest(layers, 0.02) == {0: 0, 1: 0}
    assert cheapest(layers, 1.0) == {0: 0, 1: 0, 2: 0}


def test_a_layer_that_loses_nothing_has_the_fewest_bits() -> None:
    assert cheapest([Choice((2, 4, 32), (0, 0, 0))], 0.0) == {0: 0}


def test_a_model_keeps_the_cosine(tmp_path: Path, samples: Path) -> None:
    spec = "auto:min-cosine=0.9995,formats=hlq_2/nvfp4"
    bundle = edgetok.export(MODEL, out=tmp_path / "auto", quantize=[spec], samples=samples)
    manifest = bundle.manifest
    assert manifest.recipe.quantize == ("auto:min_cosine=0.9995,formats=hlq_2/nvfp4",)
    assert min(each.cosine for each in manifest.fidelity) >= 0.9995
    formats = {each.format for each in manifest.weights}
    assert formats <= {"hlq:bits=2", "nvfp4"} and manifest.weights
    all_of_it = edgetok.export(MODEL, out=tmp_path / "all", quantize=["hlq:bits=2"], samples=samples, min_cosine=-1)
    assert min(each.cosine for each in all_of_it.manifest.fidelity) < 0.9995  # so that there was something to choose
    few = [each for each in manifest.weights if each.format == "hlq:bits=2"]
    assert len(few) < len(all_of_it.manifest.weights)
    with edgetok.load(tmp_path / "auto") as model:
        model.check()


def test_skipped_layers_are_not_its_business(tmp_path: Path, samples: Path) -> None:
    spec = "auto:min-cosine=0.5,formats=nvfp4,skip=mlp/head"
    bundle = edgetok.export(MODEL, out=tmp_path / "auto", quantize=[spec, "nvfp4:skip=attention/head"], samples=samples)
    parts = [(each.layer.split("/")[1], each.format) for each in bundle.manifest.weights]
    assert set(parts) == {("attention", "nvfp4"), ("mlp", "nvfp4:skip=attention/head")}


def test_what_cannot_be_had(tmp_path: Path, samples: Path) -> None:
    with pytest.raises(Refusal, match="before anything is quantised, and min_cosine=0.999 is asked for"):
        edgetok.export(
            MODEL, out=tmp_path / "a", quantize=["auto:min-cosine=0.999,formats=nvfp4"], reduce=["random:keep=0.1"],
            min_cosine=-1, samples=samples,
        )  # fmt: skip
    with pytest.raises(UsageError, match="auto measures on samples: give --samples DIR"):
        edgetok.export(MODEL, out=tmp_path / "a", quantize=["auto"])
    with pytest.raises(UsageError, match="option min_cosine=2: accepted is a number between 0 and 1"):
        quantiser.parse("auto:min-cosine=2")
    with pytest.raises(UnknownName, match="no quantiser 'nvfp'"):
        quantiser.parse("auto:formats=nvfp")


def test_weights_are_given_as_they_are_used() -> None:
    """Overriding a layer's weight by what it is changes nothing; by zeros, something."""
    from edgetok.api.samples import OnSamples
    from edgetok.exporters.quantisers.auto import _with_weights_open
    from edgetok.exporters.sources import CaptureOptions, capture
    from edgetok.lowbit.linear import find_linears

    captured = capture(MODEL, CaptureOptions())
    for number, node in enumerate(captured.model.graph):
        node.name = f"layer.{number}"
    linears = find_linears(captured.model.graph)
    original = captured.reference(captured.example)
    measure = OnSamples(captured.inputs, captured.example, original).measure
    same = {f"{linears[3].name}.weight": np.ascontiguousarray(linears[3].matrix.T)}
    zeros = {name: np.zeros_like(matrix) for name, matrix in same.items()}
    none, unchanged, changed = measure(_with_weights_open(captured.model, linears), [{}, same, zeros])
    assert none == pytest.approx(1, abs=1e-6) and unchanged == none and changed < none - 1e-4
