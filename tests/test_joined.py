"""A quantiser head between two captured networks: the graphs do what PyTorch does, at any size."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgetok.errors import SourceError
from edgetok.model import Origin
from edgetok.tokenizer import head as heads
from edgetok.tokenizer.joined import Quantiser, read_ids, write_ids

torch = pytest.importorskip("torch")

ORIGIN = Origin("zoo", "small")


def fsq() -> Quantiser:
    head = heads.load("fsq")
    return Quantiser(head, head.config(levels=(24, 7)), {}, groups=5)


def rvq() -> Quantiser:
    head = heads.load("rvq")
    books = np.random.default_rng(0).normal(0, 0.2, (3, 16, 10)).astype(np.float32)
    return Quantiser(head, head.config(levels=3, codes=16, width=10), {"codebooks": books})


@pytest.mark.parametrize(
    "quantiser", [pytest.param(fsq(), id="groups-of-fsq"), pytest.param(rvq(), id="rvq", marks=pytest.mark.more)]
)
def test_pictures_of_any_size(quantiser: Quantiser, tmp_path: Path) -> None:
    from edgetok.exporters.sources.pytorch import capture_module
    from edgetok.modules.image_tokenizer import ImageDecoder, ImageEncoder

    torch.manual_seed(0)
    encoder, decoder = ImageEncoder(10, 16, 1).eval(), ImageDecoder(10, 16, 1).eval()
    for network in (encoder.network, decoder.network):
        torch.nn.init.normal_(network.last.weight, std=0.3)  # it starts at zero, which would hide the blocks
    first = capture_module(
        encoder, {"pixels": torch.rand(2, 3, 37, 50)}, ORIGIN, free={"pixels": {2: "height", 3: "width"}}
    )
    assert first.inputs[0].shape == ("batch", 3, "height", "width")
    second = capture_module(
        decoder, {"vectors": torch.rand(2, 10, 5, 7)}, ORIGIN, free={"vectors": {2: "rows", 3: "columns"}}
    )
    write_ids(first.model, quantiser)
    read_ids(second.model, quantiser)
    sessions = []
    for name, captured in (("encode", first), ("decode", second)):
        ir.save(captured.model, tmp_path / f"{name}.onnx")
        onnx.checker.check_model(str(tmp_path / f"{name}.onnx"), full_check=True)
        sessions.append(ort.InferenceSession(tmp_path / f"{name}.onnx"))
    for shape in ((1, 8, 8), (3, 64, 65), (2, 1, 1), (1, 79, 41)):
        pixels = torch.rand(shape[0], 3, *shape[1:])
        with torch.no_grad():
            encoded = encoder(pixels)
            wanted = quantiser.ids(encoded["vectors"])
            rows, columns = encoded["grid"][0].tolist()
            back = decoder(quantiser.vectors(wanted).mT.reshape(shape[0], -1, rows, columns)).numpy()
        ids, grid = sessions[0].run(["ids", "grid"], {"pixels": pixels.numpy()})
        assert (ids == wanted.numpy()).all() and (grid == encoded["grid"].numpy()).all()
        heads.check_ids(ids, quantiser.layout)
        assert np.abs(sessions[1].run(None, {"ids": ids, "grid": grid})[0] - back).max() < 1e-5


def test_weights_that_do_not_fit_are_refused() -> None:
    head = heads.load("rvq")
    with pytest.raises(SourceError, match="the weights 'codebooks' have shape"):
        Quantiser(head, head.config(levels=3, codes=16, width=10), {"codebooks": np.zeros((3, 16, 9), np.float32)})


def test_groups_multiply_the_layout() -> None:
    assert fsq().layout == heads.Layout(10, (168,) * 5)
    assert rvq().layout == heads.Layout(10, (16,) * 3, skips=True)
