"""The entry point of the `emtta` command: its verbs, and its error handling.

Exit codes: see `flows.cli._output`.
"""

import atexit
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import pairwise
from typing import Annotated, NoReturn

import typer

from emtta_core.errors import EmttaError, UsageError
from emtta_core.faults import machine_fault
from emtta_core.network import configure_proxies
from emtta_core.sanitize import without_passwords
from flows.cli import _log, demo, doctor, report, rerun, run, runs, schedule, suites, upkeep
from flows.cli._options import flowing
from flows.cli._output import ERROR, USAGE, configure_streams, echo


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"emtta {version('emtta')}")
        raise typer.Exit


app = typer.Typer(
    name="emtta",
    help="Evaluate test-time adaptation of speech recognisers by entropy minimisation, domain by domain.",
    epilog="Begin with: emtta run smoke (a minute), emtta run demo (some minutes), emtta report leaderboard.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Handle the options before a verb."""


for _verb in (
    *(run.run, run.prepare, rerun.rerun, runs.status, runs.runs, report.report, runs.view, runs.compare),
    *(report.sql, rerun.score, runs.export, upkeep.check, upkeep.compact, upkeep.prune),
    *(suites.listen, suites.suites, schedule.schedule, schedule.server, doctor.doctor),
):
    app.command("list" if _verb is runs.runs else None, help=flowing(_verb.__doc__))(_verb)
app.add_typer(upkeep.catalog, name="catalog")
app.add_typer(demo.app, name="demo")


def command() -> NoReturn:
    """Run the command, and exit with its exit code.

    The interpreter is not shut down: threads of native libraries may still be running, and one that requests the GIL
    during shutdown would abort the process. Exit handlers run before.
    """
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    finally:
        for last in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):  # type: ignore[attr-defined]
            with suppress(Exception, KeyboardInterrupt):
                last()
        os._exit(code if isinstance(code, int) else int(code is not None))


def main() -> None:
    """Run the command; a user error ends it with only its message."""
    configure_streams()
    for sentence in configure_proxies():
        echo(sentence)
    try:
        _refuse_empty(sys.argv[1:])
        try:
            app(prog_name="emtta")  # under `python -m` too, so that shell completion uses the installed name
        finally:
            sys.stdout.flush()
    except UsageError as error:
        echo(f"error: {error}")
        sys.exit(USAGE)
    except EmttaError as error:
        echo(f"error: {error}")
        sys.exit(ERROR)
    except Exception as error:
        fault = machine_fault(error)
        if fault is not None:
            echo(f"error: {fault}")
        else:
            echo(f"unexpected error: {type(error).__name__}: {error}")
            echo(f"this looks like a bug, please report it; the details {_save_traceback()}")
        sys.exit(ERROR)


def _refuse_empty(arguments: Sequence[str]) -> None:
    # A shell expands an unset variable in quotes to an empty argument.
    for previous, argument in pairwise(["emtta", *arguments]):
        name, sign, value = argument.partition("=") if argument.startswith("--") else (previous, "=", argument)
        if sign and not value.strip():
            raise UsageError(f"the value of {name} is empty; give one, or leave it out")


def _save_traceback() -> str:
    text = without_passwords(traceback.format_exc())
    with suppress(OSError):
        path = _log.current()
        if path is not None:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
            return f"are in {path}"
    with (
        suppress(OSError),
        tempfile.NamedTemporaryFile("w", prefix="emtta-error-", suffix=".log", encoding="utf-8", delete=False) as file,
    ):
        file.write(text)
        return f"are in {file.name}"
    return f"could not be written to a file:\n{text}"
