"""Queries: `emtta report` shows named reports or writes a run's page; `emtta sql` runs any query."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from emtta_core.names import counted
from flows.cli._options import (
    DEFAULT_STORE,
    ColumnsOption,
    FormatOption,
    MemoryOption,
    OutOption,
    ParamOption,
    ScorerOption,
    StoreOption,
    TimeoutOption,
    limits,
    names,
    pairs,
)
from flows.cli._output import Format, echo, echo_if_empty, format_of, show

if TYPE_CHECKING:
    from emtta_core.store import Store
    from emtta_core.store.catalogue import Catalogue
    from emtta_core.store.queries import Limits
    from emtta_core.store.result import Result

PAGE = "html"
"""The name of the page among the reports."""

ENDINGS = (".html", ".htm")
"""File extensions of the page."""

OUT = "emtta-{run}.html"
"""The default name of the file."""


_OF_DOMAINS = frozenset({"leaderboard", "methods", "groups", "steps"})
"""Reports whose figures are hidden until every domain is complete."""


_JUDGED = frozenset({"leaderboard", "methods", "groups", "between"})
"""Reports followed by a note on the best method, and on what the intervals do not cover."""


def report(
    name: Annotated[
        str | None,
        typer.Argument(
            help="leaderboard, methods, groups, domains, matrix, steps, errors, worsened, oracle, speed, paper, …; "
            "html for the run's page. Without a name: the list of reports.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="The run; the newest by default.", show_default=False)
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    param: ParamOption = None,
    scorer: ScorerOption = None,
    columns: ColumnsOption = None,
    form: FormatOption = None,
    to: OutOption = None,
    audio: Annotated[
        int,
        typer.Option("--audio", metavar="N", help="For html: number of recordings in the page, 50 to 250 kB each."),
    ] = 0,
    timeout: TimeoutOption = None,
    memory: MemoryOption = None,
) -> None:
    """Show a report on a run, write the run's HTML page, or list the reports and their parameters.

    Examples:
        emtta report leaderboard

        emtta report leaderboard --columns method,group,wer,p

        emtta report domains --run demo-1a2b3c4d --param group=noise --format markdown

        emtta report leaderboard --scorer jiwer

        emtta report errors --param method=em-tok-b --param kind=deletion

        emtta report html --run demo-1a2b3c4d --out demo.html --audio 10

        emtta report
    """
    from emtta_core.errors import UsageError
    from emtta_core.store.describe import report_list

    parameters = pairs(param)
    if "run_id" in parameters:
        raise UsageError(f"--param run_id={parameters['run_id']} is not a parameter; name the run with --run ID")
    if name == PAGE:
        if parameters or form is not None or columns is not None:
            raise UsageError(
                f"{PAGE} is a page, not a table; its options are --run, --scorer, --out, --audio and the limits"
            )
        _write_page(run, store, to, audio, scorer, limits(timeout, memory))
        return
    if audio:
        raise UsageError(f"--audio {audio} is only for `emtta report {PAGE}`; a table has no recordings")
    chosen = format_of(form, to)
    if name is None:
        show(report_list(), chosen, to=to, columns=names(columns))
        return
    from emtta_core.store import Store
    from emtta_core.store.catalogue import Catalogue
    from emtta_core.store.describe import check_scored, heading, notices_of

    opened = Store.open(store)
    only = _only_run(opened, name, run)
    run_ids = None if only is None else [only]
    with Catalogue(opened, runs=run_ids, scorer=scorer, limits=limits(timeout, memory)) as catalogue:
        if run_ids:
            catalogue.cache_rows()  # as the notes below the table need queries too
        check_scored(catalogue, run, scorer)
        found = catalogue.report(name, run, **parameters)
        head = heading(catalogue, run) if name != "runs" else ""
        _show(found, chosen, f"{name}: {head}" if head else "", to, names(columns))
        echo_if_empty(found, catalogue.store)
        if name in _WHY_EMPTY and head and not found.table.num_rows:
            echo(_WHY_EMPTY[name])
        if chosen is Format.TABLE and name in _OF_DOMAINS:
            _show_complete_domains(catalogue, run, found)
        if chosen is Format.TABLE and name in _JUDGED:
            _echo_verdicts(catalogue, run)
        notices = notices_of(catalogue, run) if head else ()
    for sentence in notices:
        echo(sentence)


def _only_run(store: "Store", name: str, run: str | None) -> str | None:
    # The run that a report covers; None if it reads more than one run, or there is none.
    from emtta_core.errors import StoreError
    from emtta_core.store.reports import report as report_named

    if report_named(name).reads_store:
        return None
    if run is None:
        return next(iter(store.runs()), None)
    try:
        return None if store.find_run(run) is None else run
    except StoreError:  # the query reports what is wrong with its record
        return None


def _show(found: "Result", form: Format, head: str, to: Path | None, columns: list[str]) -> None:
    # A table has the run as its title; other formats are for programs, so the run goes to standard error.
    if head and form is not Format.TABLE:
        echo(head)
    show(found, form, head or None, to, columns)


def show_methods(catalogue: "Catalogue", run: str) -> None:
    """Show the available WERs by method and group, and what is missing."""
    found = catalogue.report("methods", run)
    if any(value is not None for record in found.records for value in _figures(record)):
        show(found, Format.TABLE, "word error rate, %")
        _echo_verdicts(catalogue, run)
    _show_complete_domains(catalogue, run, found)


def _show_complete_domains(catalogue: "Catalogue", run: str | None, found: "Result") -> None:
    # For figures that are hidden until every domain is complete: the complete domains, and what is missing.
    from emtta_core.store.result import Result

    if all(value is not None for record in found.records for value in _figures(record)):
        return
    matrix = catalogue.report("matrix", run)
    methods = [name for name in matrix.columns if name not in ("domain", "group")]
    missing = {method: [record["domain"] for record in matrix.records if record[method] is None] for method in methods}
    some = [any(record[method] is not None for method in methods) for record in matrix.records]
    if any(some):
        complete = Result(matrix.table.filter(some))
        show(complete, Format.TABLE, "domains that are complete: word error rate, %")
    by_domains: dict[tuple[str, ...], list[str]] = {}
    for method, domains in missing.items():
        if domains:
            by_domains.setdefault(tuple(domains), []).append(method)
    total = matrix.table.num_rows
    for incomplete, affected in by_domains.items():
        named = ", ".join(incomplete[:_MAX_LISTED]) + (
            f" and {len(incomplete) - _MAX_LISTED} more" if len(incomplete) > _MAX_LISTED else ""
        )
        echo(f"incomplete for {', '.join(affected)}: {len(incomplete)} of {total} domains: {named}")


def _echo_verdicts(catalogue: "Catalogue", run: str | None) -> None:
    from emtta_core.store.describe import cautions_of, verdicts_of

    for sentence in (*verdicts_of(catalogue, run), *cautions_of(catalogue, run)):
        echo(sentence)


_MAX_LISTED = 12
"""The most incomplete domains that a message names."""

_WHY_EMPTY = {
    "stream": "no method of this run adapts along a stream; a suite sets `stream`, as the suite continual does",
    "forgetting": "no stream of this run revisits the speech of a domain, as those of the suite continual do",
}
"""The message for a report without rows."""


def _figures(record: dict[str, object]) -> list[object]:
    # The values of a row that are hidden until every domain is complete.
    if "wer" in record:
        return [record["wer"]]
    return [value for name, value in record.items() if name not in ("method", "change_percent")]


def _write_page(
    run: str | None,
    store: str,
    out: Path | None,
    audio: int,
    scorer: str | None = None,
    limits: "Limits | None" = None,
) -> None:
    from emtta_core.errors import UsageError
    from emtta_core.report import make_page
    from emtta_core.store import Store

    if out is not None and out.suffix.lower() not in ENDINGS:
        raise UsageError(f"--out {out} is not the name of a page; write the HTML page to a file that ends in .html")
    if out is not None and not out.parent.is_dir():
        raise UsageError(
            f"cannot write {out}: there is no folder {out.parent}; create it, or name another file with --out"
        )
    page = make_page(Store.open(store), run, audio=audio, scorer=scorer, limits=limits)
    path = out or Path(OUT.format(run=page.run_id))
    content = page.html.encode()
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name another file with --out") from error
    contents = f", with {counted(page.recordings, 'recording')}" if audio else ""
    echo(f"{path}: page of run {page.run_id}, {decimal(len(content))}{contents}")
    if page.recordings < audio:
        echo(f"only {page.recordings} recordings of utterances that changed are available, not {audio}")


def sql(
    query: Annotated[
        str | None, typer.Argument(help="One SELECT, or a file that ends in .sql.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Read the SELECT from this file.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    param: ParamOption = None,
    scorer: ScorerOption = None,
    form: FormatOption = None,
    to: OutOption = None,
    timeout: TimeoutOption = None,
    memory: MemoryOption = None,
) -> None:
    """Query the store with DuckDB's SQL, or open a prompt if there is no query and no file.

    The prompt has a history and completes names with Tab; .help lists its commands. Piped input is one query.
    Views: runs, groups, cells, utterances, changes, edits, steps, …; sql/schema.md describes them and their columns.

    Examples:
        emtta sql "SELECT domain, method, wer FROM cells ORDER BY wer DESC LIMIT 5"

        emtta sql "FROM cells WHERE method = $method" --param method=em-tok-b --out cells.parquet

        emtta sql -f question.sql --format json

        emtta sql
    """
    from emtta_core.errors import UsageError
    from emtta_core.store import Store
    from emtta_core.store.catalogue import Catalogue

    chosen, parameters, text = format_of(form, to), pairs(param), _query(query, file)
    if text is None and (parameters or to):
        raise UsageError("--param and --out belong to a query: give one, or leave them out for a prompt")
    with Catalogue(Store.open(store), scorer=scorer, limits=limits(timeout, memory)) as catalogue:
        if text is None:
            from flows.cli._prompt import Prompt

            Prompt(catalogue, chosen).run()
        else:
            show(catalogue.query(text, parameters or None), chosen, to=to)


def _query(query: str | None, file: Path | None) -> str | None:
    # None for a prompt.
    from emtta_core.errors import UsageError

    if query is not None and file is not None:
        raise UsageError(f"give either a query or the file {file}, not both")
    if query is not None and query.endswith(".sql") and not any(character.isspace() for character in query):
        file = Path(query)
    if file is not None:
        try:
            return file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise UsageError(f"the query cannot be read from the file {file}: {reason}") from error
    if query is None and not sys.stdin.isatty():
        query = sys.stdin.read()
        if not query.strip():
            raise UsageError("no query given: pass it as an argument, with -f FILE, or on standard input")
    return query
