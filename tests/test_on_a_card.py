"""On an NVIDIA card, torch and Triton being there: every kernel is right on every case, and one table says how fast.

    python -m pytest -m gpu -s tests/test_on_a_card.py

It is benchmarks/gpu_kernels.py that runs; what it measures goes to the file that EDGETOK_CARD names, as JSON. No time
is asserted. CI has no card; there tests/test_gpu_kernels.py runs the kernels in Triton's interpreter.
"""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from edgetok import plugins
from edgetok.plugins import gpu

HERE = torch.cuda.is_available() and find_spec("triton") is not None
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HERE, reason="needs an NVIDIA card, and torch with CUDA and Triton"),
]
CASES = [(name, case) for name in gpu.names() for case, _ in plugins.load(name).cases()]


@pytest.fixture(scope="module")
def kept():
    """What the tests of this file find, written at their end."""
    found: dict[str, object] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    yield found
    if file := os.environ.get("EDGETOK_CARD"):
        Path(file).write_text(json.dumps(found, indent=1), encoding="utf-8")


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize(("name", "case"), CASES, ids=["-".join(each) for each in CASES])
def test_a_kernel_equals_the_reference(name, case, half, kept):
    from benchmarks.gpu_kernels import errors, wrong

    found = errors(name, dict(plugins.load(name).cases())[case], half)
    kept[f"{name}, {case}, {'fp16' if half else 'fp32'}"] = found
    assert not wrong(found, half), found


@pytest.mark.filterwarnings("default")  # torch.compile's own
def test_the_table_has_every_operator(kept):
    """Error, times, ratios, share of the limit; what could not be had is said above it."""
    from benchmarks.gpu_operators import table

    kept["operators"] = table()
    assert {plugins.load(name).function.name for name in gpu.names()} == {
        row["operator"].partition(",")[0].partition(" ")[0] for row in kept["operators"]
    }
    for row in kept["operators"]:
        assert row["microseconds"].keys() >= {"kernels", "eager"}, row


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("glue", [False, True], ids=["match and merge", "with the order between them"])
def test_merging_beside_the_vit(glue, kept):
    """The target's figures are printed and kept, not asserted: they are of this card and of this day."""
    from benchmarks.gpu_merging import target

    kept[f"merging{', order' if glue else ''}"] = found = target(glue)
    assert found.keys() >= {side + how for side in ("eager", "kernels", "ViT-B itself") for how in ("", ", graph")}
