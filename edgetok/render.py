"""A profile on the terminal."""

from math import log2

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edgetok import parts
from edgetok.comparison import Comparison
from edgetok.conditions import Energy
from edgetok.layers import LayerTable
from edgetok.manifest import Fidelity
from edgetok.report import Check, Measured, OnRuntime, ProfileReport, SparseLayer, TokenStatistics
from edgetok.roofline import Roofline
from edgetok.statistics import Quantile

WIDTH = 100
MARKS = {"fail": "[bold red]fail[/]", "pass": "[green]pass[/]", "warn": "[yellow]warn[/]", "unknown": "[dim]unknown[/]"}


def render(report: ProfileReport, console: Console) -> None:
    """Print the report: verdict, summary, comparison, parts, layers, what to know before trusting it."""
    sides = [side for side in (report.model, report.against) if side]
    console.print(_verdict(report) + "\n", width=WIDTH, highlight=False)
    if report.scenario:
        console.print(report.scenario, width=WIDTH, style="bold", markup=False, highlight=False)
    console.print(_summary(report.device, sides), width=WIDTH)
    if report.runtime_why:
        runtime = report.model.runtime["runtime"]
        console.print(f"Runtime: {runtime}, {report.runtime_why}\n", width=WIDTH, markup=False, highlight=False)
    if report.comparison:
        console.print(_comparison(report.comparison), width=WIDTH)
    if report.roofline:
        console.print(in_words(report.roofline) + "\n", width=WIDTH, markup=False, highlight=False)
    if report.tokenizer:
        console.print(_tokenizer(report.tokenizer), width=WIDTH)
    if report.runtimes:
        console.print(_runtimes(report.runtimes), width=WIDTH)
    console.print(_request(report.model) + "\n", width=WIDTH, markup=False, highlight=False)
    if report.model.layers:
        console.print(_layers(report.model.label, report.model.layers), width=WIDTH)
    if report.sparse:
        console.print(_sparse(report.sparse), width=WIDTH)
    console.print(_checks(report.checks), width=WIDTH)


def _verdict(report: ProfileReport) -> str:
    """Each limit in a line, and what casts doubt on all of it."""
    lines = [
        f"{MARKS[limit.verdict]} {escape(f'{limit.name}: {limit.found}; {limit.limit} demanded')}"
        for limit in report.limits
    ]
    if report.fidelity and not any("cosine" in limit.name for limit in report.limits):
        least = min(report.fidelity, key=lambda each: each.cosine)
        lines.append(escape(f"cosine to the original at the export: {least.cosine:.4f}, of {least.output}"))
    if report.doubts:
        lines.append(f"in doubt: {', '.join(report.doubts)}; see the end")
    return "\n".join([MARKS[report.verdict].replace(report.verdict, report.verdict.upper()), *lines])


def _summary(device: str, sides: list[Measured]) -> Table:
    table = Table(title=f"Latency on {device}", title_justify="left", caption_justify="left")
    table.caption = f"{sides[0].latency.scope}; [ ]: 95 % interval"
    table.add_column("")
    for side in sides:
        table.add_column(side.label, justify="right", overflow="fold")
    rows = {
        "median, ms": [_quantile(side.latency.median) for side in sides],
        "p90, ms": [_quantile(side.latency.p90) for side in sides],
        "p99, ms": [_quantile(side.latency.p99) for side in sides],
        "slowest, ms": [_number(max(side.latency.milliseconds)) for side in sides],
        "samples per second": [f"{side.latency.samples_per_second:.1f}" for side in sides],
        "peak memory, MB": [f"{side.memory.peak / 1e6:.0f}" for side in sides],
        "  before loading": [f"{side.memory.before_loading / 1e6:.0f}" for side in sides],
        "joules a run": [_joules(side.energy) for side in sides],
        "batch, runs": [f"{side.latency.batch}, {side.latency.runs}" for side in sides],
        "runtime": [f"{side.runtime['runtime']} {side.runtime['version']}" for side in sides],
        "threads": [side.runtime["threads"] for side in sides],
    }
    for name, cells in rows.items():
        table.add_row(name, *(Text(cell) for cell in cells))
    return table


def _quantile(quantile: Quantile) -> str:
    if not quantile.claimed:  # too few runs to bound it from above
        return f"{_number(quantile.value)} {'= slowest run ' if quantile.is_max else ''}[{_number(quantile.low)}, ?]"
    return f"{_number(quantile.value)} [{_number(quantile.low)}, {_number(quantile.high)}]"


def _joules(energy: Energy) -> str:
    if energy.gross is None:
        return energy.source.partition(":")[0]
    return f"{_number(energy.gross)}, net {_number(energy.net)}\n{energy.source}"


def in_words(roofline: Roofline) -> str:
    """The roofline as a sentence."""
    counted = f"{roofline.work.operations / 1e9:.3g} GFLOP and {roofline.work.bytes / 1e6:.3g} MB a run"
    if roofline.roof is None:
        return f"Roofline: {counted}; the peak of this machine in {roofline.precision} is not known"
    assert roofline.milliseconds is not None and roofline.share is not None
    least = f"at least {_number(roofline.milliseconds)} ms by {roofline.bound}, {roofline.share:.0%} of what it takes"
    peak = f"{roofline.precision} peak {roofline.roof.operations / 1e9:.0f} GFLOP/s: {roofline.roof.source}"
    return f"Roofline: {counted}, {least}; {peak}"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def _comparison(comparison: Comparison) -> Text:
    low, high = _number(comparison.speedup.low), _number(comparison.speedup.high)
    return Text(
        f"{comparison.label} is {comparison.speedup.value:.2f}x [{low}, {high}] as fast as {comparison.against}: "
        f"{comparison.verdict}, in {len(comparison.rounds)} interleaved rounds, one process a side\n",
        style="bold",
    )


