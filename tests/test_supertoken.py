"""Super token attention: by hand, against STViT's arrays and against unfold and fold, and exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

import edgetok
from edgetok.errors import UsageError
from edgetok.modules.supertoken import SuperTokenAttention
from tests.test_golden import VALUES, arrays


def module(heads: int = 3, width: int = 12, **options: object) -> SuperTokenAttention:
    torch.manual_seed(0)
    return SuperTokenAttention(width, heads, **{"cell": (4, 4), **options}).eval()  # type: ignore[arg-type]


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def unfolded(of: SuperTokenAttention, x: torch.Tensor) -> torch.Tensor:
    """The same by unfold and fold, as the paper has it; written apart from the module."""
    (h, w), (batch, width, height, breadth) = of.cell, x.shape
    x = functional.pad(x, (0, -breadth % w, 0, -height % h))
    rows, columns = x.shape[2] // h, x.shape[3] // w
    pixels = functional.unfold(x, of.cell, stride=of.cell).reshape(batch, width, h * w, rows * columns)
    tokens = functional.avg_pool2d(x, of.cell)
    for _ in range(of.iterations):
        near = functional.unfold(tokens, 3, padding=1).reshape(batch, width, 9, rows * columns)
        share = (torch.einsum("bcpg,bckg->bpkg", pixels, near) / width**0.5).softmax(dim=2)
        given = torch.einsum("bpkg,bcpg->bckg", share, pixels).flatten(1, 2)
        total = functional.fold(share.sum(dim=1), (rows, columns), 3, padding=1)
        tokens = functional.fold(given, (rows, columns), 3, padding=1) / total
    flat = tokens.flatten(2).mT
    if isinstance(of.stoken_refine, torch.nn.Identity):
        attended = flat
    else:
        heads, weights = of.stoken_refine.heads, of.stoken_refine.state_dict()
        qkv = functional.conv2d(tokens, weights["qkv.weight"]).reshape(batch, heads, -1, rows * columns)
        q, k, v = qkv.chunk(3, dim=2)  # (B, heads, d, tokens)
        attention = (q.mT @ k / (width // heads) ** 0.5).softmax(dim=-1)
        attended = (v @ attention.mT).reshape(batch, width, rows, columns)
        attended = functional.conv2d(attended, weights["proj.weight"], weights["proj.bias"]).flatten(2).mT
    near = functional.unfold(attended.mT.reshape(tokens.shape), 3, padding=1).reshape(batch, width, 9, rows * columns)
    y = torch.einsum("bpkg,bckg->bcpg", share, near).flatten(1, 2)
    return functional.fold(y, x.shape[2:], of.cell, stride=of.cell)[:, :, :height, :breadth]


def test_by_hand():
    """One row of two cells of one pixel each, of one channel: 1 and 3."""
    of = SuperTokenAttention(1, 1, (1, 1))
    of.stoken_refine = torch.nn.Identity()
    e = np.exp
    # A pixel's nine shares are e^(p s): both cells, and seven zeros outside that take e^0 = 1 each.
    own, other = e(1) / (e(1) + e(3) + 7), e(3) / (e(1) + e(3) + 7)  # of pixel 1: to token 1, to token 3
    back, kept = e(3) / (e(3) + e(9) + 7), e(9) / (e(3) + e(9) + 7)  # of pixel 3
    first, second = (own * 1 + back * 3) / (own + back), (other * 1 + kept * 3) / (other + kept)
    wanted = [own * first + other * second, back * first + kept * second]
    got = of(torch.tensor([[[[1.0, 3.0]]]]))
    np.testing.assert_allclose(got.flatten(), wanted, rtol=1e-6)
    assert wanted[0] < 1.8  # the zeros outside took a quarter of pixel 1; without them it would be above 2


def test_golden():
    golden = arrays("stvit_sta_norefine_it1")
    cell = tuple(golden["stoken_size"].tolist())
    of = module(cell=cell, iterations=int(golden["n_iter"]))
    of.stoken_refine = torch.nn.Identity()  # the array was made without attention between super tokens
    torch.testing.assert_close(of(golden["x"]), golden["y"], rtol=0, atol=VALUES)


@pytest.mark.parametrize("iterations", [1, 2, 3])
@pytest.mark.parametrize(("cell", "size"), [((4, 4), (8, 8)), ((3, 2), (7, 9)), ((1, 1), (4, 5)), ((8, 8), (6, 6))])
def test_as_with_unfold_and_fold(cell: tuple[int, int], size: tuple[int, int], iterations: int):
    """Maps that cells divide and that they do not, cells of one pixel, and one cell for all."""
    of, x = module(cell=cell, iterations=iterations).double(), drawn(2, 12, *size).double()
    torch.testing.assert_close(of(x), unfolded(of, x), rtol=0, atol=1e-12)


def test_border_tokens_take_their_share():
    """If the zeros outside were barred, the corner pixels would be other ones; the arrays would not be met."""
    of, x = module(), drawn(1, 12, 8, 8)
    of.stoken_refine = torch.nn.Identity()
    of_one = torch.ones_like(x)
    inside = of(functional.pad(of_one, (8, 8, 8, 8), value=1.0))[:, :, 8:-8, 8:-8]
    torch.testing.assert_close(inside, of_one)  # far from the border nothing is lost
    assert (of(of_one) < 0.99).all()  # every cell of a 2 x 2 map lies at the border


def test_it_learns():
    """Gradients reach the attention's weights and the pixels, but not through the shares."""
    of, x = module(), drawn(1, 12, 8, 8).requires_grad_()
    of(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in of.parameters())
    assert set(of.state_dict()) == {f"stoken_refine.{name}" for name in ("qkv.weight", "proj.weight", "proj.bias")}
    assert of.stoken_refine.qkv.weight.shape == (36, 12, 1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "heads=5: accepted is a number that divides width=12"),
        ({"heads": 0}, "heads=0: accepted is a number that divides width=12"),
        ({"cell": (0, 4)}, r"cell=\(0, 4\), iterations=1: accepted are numbers from 1 up"),
        ({"iterations": 0}, r"cell=\(4, 4\), iterations=0: accepted are numbers from 1 up"),
    ],
)
def test_what_is_no_module(options: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message):
        module(**options)  # type: ignore[arg-type]


def network() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """For `tests.test_supertoken:network` on the command line: a stem, and a map that cells of 4 do not divide."""
    torch.manual_seed(0)
    stem = torch.nn.Conv2d(3, 12, 4, stride=4)
    return torch.nn.Sequential(stem, module(iterations=2)).eval(), {"input": drawn(2, 3, 40, 56)}


def test_export(tmp_path: Path):
    """One bundle for every batch, of standard operators, with attention as one node, that gives the module's values."""
    edgetok.export(f"{__name__}:network", out=tmp_path / "bundle")
    nodes = [node.op_type for node in onnx.load(tmp_path / "bundle" / "model.onnx").graph.node]
    assert nodes.count("Attention") == 1 and nodes.count("Gather") == 5
    assert not {"Col2Im", "ScatterElements", "ScatterND", "GatherND", "GatherElements", "ConvTranspose"} & set(nodes)
    net, _ = network()
    with edgetok.load(tmp_path / "bundle") as opened:
        for batch in (1, 3):
            x = drawn(batch, 3, 40, 56)
            with torch.no_grad():
                wanted = net(x).numpy()
            np.testing.assert_allclose(opened.run({"input": x.numpy()})["output"], wanted, rtol=0, atol=1e-5)
