"""The terminal: one file per command.

A command is a function that returns an `Answer`; `main` prints it, as a table or as one JSON document, and turns what
goes wrong into one line and an exit code: 0 done, 1 failed, 2 used wrongly, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        import typer

        from edgetok.cli import _console

        command = typer.main.get_command(app())
        with command.make_context("edgetok", arguments) as context:
            answer = command.invoke(context)
        return _console.show(answer, as_json="--json" in arguments)
    except KeyboardInterrupt:
        from edgetok.cli import _console

        return _console.fail("KeyboardInterrupt", "interrupted", 130, as_json="--json" in arguments)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if isinstance(error, typer.Exit):  # --help and --version end this way
            return error.exit_code
        return _console.show_error(error, as_json="--json" in arguments, verbose="--verbose" in arguments)


def app() -> typer.Typer:
    """The command line as typer sees it; imports typer and nothing heavy."""
    import typer

    from edgetok.cli import (
        _console,
        build,
        build_plugins,
        compare,
        detokenize,
        devices,
        doctor,
        export,
        inspect,
        lint,
        profile,
        quantisers,
        run,
        sweep,
        techniques,
        text_graph,
        tokenize,
        tune,
    )

    found = typer.Typer(
        help="Make a transformer smaller and faster for an edge device, as one portable bundle that checks itself.",
        epilog="edgetok COMMAND --help says more about a command; --json prints one JSON document.",
        add_completion=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    found.callback()(_console.top)
    verbs = (export, run, tokenize, detokenize, profile, compare, tune, sweep)
    for module in (*verbs, text_graph, build, build_plugins, inspect, lint, techniques, quantisers, devices, doctor):
        name = module.__name__.rpartition(".")[2].replace("_", "-")
        found.command(name, cls=_console.Command)(module.command)
    return found