def _tokenizer(found: TokenStatistics) -> Group:
    """Both directions, the rate, and a line per codebook."""
    decode = "no decoder"
    if found.decode is not None:
        decode = f"decode {_quantile(found.decode)} ms a batch of {found.decode_batch}"
    lines = [
        f"encode {_quantile(found.encode)} ms a batch of {found.batch}, {decode}",
        f"{found.tokens} tokens a sample of {found.units:.6g} {found.unit}s, {found.told_rate}",
    ]
    table = Table(title="Tokenizer", title_justify="left", caption_justify="left")
    table.caption = f"over {found.codebooks[0].ids} ids of the bundle's samples: no more codes and bits than these have"
    for name in ("codebook", "codes", "used", "share", "entropy, bits"):
        table.add_column(name, justify="right")
    for level, book in enumerate(found.codebooks):
        share, entropy = f"{book.used / book.size:.1%}", f"{book.entropy:.2f} of {log2(book.size):.2f}"
        table.add_row(str(level), str(book.size), str(book.used), share, entropy)
    return Group(table, Text("\n".join(lines) + "\n"))


def _runtimes(runtimes: tuple[OnRuntime, ...]) -> Group:
    first = runtimes[0].runtime["runtime"]
    table = Table(title="The bundle on each runtime, in turns", title_justify="left", caption_justify="left")
    table.caption = f"speed-up, and the least cosine of an output: to {first}'s, and to the original model's"
    for name in ("", "precision", "ms", "speed-up", f"cosine to {first}", "to the original"):
        table.add_column(name, justify="left" if name in ("", "precision") else "right")
    for each in runtimes:
        if each.median is not None:
            ratio = "1" if each.speedup is None else _quantile(each.speedup)
            cosine = "1" if each.speedup is None else _least(each.fidelity)
            name = f"{each.runtime['runtime']} {each.runtime['version']}"
            precision = each.runtime.get("precision", "the graph's")
            table.add_row(name, precision, _number(each.median), ratio, cosine, _least(each.original))
    refused = [f"{each.runtime['runtime']} does not run it: {each.refused}" for each in runtimes if each.refused]
    return Group(table, Text("\n".join([*refused, ""])))


def _least(fidelity: tuple[Fidelity, ...]) -> str:
    return f"{min(found.cosine for found in fidelity):.6f}" if fidelity else ""


def _sparse(layers: tuple[SparseLayer, ...]) -> Table:
    table = Table(title="Sparse attention", title_justify="left", caption_justify="left")
    table.caption = (
        "faster than dense from: as many tokens, measured here up to 2048 on one thread, at that density, with the "
        "technique's own choosing if that can be set to a density, else with block-topk's"
    )
    for name in ("block", "", "tokens", "density", "kept mass", "faster than dense from"):
        table.add_column(name, justify="right" if name else "left")
    for each in layers:
        mass = "not measured" if each.mass is None else f"{each.mass:.3f}"
        even = "never" if each.break_even is None else f"{each.break_even} tokens"
        table.add_row(str(each.block), each.technique, str(each.tokens), f"{each.density:.3f}", mass, even)
    return table


def _request(measured: Measured) -> str:
    """The parts of a request, in milliseconds."""
    told = ", ".join(f"{part.name} {_number(part.milliseconds.value)}" for part in measured.parts)
    sums = ", ".join(f"{where} {_number(taken)}" for where, taken in parts.together(measured.parts).items())
    lines = [f"A request, ms (medians): {told}; together {sums}."] if told else []
    return " ".join([*lines, parts.in_words(measured.parts)])


def _layers(label: str, layers: LayerTable) -> Group:
    compared = layers.blocks_saved is not None
    table = Table(title=f"Where a run of {label} goes", title_justify="left")
    for name in ("", "tokens", "ms", "share", "attention", "mlp", "reduce", *(["saved"] if compared else [])):
        table.add_column(name, justify="left" if not name else "right")
    for layer in layers.layers:
        tokens = layer.tokens_in, layer.tokens_out
        arrow = f"{tokens[0]}" if tokens[0] == tokens[1] else f"{tokens[0]} > {tokens[1]}"
        cells = [layer.name, "" if tokens[0] is None else arrow, _number(layer.milliseconds), f"{layer.share:.1%}"]
        parts = [layer.attention, layer.mlp, layer.reduce, *([layer.saved] if compared else [])]
        table.add_row(*cells, *("" if part is None else _number(part) for part in parts))
    table.add_row("between nodes", "", _number(layers.between_nodes), f"{layers.between_nodes / layers.whole:.1%}")
    table.add_section()
    table.add_row("one run", "", _number(layers.whole), "100.0%")
    return Group(table, Text(_in_words(layers)))


def _in_words(layers: LayerTable) -> str:
    placed = f"{_number(layers.by_neighbour)} ms placed by neighbours"
    note = ["tokens: the means over the bundle's samples; each input has its own counts"] if layers.mean_tokens else []
    lines = [f"the faster half of {layers.runs} runs with the profiler on; {placed}"]
    if layers.merging_cost is not None:
        lines.append(f"merging cost {_number(layers.merging_cost)} ms ({layers.merging_cost / layers.whole:.1%})")
        if layers.blocks_saved is not None:
            won = layers.blocks_saved - layers.merging_cost
            lines[-1] += f"; the smaller blocks saved {_number(layers.blocks_saved)} ms; won {_number(won)} ms"
    return "\n".join(lines + note) + "\n"


def _checks(checks: tuple[Check, ...]) -> Table:
    table = Table(title="Before you trust this", title_justify="left", show_header=False)
    for check in checks:
        table.add_row(check.name, MARKS[check.verdict], Text(check.detail))
    return table
