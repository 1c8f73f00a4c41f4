"""TokenFlow's ids one by one, each given those before it: the best in fp64, or a near-tie with the best.

A near-tie turns all ids that follow, since each scale quantises what the ones before left over. So ids are not compared
with PyTorch's, which may have turned elsewhere, but judged by what their own predecessors leave over.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgetok import plugins
from edgetok.errors import ParityError
from edgetok.exporters.sources import CaptureOptions
from edgetok.exporters.sources.tokenizer import capture_tokenizer
from edgetok.exporters.tokenizers import _directions, tokenflow
from edgetok.model import Origin
from edgetok.modules.tokenflow import TokenFlow, TokenFlowConfig
from edgetok.tokenizer import near_ties
from edgetok.tokenizer.picture import Picture
from tests import test_tokenflow
from tests.comparison import session
from tests.conftest import packaged
from tests.seeded import seeded
from tests.test_tokenflow import FULL

SMALL = replace(test_tokenflow.SMALL, codes=4096)
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


def judge(model: TokenFlow, picture: torch.Tensor, ids: torch.Tensor) -> near_ties.Judged:
    """Follow the ids scale by scale, in fp32 and in fp64."""
    part = _directions.Encode(model)
    return near_ties.judge(
        tokenflow.searches(deepcopy(part).double(), picture.double(), ids), tokenflow.searches(part, picture, ids)
    )


def picture_of(config: TokenFlowConfig, photograph: Path, model: TokenFlow) -> torch.Tensor:
    """(1, 3, H, W) the photograph as the family reads it."""
    from edgetok.exporters.tokenizers.tokenflow import parts

    signal = parts(model, None, None).signal
    assert isinstance(signal, Picture)
    return torch.from_numpy(signal.read(str(photograph)).array)


def cuts(folder: Path) -> list[Path]:
    """Each photograph's four corners, three fifths of its height and width."""
    files = []
    for name in PHOTOGRAPHS:
        with Image.open(packaged("skimage", f"data/{name}")) as whole:
            wide, high = whole.width * 3 // 5, whole.height * 3 // 5
            for k, (left, up) in enumerate(np.ndindex(2, 2)):
                x, y = left * (whole.width - wide), up * (whole.height - high)
                files.append(folder / f"{name}.{k}.png")
                whole.convert("RGB").crop((x, y, x + wide, y + high)).save(files[-1])
    return files


def test_judgement(photograph: Path) -> None:
    """PyTorch's own ids pass; one that is the second best by far does not, whatever follows from it."""
    model = seeded(TokenFlow(SMALL))
    picture = picture_of(SMALL, photograph, model)
    with torch.no_grad():
        ids = model.encode(picture)
    assert judge(model, picture, ids).check() == 0
    for place in (0, 3, 29):
        wrong = ids.clone()
        wrong[0, place] = (wrong[0, place] + 1) % SMALL.codes
        judged = judge(model, picture, wrong)
        assert judged.turned[0, : place + 1].tolist() == [False] * place + [True]
        with pytest.raises(ParityError, match="ids are no near-ties"):
            judged.check()


@pytest.mark.more
def test_photographs_at_384_pixels(tmp_path: Path) -> None:
    """The graph's 2227 ids of each among 32768 codes; where they leave PyTorch's, both codes are within rounding."""
    model = seeded(TokenFlow(FULL))
    made = capture_tokenizer(model, "tokenflow", Origin("callable", "tokenflow"), CaptureOptions(batch=1))
    plugins.add_functions(made.model)
    opened, turned, differ = session(made.model), np.zeros(2, int), 0
    for file in cuts(tmp_path)[3::4]:
        picture = picture_of(FULL, file, model)
        ids = torch.from_numpy(opened.run(["ids"], {"picture": picture.numpy()})[0])
        with torch.no_grad():
            torch_s = model.encode(picture)
        ours, theirs = judge(model, picture, ids), judge(model, picture, torch_s)
        assert ids.shape == (1, FULL.tokens) and len(ids.unique()) > 500
        turned += ours.check(), theirs.check()
        apart = np.flatnonzero((ids != torch_s).numpy())
        differ += len(apart)
        if len(apart):  # the ids before are the same for both
            assert ours.turned[0, apart[0]] or theirs.turned[0, apart[0]]
    print(f"near-ties: {turned}; ids that differ: {differ}")
