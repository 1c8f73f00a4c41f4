"""tune and sweep: choices of techniques, measured on this machine, or a sweep's on the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgetok.api import executors
from edgetok.api.exporting import export
from edgetok.api.loading import resolve_device
from edgetok.api.subject import prepare
from edgetok.bundle import Bundle, check_output
from edgetok.errors import UsageError
from edgetok.manifest import Dtype

if TYPE_CHECKING:
    from edgetok.journal import Journal
    from edgetok.tradeoff import Tradeoff
    from edgetok.tuning import Wanted

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Tuned:
    """What a tuner found.

    Attributes:
        table: everything that was measured, and what to do.
        bundle: exported with the choice; None where the target is out of reach.
    """

    table: Tradeoff
    bundle: Bundle | None


def tune(
    source: str,
    *,
    reduce: Sequence[str],
    out: str | Path,
    samples: str | Path | None,
    target_latency: str | None = None,
    min_cosine: float | None = None,
    device: str = "cpu",
    dtype: Dtype = "fp32",
    batch: int | None = None,
    length: int | None = None,
    size: int | tuple[int, int] | None = None,
    max_evaluations: int = 20,
    time_limit: str | None = None,
    rounds: int = 9,
    force: bool = False,
    progress: Progress | None = None,
) -> Tuned:
    """Choose technique, layers and counts by what this machine measures, and export the choice.

    What was measured is kept in OUT.journal: a run that was stopped goes on there, and another target begins with it.
    The table goes to OUT.tune.json, and with a picture to OUT.tune.html.

    Args:
        source: as `export` takes it.
        reduce: the techniques to choose from, as in ["tome,pitome"].
        out: the bundle's folder.
        samples: a folder with what the model will see; fidelity is measured on it.
        target_latency: "25ms": the highest fidelity that takes at most so long.
        min_cosine: the fastest with at least this cosine; one of the two is given.
        device: a profile of devices/ that fits this machine, "cpu", or "auto": see `edgetok.machine.resolve`.
        dtype, batch, length, size: as `export` takes them.
        max_evaluations: measure at most so many candidates.
        time_limit: "10m": begin no measurement after so long.
        rounds: turns of each side of a comparison.
        force: replace a bundle that is there.
        progress: told what is being done, and how far it is.

    Raises:
        EdgetokError: see edgetok/errors.py.
    """
    from edgetok import evaluation, tradeoff, tuning
    from edgetok.exporters.sources import CaptureOptions

    wanted = _wanted(target_latency, min_cosine)
    seconds = None if time_limit is None else tuning.duration("--time-limit", time_limit)
    machine, out = resolve_device(device).name, check_output(Path(out), force)
    tuning.check_techniques(reduce)
    subject = prepare(source, samples, CaptureOptions(batch=batch, length=length, size=size), dtype, progress)
    name, task = subject.name, subject.task()
    candidates = tuning.grid(reduce, task.work, task.prefix)
    space = [each.reduce for each in candidates]
    with (
        evaluation.Bench(task, rounds=rounds) as bench,
        _journal(out, {"source": name, "device": machine, **bench.identity(), "space": space}) as journal,
    ):
        limits = tuning.Limits(max_evaluations, seconds)
        decision, left_out = tuning.tune(candidates, bench.evaluate, journal, wanted, limits, progress)
        table = tradeoff.Tradeoff.of(
            journal.entries,
            tokens=task.work.tokens,
            cosine=bench.cosine,
            source=name,
            device=machine,
            measured_on=bench.identity(),
            wanted=wanted,
            decision=decision,
            left_out=left_out,
        )
    for kind in ("json", "html"):
        tradeoff.save(table, out.with_name(f"{out.name}.tune.{kind}"))
    if decision.verdict == "out of reach":
        return Tuned(table, None)
    chosen = decision.chosen
    bundle = export(
        source,
        out=out,
        reduce=list(map(str, evaluation.parse(chosen.reduce))) if chosen else (),
        dtype=dtype,
        batch=batch,
        length=length,
        size=size,
        min_cosine=min_cosine if min_cosine is not None else chosen.cosine - 1e-3 if chosen else 0.9,
        samples=samples,
        force=force,
        progress=(lambda text: progress(text, 1.0)) if progress else None,
    )
    return Tuned(table, bundle)


def sweep(
    source: str,
    *,
    reduce: Sequence[str],
    samples: str | Path | None,
    out: str | Path | None = None,
    target_latency: str | None = None,
    min_cosine: float | None = None,
    device: str = "cpu",
    dtype: Dtype = "fp32",
    batch: int | None = None,
    length: int | None = None,
    size: int | tuple[int, int] | None = None,
    rounds: int = 9,
    executor: str = "local",
    force: bool = False,
    progress: Progress | None = None,
) -> Tradeoff:
    """Measure choices that are spelt out, and give the same table as `tune`.

    With `out`, what was measured is kept in OUT.journal: a run that was stopped goes on there. A choice that the model
    refuses is told in the table.

    Args:
        source: as `export` takes it.
        reduce: one choice each, as in ["tome:keep=0.5", "tome:r=8,layers=0-5 + random:r=4,layers=6-11"].
        samples: a folder with what the model will see; fidelity is measured on it.
        out: a new .json or .csv file for the table, or a new folder for report.html, report.json and table.csv.
        target_latency, min_cosine: as `tune` takes them; without either nothing is chosen.
        device: a profile of devices/ that fits this machine, "cpu", or "auto": see `edgetok.machine.resolve`.
        dtype, batch, length, size: as `export` takes them.
        rounds: turns of each side of a comparison.
        executor: "local"; or "ray", and "ray:HOST:PORT": on the nodes of a Ray cluster that runs. Of its nodes only
            those in like states measure, and the table names them.
        force: replace a file that exists.
        progress: told what is being done, and how far it is.

    Raises:
        EdgetokError: see edgetok/errors.py.
    """
    from edgetok import evaluation, nodes, tradeoff, tuning
    from edgetok.exporters.sources import CaptureOptions

    if not reduce:
        raise UsageError("give what is to be measured, as in --reduce tome:keep=0.75 --reduce tome:keep=0.5")
    choices = list(dict.fromkeys(map(evaluation.spell, reduce)))
    wanted = None if target_latency is None and min_cosine is None else _wanted(target_latency, min_cosine)
    out = None if out is None else tradeoff.check_table(Path(out), force)
    where, address = executors.find(executor)
    with where.join(executors.How(device, rounds, address, progress or (lambda *_: None))) as opened:
        subject = prepare(source, samples, CaptureOptions(batch=batch, length=length, size=size), dtype, progress)
        joined = opened(subject)
        about = joined.nodes[0].about
        with _journal(out, {"source": subject.name, "device": about.device, **about.identity}) as journal:
            known = {entry.reduce for entry in journal.entries}
            left = [choice for choice in choices if choice not in known]
            refused = nodes.measure(joined.nodes, left, journal.append, progress)
            found = {entry.reduce: entry for entry in journal.entries}
            measured = [found[choice] for choice in choices if choice in found]
    if not measured:
        raise next(iter(refused.values()))
    table = tradeoff.Tradeoff.of(
        measured,
        tokens=about.tokens,
        cosine=about.cosine,
        source=subject.name,
        device=about.device,
        measured_on={**about.identity, **nodes.told(joined.nodes, joined.left_out)},
        wanted=wanted,
        decision=None if wanted is None else tuning.decide(measured, wanted),
        left_out={choice: str(refusal) for choice, refusal in refused.items()},
    )
    if out is not None:
        tradeoff.save(table, out)
    return table


def _wanted(target_latency: str | None, min_cosine: float | None) -> Wanted:
    from edgetok import tuning

    target = None if target_latency is None else 1e3 * tuning.duration("--target-latency", target_latency)
    return tuning.Wanted(target, min_cosine)


@contextmanager
def _journal(out: Path | None, owner: dict[str, Any]) -> Iterator[Journal]:
    """OUT.journal; for no output one that is forgotten."""
    from edgetok.journal import Journal

    with TemporaryDirectory(prefix="edgetok-") as folder:
        path = Path(folder) / "journal" if out is None else out.with_name(f"{out.name}.journal")
        with Journal(path, owner) as journal:
            yield journal
