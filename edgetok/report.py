"""What a profile reports, as data: schema-versioned JSON, a table of layers, a trace."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edgetok.comparison import Comparison
from edgetok.conditions import Conditions, Energy
from edgetok.errors import InputError, OutputError
from edgetok.layers import Layer, LayerTable, Operator
from edgetok.limits import Judged
from edgetok.manifest import Fidelity
from edgetok.parts import Part
from edgetok.roofline import Roofline
from edgetok.statistics import Quantile
from edgetok.timing import Timing, WarmUp
from edgetok.tokenizer.usage import CodebookUse, told_rate

if TYPE_CHECKING:
    from edgetok.page.pictures import TokenPicture

Verdict = Literal["pass", "warn", "unknown"]
REPORT = "report.json"
MOST_BYTES = 64 << 20  # of a saved profile; a run takes nine bytes of it, a node of the trace none
SCOPE = "host wall time of one run, from input arrays in memory to output arrays in memory; no preprocessing"
SCOPE_ON_CARD = "host wall time of one run, from inputs on the card to output arrays in memory; no preprocessing"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Latency(_Record):
    """How long one run takes, in milliseconds."""

    scope: str = SCOPE
    batch: int
    runs: int
    fastest: float
    median: Quantile
    p90: Quantile
    p99: Quantile
    samples_per_second: float
    drift: float  # by how much the second half of the runs was slower than the first
    warm_up: WarmUp
    milliseconds: tuple[float, ...]  # every run, in the order made

    @classmethod
    def of(cls, timing: Timing, batch: int, *, on_card: bool = False) -> "Latency":
        """Summarise a measurement; on a card the inputs were copied there before it."""
        times = timing.milliseconds
        return cls(
            scope=SCOPE_ON_CARD if on_card else SCOPE,
            batch=batch,
            runs=len(times),
            fastest=min(times),
            median=timing.quantile(0.5),
            p90=timing.quantile(0.9),
            p99=timing.quantile(0.99),
            samples_per_second=1e3 * batch * len(times) / sum(times),
            drift=timing.drift,
            warm_up=timing.warm_up,
            milliseconds=tuple(round(each, 4) for each in times),
        )


class Memory(_Record):
    """Memory of the process that ran the model, in bytes."""

    peak: int
    before_loading: int  # Python and its packages
    timeline: tuple[tuple[float, int], ...] = ()  # resident: (seconds since loading, bytes)


class Measured(_Record):
    """One model, measured.

    `parts` are those of a request in their order, empty where the runtime does not tell them apart; preparing the input
    is the first where it was made from a file. `layers` is None, and `operators` empty, where the runtime does not time
    single nodes. `bytes` are of its graphs and weights; None where that is not known.
    """

    label: str
    model_id: str
    runtime: dict[str, str]
    latency: Latency
    memory: Memory
    energy: Energy
    conditions: Conditions
    parts: tuple[Part, ...] = ()
    layers: LayerTable | None
    operators: tuple[Operator, ...]
    bytes: int | None = None


class OnRuntime(_Record):
    """The same bundle on one of the installed runtimes, in turns with the first of them.

    `median` is of the turns, in milliseconds; `speedup` and `fidelity` set it against the first, and are empty for it.
    `original` sets its outputs for the bundle's samples against the original model's. `refused` says why a runtime does
    not run the bundle; all else is empty then.
    """

    runtime: dict[str, str]
    median: float | None = None
    speedup: Quantile | None = None
    fidelity: tuple[Fidelity, ...] = ()
    original: tuple[Fidelity, ...] = ()
    refused: str | None = None


class TokenStatistics(_Record):
    """A tokenizer's own figures, of what it was measured with; `codebooks` are over the bundle's samples.

    `units` are the pixels or seconds of a sample, `rate` the bits of ids a unit. `encode` and `decode` are medians in
    milliseconds of one run, of `batch` and `decode_batch` samples at once; `decode` is None where there is no decoder.
    """

    unit: str
    units: float
    tokens: int
    rate: float
    codebooks: tuple[CodebookUse, ...]
    batch: int
    encode: Quantile
    decode: Quantile | None = None
    decode_batch: int | None = None

    @property
    def told_rate(self) -> str:
        """For people."""
        return told_rate(self.rate, self.unit)


class SparseLayer(_Record):
    """A block that attends sparsely: to `density` of the pairs of tokens, which hold `mass` of the dense attention.

    `mass` was measured on the samples at export, and is None where it was not. `break_even` is the number of tokens
    from which attention of that density was faster here than dense attention, and None where it never was.
    """

    block: int
    technique: str
    tokens: int
    density: float
    mass: float | None
    break_even: int | None


class Check(_Record):
    """Something that a reader must know before trusting the figures."""

    name: str
    verdict: Verdict
    detail: str


class ProfileReport(_Record):
    """A profile. `schema_version` grows whenever a reader of the JSON would have to change.

    `limits` are what was demanded, `fidelity` what the bundle's manifest says of its outputs, `command` what was typed,
    `roofline` the model's least time on the device, `scenario` how the queries came, where one was chosen,
    `runtime_why` why it ran on that runtime.
    """

    schema_version: Literal[1] = 1
    command: str | None = None
    scenario: str | None = None
    device: str
    environment: dict[str, Any]
    model: Measured
    against: Measured | None = None
    comparison: Comparison | None = None
    fidelity: tuple[Fidelity, ...] = ()
    limits: tuple[Judged, ...] = ()
    roofline: Roofline | None = None
    runtime_why: str | None = None
    runtimes: tuple[OnRuntime, ...] = ()
    tokenizer: TokenStatistics | None = None
    sparse: tuple[SparseLayer, ...] = ()
    checks: tuple[Check, ...]

    @property
    def doubts(self) -> tuple[str, ...]:
        """What the checks warn of, of whichever model."""
        return tuple(dict.fromkeys(each.name.partition(",")[0] for each in self.checks if each.verdict == "warn"))

    @property
    def verdict(self) -> Literal["pass", "warn", "fail"]:
        """The worst of the limits; a pass under doubtful conditions is a warning."""
        verdicts = {limit.verdict for limit in self.limits}
        if "fail" in verdicts:
            return "fail"
        return "warn" if "warn" in verdicts | {check.verdict for check in self.checks} else "pass"


def layers_csv(report: ProfileReport) -> str:
    """One line per block and model, times in milliseconds."""
    columns = [field.name for field in fields(Layer)]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["model", *columns], lineterminator="\n")
    writer.writeheader()
    for measured in filter(None, (report.model, report.against)):
        for layer in measured.layers.layers if measured.layers else ():
            writer.writerow({"model": measured.label, **asdict(layer)})
    return text.getvalue()


def save(
    report: ProfileReport,
    trace: Mapping[str, Any],
    folder: Path,
    *,
    pictures: "Sequence[TokenPicture]" = (),
    force: bool = False,
) -> None:
    """Write report.html, report.json, layers.csv and trace.json into a new folder: all of them or nothing.

    Raises:
        OutputError: the folder exists and `force` is not set, or it cannot be written.
    """
    from edgetok.page.html import profile_page

    check_folder(folder, force)
    files = {
        "report.html": profile_page(report, pictures),
        "report.json": report.model_dump_json(indent=2) + "\n",
        "layers.csv": layers_csv(report),
        "trace.json": json.dumps(trace) + "\n",
    }
    write_folder(files, folder)


def check_folder(folder: Path, force: bool) -> Path:
    """Make sure that a report's folder may be written, and give its path back; worth asking before the long work.

    Raises:
        OutputError: it exists and `force` is not set.
    """
    if folder.exists() and not force:
        raise OutputError(f"{folder} exists already: name another folder, or pass --force to write into it")
    return folder


def write_folder(files: Mapping[str, str], folder: Path) -> None:
    """Write texts by file name into a folder, all of them or nothing; of one that exists, only these are replaced.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            complete = Path(temporary) / "complete"
            complete.mkdir()
            for name, text in files.items():
                (complete / name).write_text(text, encoding="utf-8")
            if not folder.exists():
                os.rename(complete, folder)
                return
            for name in files:
                os.replace(complete / name, folder / name)
    except OSError as error:
        raise OutputError(f"cannot write the report to {folder}: {error.strerror}") from error


def read(path: Path) -> ProfileReport:
    """A profile that was saved.

    Args:
        path: its folder, or the report.json within.

    Raises:
        InputError: there is none, or it is of another version.
    """
    file = path / REPORT if path.is_dir() else path
    try:
        if file.stat().st_size > MOST_BYTES:
            raise InputError(f"{file} is {file.stat().st_size} bytes long: no profile is longer than {MOST_BYTES}")
        data = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    if not isinstance(data, dict) or "model" not in data:
        raise InputError(f"{file} is no profile: report.json as edgetok profile -o DIR writes it is accepted")
    if data.get("schema_version") != 1:
        raise InputError(f"{file} has schema version {data.get('schema_version')!r}; this edgetok reads version 1")
    try:
        return ProfileReport.model_validate_json(json.dumps(data))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}; measure it again") from error
