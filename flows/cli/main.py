"""The entry of the `emtta` command: its verbs, and how an error ends it.

Exit codes: see `flows.cli.output`.
"""

import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from emtta_core.errors import EmttaError, UsageError
from flows.cli import (
    catalog,
    compact,
    compare,
    demo,
    doctor,
    listen,
    logs,
    prepare,
    prune,
    report,
    rerun,
    run,
    runs,
    schedule,
    sql,
    status,
    suites,
    view,
)
from flows.cli.options import flowing
from flows.cli.output import ERROR, USAGE, say


def _version(wanted: bool) -> None:
    """Say which release this is, and end."""
    if wanted:
        typer.echo(f"emtta {version('emtta')}")
        raise typer.Exit


app = typer.Typer(
    name="emtta",
    help="Evaluate test-time adaptation of speech recognisers by entropy minimisation, domain by domain.",
    epilog="Begin with: emtta run smoke (a minute), emtta run demo (some minutes), emtta report leaderboard.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a verb."""


for _verb in (
    *(run.run, prepare.prepare, rerun.rerun, status.status, runs.runs, report.report, view.view, compare.compare),
    *(sql.sql, schedule.schedule, compact.compact, prune.prune, suites.suites, listen.listen, doctor.doctor),
):
    app.command("list" if _verb is runs.runs else None, help=flowing(_verb.__doc__))(_verb)
app.add_typer(catalog.app, name="catalog")
app.add_typer(demo.app, name="demo")


def main() -> None:
    """Run the command; a mistake of the user's ends it with its message alone."""
    try:
        _refuse_empty(sys.argv[1:])
        app()
    except UsageError as error:
        say(f"error: {error}")
        sys.exit(USAGE)
    except EmttaError as error:
        say(f"error: {error}")
        sys.exit(ERROR)
    except Exception as error:
        say(f"unexpected error: {type(error).__name__}: {error}")
        say(f"this looks like a bug, please report it; the details are in {_write_down()}")
        sys.exit(ERROR)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse an argument without a character, as a shell makes of a variable that is not set."""
    for before, argument in pairwise(["emtta", *arguments]):
        name, sign, value = argument.partition("=") if argument.startswith("--") else (before, "=", argument)
        if sign and not value.strip():
            raise UsageError(f"what follows {name} is empty; write what is meant, or leave it out")


def _write_down() -> Path:
    """Write the traceback of the current exception to the run's log, or to a file of its own; return where."""
    text = traceback.format_exc()
    path = logs.current()
    if path is None:
        with tempfile.NamedTemporaryFile("w", prefix="emtta-error-", suffix=".log", delete=False) as file:
            file.write(text)
            return Path(file.name)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
    return path
