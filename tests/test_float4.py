"""LLM-FP4's activations: the search against the authors' errors, the operator, and a whole model in W4A4."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

import edgetok
from edgetok import devices
from edgetok import graph as g
from edgetok.errors import Refusal
from edgetok.exporters.quantisers import llm_fp4
from edgetok.feasibility import refuse_formats
from edgetok.lowbit import activations, float4
from edgetok.lowbit.node import read
from edgetok.lowbit.quantiser import Activations
from edgetok.plugins import round_to_levels
from tests.test_activations import samples, vit  # noqa: F401
from tests.test_operators import run_function

INPUTS = np.load(Path(__file__).parent / "golden" / "low-bit" / "inputs.npz")
CASES = dict(round_to_levels.cases())


@pytest.mark.parametrize("case", CASES)
def test_the_function_is_the_reference_and_the_search_rounds_alike(case: str) -> None:
    x, steps, sizes = CASES[case]
    (got,) = run_function("round_to_levels", (x, steps, sizes), {})
    np.testing.assert_array_equal(got, round_to_levels.reference(x, steps, sizes).numpy())
    rows = float4.rounded(x.flatten(0, -2).numpy(), steps.numpy(), sizes.numpy())
    np.testing.assert_array_equal(rows.reshape(got.shape), got)


def test_what_is_not_finite() -> None:
    x = torch.tensor([[float("nan"), float("inf"), -float("inf")]])
    (got,) = run_function("round_to_levels", (x, torch.ones(3), torch.tensor([0.0, 1, 2])), {})
    np.testing.assert_array_equal(got, [[np.nan, 2, -2]])


@pytest.mark.parametrize(
    ("name", "authors", "one_step"), [("w_normal", 0.126, 0.190), ("w_heavy", 0.139, 0.194)]
)
def test_about_as_near_to_the_product_as_the_authors(name: str, authors: float, one_step: float) -> None:
    """The relative errors of a product in W4A4 that the authors' code leaves on these arrays, by its own search, with
    steps for channels and with one for the tensor. Its activations reach two levels more, +-8, which no 4 bits hold.
    """
    x, matrix = INPUTS["x_act"].reshape(-1, INPUTS["x_act"].shape[-1]), INPUTS[name]
    steps, sizes = float4.fit(x, [matrix])
    rows = float4.rounded(x, steps, sizes)
    weight = llm_fp4.quantise(matrix, Activations(rows, x), llm_fp4.Config()).dequantise()
    error = np.linalg.norm(rows @ weight.T - x @ matrix.T) / np.linalg.norm(x @ matrix.T)
    assert error <= 1.02 * authors < 0.8 * one_step


def test_steps_are_powers_of_two_of_one() -> None:
    """As many as the format's exponent has: the exponents of the weights take them."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, 32)).astype(np.float32) * np.exp2(rng.integers(-9, 3, 32)).astype(np.float32)
    rows[:, 5] = 0  # silent
    steps, sizes = float4.fit(rows, [rng.standard_normal((16, 32)).astype(np.float32)])
    name = next(name for name, each in float4.SIZES.items() if np.array_equal(each, sizes))
    shifts = np.log2(steps / steps.max())
    np.testing.assert_array_equal(shifts, np.rint(shifts))
    assert shifts.min() == -(2 ** int(name[1]) - 1) and np.isfinite(steps).all()


def test_a_whole_model(vit: Path, samples: Path, tmp_path: Path) -> None:  # noqa: F811
    """W4A4: a product is that of numpy with both sides rounded; attention is left alone."""
    bundle = edgetok.export(
        str(vit), out=tmp_path / "w4a4", activations="llm-fp4:skip=head", quantize=["llm-fp4:skip=head"],
        samples=samples, min_cosine=0.8,
    )  # fmt: skip
    assert bundle.manifest.recipe.activations == "llm-fp4:skip=head"
    model = ir.load(bundle.model_path)
    rounded = [node for node in model.graph if node.op_type == "RoundToLevels"]
    assert len(rounded) == 4 * 4
    (node,) = (node for node in rounded if node.name.startswith("blocks.1/mlp") and node.inputs[0].shape[-1] == 96)
    (product,) = (user for user, _ in g.consumers(node.outputs[0]))
    steps, sizes = (torch.tensor(g.constant_of(value)) for value in node.inputs[1:])
    weight = read(product).dequantise()
    for value in (node.inputs[0], product.outputs[0]):
        model.graph.outputs.append(value)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    *_, given, got = session.run(None, bundle.samples("inputs"))
    x = round_to_levels.reference(torch.from_numpy(given), steps, sizes).numpy()
    np.testing.assert_allclose(got, x @ weight.T, atol=1e-5 * np.abs(got).max())
    with edgetok.load(bundle.path) as loaded:
        loaded.check()


def test_no_device_multiplies_them() -> None:
    with pytest.raises(Refusal, match="rtx-5090 has no llm-fp4 activations: it has fp4, fp8, int8; export with"):
        refuse_formats(devices.load("rtx-5090"), "fp16", [], activations.parse("llm-fp4"))
    refuse_formats(devices.load("x86-cpu"), "fp32", [], activations.parse("llm-fp4"))
