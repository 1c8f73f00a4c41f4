"""How near `edgetok tune` comes to the best of all candidates: the figures of benchmarks/README.md.

    pip install edgetok[cpu] scikit-image
    PYTHONPATH=. python benchmarks/tuner.py --journal all.journal

Every candidate is measured once, as the tuner measures (in turns with the unreduced model, one process a side); a run
that was stopped goes on with the same journal. The tuner then searches in these figures for each target, and what it
finds is set against the best of all. With --fresh it also searches once more with measurements of its own.
"""

import argparse
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.tokenizer_data import packaged
from edgetok import tuning
from edgetok.api.subject import prepare
from edgetok.evaluation import Bench, Evaluation
from edgetok.exporters.sources import CaptureOptions
from edgetok.journal import Journal
from edgetok.search import Candidate

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
COSINES, SHARES = (0.9, 0.95, 0.98, 0.99, 0.995), (0.6, 0.7, 0.8, 0.9)
LIMITS = tuning.Limits(evaluations=20)


def photographs(folder: Path) -> Path:
    """The photographs that scikit-image ships, in a folder of their own."""
    for name in PHOTOGRAPHS:
        shutil.copy(packaged("skimage", f"data/{name}"), folder)
    return folder


def tuned(
    candidates: list[Candidate], evaluate: Callable[[str], Evaluation], wanted: tuning.Wanted
) -> tuple[Evaluation | None, int]:
    """What the tuner chooses, and how many candidates it measured for that."""
    with TemporaryDirectory() as folder, Journal(Path(folder) / "journal", {}) as journal:
        decision, _ = tuning.tune(candidates, evaluate, journal, wanted, LIMITS)
        return decision.chosen, len(journal.entries)


def row(found: Evaluation | None, count: int, every: Mapping[str, Evaluation], wanted: tuning.Wanted, kind: str) -> str:
    """A line of the table. The choice is judged by the exhaustive figures, whichever it was made by."""
    base = tuning.unreduced(list(every.values()))
    best = tuning.decide(list(every.values()), wanted).chosen

    def told(each: Evaluation | None) -> tuple[float, float, str]:
        if each is None and wanted.milliseconds is not None:
            return base, 1.0, "out of reach"
        milliseconds, cosine = (base, 1.0) if each is None else (base / each.speedup.value, each.cosine)
        return milliseconds, cosine, f"{each.reduce if each else 'unreduced'}: {milliseconds:.2f} ms, {cosine:.4f}"

    ours, optimum = told(every[found.reduce] if found else None), told(best)
    gap = ours[0] / optimum[0] - 1 if wanted.cosine is not None else 1 - ours[1] / optimum[1]
    target = f"cosine {wanted.cosine}" if wanted.cosine is not None else f"{wanted.milliseconds:.2f} ms"
    return f"| {target} | {kind} | {count} | {ours[2]} | {optimum[2]} | {gap:.2%} |"


def main() -> None:
    """Measure, search, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="zoo:dinov2-style-s14")
    parser.add_argument("--samples", type=Path, help="a folder; photographs of scikit-image when not given")
    parser.add_argument("--reduce", default="tome,pitome,random")
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5, help="of the turns of one comparison")
    parser.add_argument("--fresh", type=float, metavar="COSINE", help="search once more, and measure anew")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        samples = args.samples or photographs(Path(folder))
        subject = prepare(args.source, samples, CaptureOptions(), "fp32", None)
        task = subject.task()
        candidates = tuning.grid([args.reduce], task.work, task.prefix)
        with Bench(task, rounds=args.rounds, seconds=args.seconds) as bench:
            with Journal(args.journal, {"source": subject.name, **bench.identity()}) as journal:
                for number, candidate in enumerate(candidates, 1):
                    if candidate.reduce not in {entry.reduce for entry in journal.entries}:
                        journal.append(bench.evaluate(candidate.reduce))
                        print(f"{number} of {len(candidates)}: {candidate.reduce}", flush=True)
                every = {entry.reduce: entry for entry in journal.entries}
            base = tuning.unreduced(list(every.values()))
            targets = [tuning.Wanted(cosine=cosine) for cosine in COSINES]
            targets += [tuning.Wanted(milliseconds=share * base) for share in SHARES]
            print(f"{subject.name}, {bench.identity()['runtime']}, unreduced {base:.2f} ms, {len(every)} candidates\n")
            print("| target | figures | measured | found | best of all | gap |\n|---|---|---|---|---|---|")
            for wanted in targets:
                print(row(*tuned(candidates, every.__getitem__, wanted), every, wanted, "the same"), flush=True)
            if args.fresh is not None:
                wanted = tuning.Wanted(cosine=args.fresh)
                print(row(*tuned(candidates, bench.evaluate, wanted), every, wanted, "fresh"))


if __name__ == "__main__":
    main()
