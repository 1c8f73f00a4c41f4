"""Models that read bytes: ByT5's ids, MrT5's gate, H-Net's chunks; equal to published code, and as graphs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgetok.exporters.sources.pytorch import capture_module
from edgetok.model import Origin
from edgetok.modules.byte_ids import ByteIds, IdBytes
from edgetok.modules.delete_gate import DeleteGate, Deletion
from edgetok.modules.dynamic_chunking import Chunk, Dechunk, Router
from tests.comparison import check_values, run, session

GOLDEN = Path(__file__).parent / "golden" / "tokenizers"


def arrays(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as found:
        return {key: torch.from_numpy(np.asarray(found[key])) for key in found.files}


def graph(module: torch.nn.Module, feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The exported module's outputs, of these inputs with the batch and the length free."""
    free = {name: {1: "length"} for name, value in feeds.items() if value.dim() > 1}
    captured = capture_module(module, feeds, Origin("callable", "bytes"), free=free)
    shorter = {name: value[:, :-1] if value.dim() > 1 else value for name, value in feeds.items()}
    return run(session(captured.model), shorter)


def test_byt5_ids() -> None:
    golden = json.loads((GOLDEN / "text_byt5.json").read_text())
    texts = [text.encode() for text in golden["strings"]]
    padded = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.int64)
    for row, text in zip(padded, texts, strict=True):
        row[: len(text)] = torch.tensor(list(text))
    length = torch.tensor([len(text) for text in texts])
    ids = ByteIds()(padded, length)
    assert [row[: n + 1].tolist() for row, n in zip(ids, length, strict=True)] == golden["ids"]
    assert all((row[n + 1 :] == golden["pad"]).all() for row, n in zip(ids, length, strict=True))
    back = IdBytes()(ids)
    assert torch.equal(back["length"], length) and torch.equal(back["bytes"][:, :-1], padded)
    some = {"bytes": padded[:3, :20], "length": length[:3].clamp(max=19)}
    assert torch.equal(graph(ByteIds(), some)["output"], ByteIds()(some["bytes"][:, :-1], some["length"]))


def gate() -> tuple[DeleteGate, dict[str, torch.Tensor]]:
    golden = arrays("mrt5_gate")
    module = DeleteGate(16, float(golden["scale"]))
    state = {
        "layer_norm": golden["ln_weight"], "feed_forward.weight": golden["ff_weight"],
        "feed_forward.bias": golden["ff_bias"],
    }  # fmt: skip
    module.load_state_dict(state)
    return module.requires_grad_(False), golden


def test_mrt5_gate_and_what_is_left() -> None:
    module, golden = gate()
    found = module(golden["hidden"], golden["input_ids"])
    torch.testing.assert_close(found, golden["gate_values"], rtol=0, atol=2e-6)
    left = Deletion(float(golden["threshold"]))(golden["hidden"], golden["gate_values"])
    most = golden["hidden_kept"].shape[1]
    here = golden["new_mask"] == 0
    assert torch.equal(left["mask"][:, :most], golden["new_mask"]) and (left["mask"][:, most:] == -1e9).all()
    assert torch.equal(left["places"][:, :most], golden["keep_positions"].long())
    assert torch.equal((left["tokens"][:, :most] * here), golden["hidden_kept"] * here)


def test_mrt5_as_graphs() -> None:
    module, golden = gate()
    feeds = {"hidden": golden["hidden"], "ids": golden["input_ids"].long()}
    short = {name: value[:, :-1] for name, value in feeds.items()}
    wanted = {"output": module(**short)}
    check_values(graph(module, feeds), wanted, wanted)
    feeds = {"hidden": golden["hidden"], "gate": golden["gate_values"]}
    wanted = Deletion()(**{name: value[:, :-1] for name, value in feeds.items()})
    for name, value in graph(Deletion(), feeds).items():
        assert torch.equal(value, wanted[name])


def router() -> tuple[Router, dict[str, torch.Tensor]]:
    golden = arrays("hnet_routing")
    module = Router(16)
    module.load_state_dict({"q_proj_layer.weight": golden["q_w"], "k_proj_layer.weight": golden["k_w"]})
    return module.requires_grad_(False), golden


def test_hnet_routes_chunks_and_smooths() -> None:
    """The smoothing has no published run on a CPU: it is compared with the recurrence, step by step."""
    module, golden = router()
    routed = module(golden["hidden"], golden["mask"])
    torch.testing.assert_close(routed["probability"], golden["boundary_prob"], rtol=0, atol=1e-6)
    assert torch.equal(routed["boundary"], golden["boundary_mask"])
    chunked = Chunk()(golden["hidden"], routed["boundary"])
    most = golden["chunked"].shape[1]
    assert torch.equal(chunked["mask"][:, :most], golden["chunk_mask"]) and not chunked["mask"][:, most:].any()
    here = golden["chunk_mask"][..., None]
    assert torch.equal(chunked["chunks"][:, :most] * here, golden["chunked"] * here)
    whole = torch.zeros_like(golden["hidden"])
    whole[:, :most] = golden["z_in"]
    out = Dechunk()(whole, golden["boundary_prob"], golden["boundary_mask"])
    torch.testing.assert_close(out, golden["upsampled_INFERRED"], rtol=1e-4, atol=1e-5)


def test_smoothing_is_the_recurrence() -> None:
    seeded = torch.Generator().manual_seed(0)
    z, p = torch.randn(2, 40, 3, generator=seeded).double(), torch.rand(2, 40, generator=seeded).double()
    everywhere = torch.ones(2, 40, dtype=torch.bool)
    before, wanted = torch.zeros(2, 3).double(), []
    for j in range(40):
        share = p[:, j, None].clamp(1e-4, 1 - 1e-4)
        before = (1 - share) * before + share * z[:, j]
        wanted.append(before)
    torch.testing.assert_close(Dechunk()(z, p, everywhere), torch.stack(wanted, dim=1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("part", ["router", "chunk", "dechunk"])
def test_hnet_as_graphs(part: str) -> None:
    module, golden = router()
    hidden, boundary = golden["hidden"], golden["boundary_mask"]
    of, feeds = {
        "router": (module, {"hidden": hidden, "mask": golden["mask"]}),
        "chunk": (Chunk(), {"hidden": hidden, "boundary": boundary}),
        "dechunk": (Dechunk(), {"chunks": hidden, "probability": golden["boundary_prob"], "boundary": boundary}),
    }[part]
    wanted = of(**{name: value[:, :-1] for name, value in feeds.items()})
    wanted = wanted if isinstance(wanted, dict) else {"output": wanted}
    found = graph(of, feeds)
    for name, value in wanted.items():
        if value.is_floating_point():
            check_values({name: found[name]}, {name: value}, {name: value})
        else:
            assert torch.equal(found[name], value)
