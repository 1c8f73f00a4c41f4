"""keep=faster: activations stay rounded only where that is measured to be faster."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

import edgetok
from edgetok.errors import Refusal, UsageError
from edgetok.layers import LayerTable, NodeTime, ProfiledRun, layer_table
from edgetok.lowbit.activations import Spec, parse
from edgetok.lowbit.faster import decide
from tests import families

ROUNDS = 11
PLAIN = {"embed/Gather": 100.0, "blocks.0/attention/MatMul": 200.0, "blocks.0/mlp/MatMul": 300.0,
         "blocks.1/attention/MatMul": 200.0, "blocks.1/mlp/MatMul": 300.0, "head/MatMul": 50.0}  # fmt: skip
BLOCKS = ("blocks.0", "blocks.1", "head")


def table(microseconds: Mapping[str, float], slowness: float) -> LayerTable:
    """What a profile of one run gives."""
    nodes, start = [], 0.0
    for name, time in microseconds.items():
        nodes.append(NodeTime(name, "MatMul", start, time * slowness))
        start += time * slowness
    return layer_table([ProfiledRun(0.0, start, tuple(nodes))])


class Clock:
    """Gives times by side, on a machine that is up to three times slower in some rounds, for all sides alike."""

    def __init__(self, **sides: Mapping[str, float | Sequence[float]]):
        self.sides, self.asked = sides, []

    def __call__(self, specs: Sequence[Spec | None]) -> list[list[LayerTable]]:
        self.asked = [None if spec is None else str(spec) for spec in specs]
        slowness = np.random.default_rng(0).uniform(1, 3, ROUNDS)
        names = {None: "plain"} | {
            spec: "linear" if "attention=false" in spec else "full" for spec in self.asked if spec
        }
        return [
            [
                table({**PLAIN, **{k: np.broadcast_to(v, ROUNDS)[i] for k, v in self.sides[names[spec]].items()}}, slow)
                for i, slow in enumerate(slowness)
            ]
            for spec in self.asked
        ]


def test_a_block_that_loses_and_attention_that_loses() -> None:
    clock = Clock(
        plain={},
        linear={"blocks.0/mlp/MatMul": 100.0, "blocks.1/mlp/MatMul": 310.0, "head/MatMul": 40.0},
        full={"blocks.0/mlp/MatMul": 100.0, "blocks.0/attention/MatMul": 250.0, "blocks.1/mlp/MatMul": 310.0},
    )
    kept = decide(parse("int8:migrate=true,keep=faster"), BLOCKS, clock)
    assert clock.asked == ["int8:migrate=true", "int8:attention=false,migrate=true", None]
    assert str(kept.spec) == "int8:attention=false,migrate=true,skip=1"
    assert parse(str(kept.spec)) == kept.spec
    for told in (
        "kept in 2 of 3 blocks, how many times as fast: 0 1.67 [1.67, 1.67], head 1.25 [1.25, 1.25]",
        "not shown to be faster in 1 0.98", "attention with rounded inputs: 0.889 [0.889, 0.889], left as it was",
    ):  # fmt: skip
        assert told in kept.note


def test_attention_that_wins() -> None:
    """Then blocks are judged with it: one that is slower in its linear layers wins by its attention."""
    fast = {"blocks.0/attention/MatMul": 100.0, "blocks.1/attention/MatMul": 100.0, "blocks.1/mlp/MatMul": 350.0}
    clock = Clock(plain={}, linear={"blocks.1/mlp/MatMul": 350.0}, full=fast)
    kept = decide(parse("int8:keep=faster,skip=head"), BLOCKS[:2], clock)
    assert str(kept.spec) == "int8:skip=head" and "2 [2, 2], kept" in kept.note


def test_what_the_interval_does_not_hold_goes() -> None:
    """Faster in 8 rounds of 11 is not shown; in 10 it is: the interval of 11 goes from the second to the tenth."""
    for wins, skip in ((8, "0"), (10, None)):
        times = [150.0] * wins + [400.0] * (ROUNDS - wins)
        clock = Clock(plain={}, linear={"blocks.0/mlp/MatMul": times, "blocks.1/mlp/MatMul": 100.0})
        kept = decide(parse("int8:attention=false,keep=faster"), BLOCKS[:2], clock)
        assert clock.asked == ["int8:attention=false", None]
        assert str(kept.spec) == "int8:attention=false" + (f",skip={skip}" if skip else "")


@pytest.mark.parametrize("spec", ["fp8:keep=faster", "fp4:keep=faster,skip=head"])
def test_where_nothing_wins(spec: str) -> None:
    """On a runtime without such products: nothing is rounded, and the user is told why and what to do."""
    slow = {name: 1.5 * time for name, time in PLAIN.items()}
    kept = decide(parse(spec), BLOCKS[:2], Clock(plain={}, linear=slow, full=slow))
    assert kept.spec is None
    assert kept.note.startswith(f"{spec}: no block is faster with rounded activations on this machine (at best 0.667")
    assert f"export with --activations {spec[:3]}, without keep=faster" in kept.note


def test_blocks_that_were_not_recognised() -> None:
    with pytest.raises(Refusal, match="keep=faster decides block by block, and nothing is rounded in a block"):
        decide(parse("int8:keep=faster"), {"MatMul"}, Clock(plain={}, linear={}, full={}))


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small ViT, and samples for it."""
    folder = tmp_path_factory.mktemp("vit")
    (folder / "vit.onnx").write_bytes(families.captured("vit")[0])
    (folder / "samples").mkdir()
    for seed in range(6):
        feeds = {name: value.numpy() for name, value in families.feeds("vit", batch=1, seed=seed).items()}
        np.savez(folder / "samples" / f"{seed}.npz", **feeds)
    return folder / "vit.onnx", folder / "samples"


def test_on_this_machine(vit: tuple[Path, Path], tmp_path: Path) -> None:
    """Whatever wins here: the recipe says it without keep, and gives the same bytes again."""
    file, samples = vit
    told: list[str] = []
    first = edgetok.export(
        str(file), out=tmp_path / "first", quantize=["int8:skip=head"], activations="int8:skip=head,keep=faster",
        samples=samples, progress=told.append,
    )  # fmt: skip
    resolved = first.manifest.recipe.activations
    (note,) = (text for text in told if "faster" in text or "kept in" in text)
    assert (f"--activations {resolved}: kept in " if resolved else "no block is faster") in note
    again = edgetok.export(
        str(file), out=tmp_path / "again", quantize=["int8:skip=head"], activations=resolved, samples=samples
    )
    assert again.id == first.id and again.model_path.read_bytes() == first.model_path.read_bytes()


def test_used_wrongly(vit: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="option keep='fast': accepted are all and faster"):
        parse("int8:keep=fast")
    with pytest.raises(UsageError, match="--activations int8:keep=faster times blocks on samples: give --samples DIR"):
        edgetok.export(str(vit[0]), out=tmp_path / "a", quantize=["int8"], activations="int8:keep=faster")
