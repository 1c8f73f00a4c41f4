"""From the times of single nodes to a table of blocks.

Node names say where a node belongs: `embed/...`, `blocks.3/attention/...`, `blocks.3/reduce/...`, `blocks.3/mlp/...`,
`head/...`. A runtime's optimiser renames what it fuses ("BiasGelu_token_4"); such a node is counted with the node that
ran before it, and the table says how much time was placed that way.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

PLACE = re.compile(r"(?:^|\s)(?:(embed|head)|(blocks\.\d+)/(attention|reduce|mlp))/")
Place = tuple[str, str]  # block and part: ("blocks.3", "mlp"); embed and head have the part ""
OTHER: Place = ("other", "")


@dataclass(frozen=True)
class NodeTime:
    """One node in one run, in microseconds."""

    name: str
    op: str
    start: float
    duration: float


@dataclass(frozen=True)
class ProfiledRun:
    """One run with the runtime's profiler on; times in microseconds, nodes in the order they ran."""

    start: float
    duration: float
    nodes: tuple[NodeTime, ...]


@dataclass(frozen=True)
class Layer:
    """One row: the embedding, a block or the head; times in milliseconds."""

    name: str
    tokens_in: int | None
    tokens_out: int | None
    milliseconds: float
    share: float  # of the whole run
    attention: float | None  # the parts of a block
    mlp: float | None
    reduce: float | None  # None: nothing was inserted here
    saved: float | None  # what attention and mlp took less than in the same block of the unreduced model


@dataclass(frozen=True)
class LayerTable:
    """Where the time of a run goes, in milliseconds; `layers` and `between_nodes` add up to `whole`.

    Means of the faster half of the runs: means add up, and what others did on the machine is mostly in the slower half.
    """

    whole: float
    layers: tuple[Layer, ...]
    between_nodes: float  # the runtime between two nodes, its profiler included
    by_neighbour: float  # how much of `layers` was placed by the neighbours in execution order
    merging_cost: float | None  # all `reduce` parts; None: nothing is reduced
    blocks_saved: float | None  # all `saved`; None: there is no unreduced model to compare with
    runs: int  # all of them
    mean_tokens: bool = False  # whether counts of tokens are means over samples: each input has its own


@dataclass(frozen=True)
class Operator:
    """All nodes of one kind in a run, in milliseconds: means of the faster half of the runs."""

    op: str
    calls: int
    milliseconds: float


def places(nodes: Sequence[NodeTime]) -> list[tuple[Place, bool]]:
    """Where each node belongs, and whether its own name says so."""
    named = [_place(node.name) for node in nodes]
    first = next((place for place in named if place), OTHER)
    found, last = [], first
    for place in named:
        last = place or last
        found.append((last, place is not None))
    return found


def layer_table(
    runs: Sequence[ProfiledRun],
    *,
    tokens: Sequence[tuple[int, int]] | None = None,
    unreduced: "LayerTable | None" = None,
) -> LayerTable:
    """Add up the nodes.

    Args:
        runs: at least one.
        tokens: how many tokens enter and leave each block.
        unreduced: the table of the model before reduction, measured beside this one.
    """
    quiet = _quiet(runs)
    scale = 1e3 * len(quiet)  # from the sum of microseconds to the mean in milliseconds
    times: dict[Place, float] = defaultdict(float)
    by_neighbour = 0.0
    for run in quiet:
        for node, (place, named) in zip(run.nodes, places(run.nodes), strict=True):
            times[place] += node.duration / scale
            by_neighbour += 0 if named or place == OTHER else node.duration / scale
    whole = sum(run.duration for run in quiet) / scale
    baseline = {layer.name: layer for layer in unreduced.layers} if unreduced else {}
    layers = tuple(
        _layer(block, times, whole, tokens, baseline.get(block)) for block in sorted({b for b, _ in times}, key=_order)
    )
    costs = [layer.reduce for layer in layers if layer.reduce is not None]
    savings = [layer.saved for layer in layers if layer.saved is not None]
    return LayerTable(
        whole=whole,
        layers=layers,
        between_nodes=whole - sum(times.values()),
        by_neighbour=by_neighbour,
        merging_cost=sum(costs) if costs else None,
        blocks_saved=sum(savings) if savings else None,
        runs=len(runs),
    )


def operator_table(runs: Sequence[ProfiledRun]) -> tuple[Operator, ...]:
    """Add up the nodes by kind, the longest first, over the runs that `layer_table` takes."""
    quiet = _quiet(runs)
    times: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for run in quiet:
        for node in run.nodes:
            times[node.op] += node.duration / 1e3 / len(quiet)
            calls[node.op] += 1
    longest = sorted(times, key=lambda op: -times[op])
    return tuple(Operator(op, round(calls[op] / len(quiet)), times[op]) for op in longest)


def _quiet(runs: Sequence[ProfiledRun]) -> list[ProfiledRun]:
    """The faster half: what others did on the machine is mostly in the slower one."""
    return sorted(runs, key=lambda run: run.duration)[: (len(runs) + 1) // 2]


def inlined(model: Path, own: Collection[str] = ()) -> bytes:
    """The model with its functions written out, every node of a body named after the call it came from.

    ONNX Runtime inlines functions as well, but forgets which call a node came from. External data stays where it is.

    Args:
        model: the file.
        own: functions that the runtime has operators for, and does not inline.
    """
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes.common import InlinePass

    proto = onnx.load(model, load_external_data=False)
    if not proto.functions:
        return model.read_bytes()
    graph = ir.from_proto(proto)
    for identifier in [each for each in graph.functions if each[1] in own]:
        del graph.functions[identifier]
    named = {node.name for node in graph.graph}
    for node in graph.graph:
        node.metadata_props["call"] = node.name or ""  # the inliner hands a call's metadata on to the body's nodes
    InlinePass()(graph)
    for i, node in enumerate(graph.graph):
        if node.name not in named:
            node.name = f"{node.metadata_props['call']}/{node.op_type}.{i}"
    return bytes(ir.to_proto(graph).SerializeToString())


def _place(name: str) -> Place | None:
    if not (match := PLACE.search(name)):
        return None
    outside, block, part = match.groups()
    return (outside, "") if outside else (block, part)


def _order(block: str) -> tuple[int, int]:
    stages = ["embed", "blocks", "head", "other"]
    stage, _, number = block.partition(".")
    return stages.index(stage), int(number or 0)


def _layer(
    block: str,
    times: dict[Place, float],
    whole: float,
    tokens: Sequence[tuple[int, int]] | None,
    unreduced: Layer | None,
) -> Layer:
    attention, mlp, reduce = (times.get((block, part)) for part in ("attention", "mlp", "reduce"))
    total = sum(time for (name, _), time in times.items() if name == block)
    number = _order(block)[1] if block.startswith("blocks.") else None
    entering, leaving = tokens[number] if tokens is not None and number is not None else (None, None)
    saved = None
    if unreduced is not None and number is not None:
        saved = unreduced.milliseconds - (unreduced.reduce or 0) - (total - (reduce or 0))
    return Layer(block, entering, leaving, total, total / whole, attention, mlp, reduce, saved)
