"""The prompt of `emtta sql`: queries that end with a semicolon, and commands that begin with a dot."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer

from emtta_core.errors import EmttaError, UsageError, unknown
from emtta_core.store.describe import describe, report_list, view_list
from emtta_core.store.reports import reports, views
from emtta_core.store.tables import TABLES
from flows.cli._options import pairs
from flows.cli._output import Format, echo, show

if TYPE_CHECKING:
    from emtta_core.store.catalogue import Catalogue

HELP = """\
A query ends with a semicolon, and may span several lines. Tab completes, the arrow keys recall earlier queries.
Ctrl-C discards the input, or stops the query.

  .views                         the views, and what a row of each is
  .schema NAME                   the columns of a view, or of raw.<table>
  .reports                       the reports, and their parameters
  .report NAME [NAME=VALUE …]    a report; its run as run_id=ID, the newest by default
  .format FORM                   output format: table, csv, json, markdown or latex
  .help                          this
  .quit                          quit (also Ctrl-D)"""

_AFTER_A_SOURCE = re.compile(r"\b(?:from|join|describe|summarize)\s+[\w.]*$", re.IGNORECASE)
_READABLE = [form.value for form in Format if form is not Format.PARQUET]
"""The formats that a terminal can show."""
_WORD = re.compile(r"[\w.]*$")


class Prompt:
    """A prompt on a store."""

    def __init__(self, catalogue: "Catalogue", form: Format = Format.TABLE) -> None:
        """Make a prompt.

        Raises:
            UsageError: a terminal cannot show this format.
        """
        self.catalogue = catalogue
        self.form = _readable(form)
        self._commands: Mapping[str, Callable[[list[str]], None]] = {
            ".help": lambda _: echo(HELP),
            ".views": lambda _: show(view_list(), self.form),
            ".schema": lambda given: show(describe(catalogue, _one(given, ".schema NAME")), self.form),
            ".reports": lambda _: show(report_list(), self.form),
            ".report": self._report,
            ".format": self._format,
        }

    def run(self) -> None:
        """Read and answer queries until the user quits."""
        session: PromptSession[str] = PromptSession(
            history=_history(),
            completer=Words(self.catalogue, [*self._commands, ".quit"]),
            complete_while_typing=False,
            lexer=PygmentsLexer(SqlLexer),
            multiline=True,
            prompt_continuation="   ... ",
            key_bindings=_keys(),
        )
        echo(f"{self.catalogue.store.location}: end queries with a semicolon; .help lists commands")
        while True:
            try:
                text = session.prompt("emtta> ").strip()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if text == ".quit":
                return
            self.answer(text)

    def answer(self, text: str) -> None:
        """Answer a query or a command; an error is shown, and the prompt continues."""
        try:
            if text.startswith("."):
                name, *given = text.rstrip(";").split()
                if name not in self._commands:
                    raise unknown("command", name, [*self._commands, ".quit"])
                self._commands[name](given)
            elif text.rstrip("; \n"):
                show(self.catalogue.query(text), self.form)
        except EmttaError as error:
            echo(f"error: {error}")
        except KeyboardInterrupt:
            echo("stopped")

    def _report(self, given: list[str]) -> None:
        name = _one(given[:1], ".report NAME [NAME=VALUE …]")
        show(self.catalogue.report(name, **pairs(given[1:])), self.form)

    def _format(self, given: list[str]) -> None:
        form = _one(given, ".format FORM")
        if form not in set(Format):
            raise unknown("format", form, _READABLE)
        self.form = _readable(Format(form))


class Words(Completer):
    """Completes the names of views, columns, functions, reports and commands where they are allowed."""

    def __init__(self, catalogue: "Catalogue", commands: Iterable[str]) -> None:
        """Look up the names."""
        self._sources = [*views(), *(f"raw.{table}" for table in TABLES)]
        self._commands = sorted(commands)
        columns = catalogue.query("SELECT DISTINCT column_name FROM duckdb_columns() WHERE NOT internal").rows
        quoted = catalogue.query("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'").rows
        reserved = {str(row[0]) for row in quoted}
        self._names = sorted(f'"{row[0]}"' if row[0] in reserved else str(row[0]) for row in columns)
        self._keywords = sorted(word.upper() for word in reserved)
        found = catalogue.query("SELECT DISTINCT function_name FROM duckdb_functions()").rows
        self._functions = sorted(str(row[0]) for row in found if str(row[0]).isidentifier())

    def get_completions(self, document: Document, _complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield completions of the word before the cursor."""
        text = document.text_before_cursor
        word = _WORD.search(text)
        typed = word[0] if word else ""
        for candidate in self._candidates(text):
            if typed and candidate.strip('"').lower().startswith(typed.lower()) and candidate != typed:
                yield Completion(candidate, start_position=-len(typed))

    def _candidates(self, text: str) -> Iterable[str]:
        line = text.lstrip()
        if line.startswith("."):
            command, space, _ = line.partition(" ")
            if not space:
                return self._commands
            return {".schema": self._sources, ".report": [*reports()], ".format": _READABLE}.get(command, ())
        if _AFTER_A_SOURCE.search(text):
            return self._sources
        return dict.fromkeys([*self._names, *self._sources, *self._keywords, *self._functions])


def _keys() -> KeyBindings:
    # The keys: Enter submits a command, or a query that ends with a semicolon; otherwise it begins a new line.
    keys = KeyBindings()

    @keys.add("enter")
    def _enter(event: KeyPressEvent) -> Any:
        text = event.current_buffer.text.strip()
        if not text or text.startswith(".") or text.endswith(";"):
            event.current_buffer.validate_and_handle()
        else:
            event.current_buffer.insert_text("\n")

    return keys


def _history() -> History:
    # Earlier queries, kept in the user's folder; only those of this session if it is not writable.
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "emtta"
    try:
        state.mkdir(parents=True, exist_ok=True)
        (state / "sql-history").touch()
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(state / "sql-history"))


def _one(given: list[str], usage: str) -> str:
    if len(given) != 1:
        raise UsageError(f"expected one name, but got {len(given)}; write {usage}")
    return given[0]


def _readable(form: Format) -> Format:
    if form is Format.PARQUET:
        raise UsageError(f"a prompt cannot show the format 'parquet'; choose from: {', '.join(_READABLE)}")
    return form
