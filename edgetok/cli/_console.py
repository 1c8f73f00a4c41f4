"""What all commands share: their answers, their errors, progress, and how sizes are spelt."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetok import __version__
from edgetok.errors import EdgetokError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show the traceback of an error.")]
Device = Annotated[str, typer.Option("--on", metavar="DEVICE", help="auto, cpu or a name: see edgetok devices.")]

OrRemote = typer.Option("--on", metavar="DEVICE", help="auto, cpu, a name of edgetok devices, or ssh://user@host.")

Wheels = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Install on a device over SSH from these wheels, without a package index."),
]

Arithmetic = Annotated[
    str, typer.Option(metavar="a32|a8", help="a8: activations to int8 where weights have few bits; faster.")
]

RuntimeName = Annotated[
    str, typer.Option("--runtime", metavar="NAME", help="onnxruntime or openvino; on a card tensorrt, tensorrt-rtx ...")
]

ClickException: Any = typer.BadParameter.__mro__[2]  # typer has its own copy of click, or uses click, as versions go


@dataclass(frozen=True)
class Answer:
    """What a command found, for programs and for people.

    Attributes:
        data: what --json prints.
        render: prints the same for people.
        exit_code: 1 where what was found counts as a failure.
    """

    data: Any
    render: Callable[[Console], None]
    exit_code: int = 0


class Command(typer.core.TyperCommand):
    """A command whose libraries' chatter goes to stderr: stdout is for the answer alone."""

    def invoke(self, ctx: Any) -> Any:
        with redirect_stdout(sys.stderr):
            return super().invoke(ctx)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edgetok {__version__}")
        raise typer.Exit


def top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Make a transformer smaller and faster for an edge device, as one portable bundle that checks itself."""


def show(answer: Answer, *, as_json: bool) -> int:
    """Print an answer, and return the exit code."""
    if as_json:
        print(json.dumps(answer.data, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        from rich.console import Console

        answer.render(Console(highlight=False))
    sys.stdout.flush()
    return answer.exit_code


def show_error(error: Any, *, as_json: bool, verbose: bool) -> int:
    """Print an error as one line, and return the exit code."""
    kind, message = type(error).__name__, " ".join(str(error).split())
    code = error.exit_code if isinstance(error, EdgetokError) else 1
    if isinstance(error, ClickException):
        if kind == "NoArgsIsHelpError":  # older versions print the help themselves
            print(error.format_message())
            return 2
        kind, code, message = "UsageError", 2, _usage(error)
    elif isinstance(error, MemoryError):
        message = "the memory of this machine does not suffice"
    elif not isinstance(error, (EdgetokError, OSError)):
        message = f"{kind}: {message}; this is a fault of edgetok: --verbose shows where"
    if verbose:
        import traceback

        traceback.print_exception(error)
    return fail(kind, message, code, as_json=as_json)


def fail(kind: str, message: str, code: int, *, as_json: bool) -> int:
    """Say on one line why there is no answer, and return the exit code."""
    if as_json:
        print(json.dumps({"error": {"kind": kind, "message": message, "exit_code": code}}, ensure_ascii=False))
    else:
        red, plain = ("\033[1;31m", "\033[0m") if sys.stderr.isatty() else ("", "")
        print(f"{red}error:{plain} {message}", file=sys.stderr)
    return code


def _usage(error: Any) -> str:
    """A usage error on one line: what is wrong, near names, where the options are listed."""
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    see = f"see {context.command_path} --help" if context else ""
    return " ".join(filter(None, (text if text.endswith("?") else text.rstrip(".") + ";", see)))


@contextmanager
def progress(bar: bool = False) -> Iterator[Callable[[str, float], None]]:
    """A line on stderr that says what is being done and for how long; nothing where stderr is no terminal.

    With EDGETOK_PROGRESS=json it is lines of JSON instead, for a program that listens: edgetok on another machine.

    Args:
        bar: draw how much is done.

    Yields:
        Tells what is being done, and how much of it is done (0 to 1; 0 where that is not known).
    """
    if os.environ.get("EDGETOK_PROGRESS") == "json":
        yield _progress_in_json()
        return
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False), TimeElapsedColumn()]
    columns = [SpinnerColumn(), *([BarColumn(20)] if bar else []), *columns]
    # Twice a second: the drawing must not disturb what is being measured.
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=2) as line:
        task = line.add_task("starting", total=1)

        def tell(text: str, done: float) -> None:
            line.update(task, completed=done, description=f"{text} {done:.0%}" if done else text)

        yield tell


def _progress_in_json() -> Callable[[str, float], None]:
    """Tells in lines of JSON: at once when something else is begun, and else twice a second."""
    told, last = "", 0.0

    def tell(text: str, done: float) -> None:
        nonlocal told, last
        if text != told or time.monotonic() - last > 0.5:
            told, last = text, time.monotonic()
            print(json.dumps({"progress": text, "done": done}), file=sys.stderr, flush=True)

    return tell


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """An empty table in the style of all commands."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def pairs(rows: dict[str, str]) -> Table:
    """Names and what they are, without lines."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        made.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    return made


def size(count: float) -> str:
    """Bytes as people write them: 21.5 MB."""
    if count < 1000:
        return f"{count:.0f} bytes"
    unit, scale = next(((u, s) for u, s in (("kB", 1e3), ("MB", 1e6)) if count < 1000 * s), ("GB", 1e9))
    return f"{count / scale:.{0 if count >= 100 * scale else 1}f} {unit}"


def shape(dims: tuple[int | str, ...]) -> str:
    """A shape on one line: batch x 3 x 224 x 224."""
    return " × ".join(map(str, dims)) or "a single number"
