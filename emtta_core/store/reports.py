"""The shipped SQL: the stack of views, the named reports, the declarations in their headers, and their parameters."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb

from emtta_core.entry import SQL
from emtta_core.errors import StoreError, UsageError, unknown
from emtta_core.store.result import SharedCell

_PARAMETER = re.compile(
    r"^-- param (?P<name>\w+)(?: = (?P<default>[^:\[]*?))?(?: \[(?P<allowed>[^\]]+)\])?: (?P<text>.*)$", re.MULTILINE
)
_COLUMNS = re.compile(r'--   (?P<names>(?:"?[\w<>…]+"?, )*"?[\w<>…]+"?) +(?P<text>\S.*)')
_CONTINUED = re.compile(r"--    +(?P<text>\S.*)")
_CELL = re.compile(r"^-- cell (?P<name>[\w/]+): (?P<template>.*)$", re.MULTILINE)
_OPTIONAL = re.compile(r"^-- optional (?P<name>\w+)$", re.MULTILINE)
_READS_STORE = re.compile(r"^-- of the whole store$", re.MULTILINE)
_DECLARATIONS = (_PARAMETER, _CELL, _OPTIONAL, _READS_STORE)
_GRAIN = "-- grain: "
_SUMMARY = re.compile(r"^-- (?P<name>[\w-]+): (?P<text>.*)$", re.MULTILINE)
_POSITION = re.compile(r"^\d+_")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of parameter value, for parameters without a list of allowed values."""

    pattern: str  # the regular expression that the whole value must match
    text: str  # description


KINDS: Mapping[str, Kind] = {
    "number": Kind("0*[1-9][0-9]{0,8}", "a whole number from 1"),
    "decimal": Kind(r"[0-9]{1,9}(\.[0-9]{1,9})?", "a number from 0, such as 3.8"),
    "effect": Kind(r"[0-9]{1,9}(\.[0-9]{1,9})?%?", "a number of points from 0, such as 0.5, or a share, such as 2%"),
}
"""By the name that replaces the list of allowed values."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a report, declared in its header by a line `-- param NAME = DEFAULT [ALLOWED]: TEXT`."""

    name: str  # its name; the query reads it with `getvariable('NAME')`, as text
    default: str | None  # its default value; None for NULL
    text: str  # description
    # The allowed values, or only the name of their kind; empty if any value is allowed.
    allowed: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind | None:
        """The kind of its values; None if they are listed or any value is allowed."""
        return KINDS.get(self.allowed[0]) if len(self.allowed) == 1 else None

    def check(self, value: str) -> None:
        """Raise a UsageError that describes the allowed values if `value` is not one of them."""
        if self.kind is not None:
            if not re.fullmatch(self.kind.pattern, value, re.ASCII):
                raise UsageError(f"the parameter {self.name} is {value!r}; it must be {self.kind.text}")
        elif self.allowed and value not in self.allowed:
            raise unknown(self.name, value, list(self.allowed))


@dataclass(frozen=True, slots=True)
class Query:
    """A shipped SQL file."""

    name: str  # the name of the view or report
    summary: str  # one line on what it shows
    grain: str  # what a row is; empty for a report
    notes: tuple[str, ...]  # the remaining lines of its header
    # The description of each column in the header, by name; columns described together share one.
    columns: Mapping[str, str]
    parameters: Mapping[str, Parameter]  # the parameters in its header, by name
    cells: tuple[SharedCell, ...]  # which columns share a cell when displayed
    optional: frozenset[str]  # the columns that are hidden when displayed if no row has a value
    reads_store: bool  # whether it reads runs other than its own, or prepared audio
    sql: str  # the whole file, one SELECT


@cache
def views() -> Mapping[str, Query]:
    """The views by name, each after the views it reads."""
    return _load("views")


@cache
def reports() -> Mapping[str, Query]:
    """The reports by name."""
    return _load("reports")


def report(name: str) -> Query:
    """The report of this name; if there is none, raises a UsageError that lists the names."""
    if name not in reports():
        raise unknown("report", name, list(reports()))
    return reports()[name]


def _load(folder: str) -> Mapping[str, Query]:
    files = sorted((SQL / folder).glob("*.sql"))
    if not files:
        raise StoreError(f"emtta's SQL files are missing from {SQL / folder}; install emtta again")
    return MappingProxyType({query.name: query for query in map(_parse, files)})


def _parse(file: Path) -> Query:
    name, sql = _POSITION.sub("", file.stem), file.read_text("utf-8")
    head = _SUMMARY.match(sql)
    if head is None or head["name"] != name:
        raise StoreError(
            f"{file} is not an SQL file of emtta: it does not begin with the line `-- {name}: what it shows`; remove "
            "the file, or reinstall emtta"
        )
    parameters = {
        match["name"]: Parameter(
            match["name"], match["default"], match["text"], tuple(filter(None, (match["allowed"] or "").split("|")))
        )
        for match in _PARAMETER.finditer(sql)
    }
    cells = tuple(SharedCell(match["name"], match["template"]) for match in _CELL.finditer(sql))
    optional = frozenset(match["name"] for match in _OPTIONAL.finditer(sql))
    grain, notes, columns = _read_head(sql)
    reads_store, text = bool(_READS_STORE.search(sql)), head["text"]
    return Query(name, text, grain, notes, columns, MappingProxyType(parameters), cells, optional, reads_store, sql)


def _read_head(sql: str) -> tuple[str, tuple[str, ...], Mapping[str, str]]:
    # The grain, the notes, and the meaning of each column, from the header of a file without its first line.
    grain, notes = "", list[str]()
    columns: dict[str, str] = {}
    described: list[str] = []
    for line in takewhile(lambda line: line.startswith("--"), sql.splitlines()[1:]):
        of_columns, continued = _COLUMNS.fullmatch(line), _CONTINUED.fullmatch(line)
        if of_columns:
            described = [name.strip('"') for name in of_columns["names"].split(", ")]
            columns |= dict.fromkeys(described, of_columns["text"])
        elif continued and described:
            columns |= {name: f"{columns[name]} {continued['text']}" for name in described}
        elif line.startswith(_GRAIN):
            grain = line.removeprefix(_GRAIN)
        elif line != "-- columns:" and not any(one.fullmatch(line) for one in _DECLARATIONS):
            notes.append(line.removeprefix("-- "))
    return grain, tuple(notes), MappingProxyType(columns)


_RUNS = "SELECT run_id FROM raw.runs ORDER BY created_at DESC, run_id DESC"
_BEFORE = """
    SELECT arg_max(earlier.run_id, (earlier.created_at, earlier.run_id))
    FROM raw.runs AS earlier
    INNER JOIN raw.runs AS this USING (suite, model)
    WHERE this.run_id = ? AND earlier.created_at < this.created_at
"""
_OF_RUN = ("group", "domain", "method")
"""Parameters whose values come from a column of the run's plan."""

_PROPERTIES = ("language", "speaker", "group", "domain", "duration", "words", "snr_db", "source_wer")
"""The properties by which any run can be sliced."""

_METADATA = "SELECT DISTINCT unnest(json_keys(metadata)) AS name FROM raw.hypotheses WHERE run_id = ? ORDER BY name"

EVERY = "all"
"""The group that holds every domain."""


def parameter_values(
    connection: duckdb.DuckDBPyConnection, chosen: Query, given: Mapping[str, str]
) -> dict[str, str | None]:
    """A value for each parameter of a report; None for no restriction.

    Raises:
        UsageError: a parameter, a run, or a value is unknown; the message lists the valid names.
    """
    if "run_id" in given and "run_id" not in chosen.parameters:
        raise UsageError(f"the report {chosen.name} covers all runs of the store; leave out run {given['run_id']!r}")
    for key, value in given.items():
        if key not in chosen.parameters:
            raise unknown(f"parameter of the report {chosen.name},", key, list(chosen.parameters))
        chosen.parameters[key].check(value)
    values = {key: given.get(key, declared.default) for key, declared in chosen.parameters.items()}
    if "run_id" in values:
        runs = [str(row[0]) for row in connection.sql(_RUNS).fetchall()]
        for key in {"run_id", "baseline"} & set(values):
            if values[key] is not None and values[key] not in runs:
                raise unknown("run", values[key], runs)
        if values["run_id"] is None:
            values["run_id"] = runs[0] if runs else None
        if "baseline" in values and values["baseline"] is None:
            ((values["baseline"],),) = connection.execute(_BEFORE, [values["run_id"]]).fetchall()
    if values.get("group") == EVERY:
        values["group"] = None
    if "by" in values and values["by"] not in _PROPERTIES and values.get("run_id") is not None:
        found = connection.execute(_METADATA, [values["run_id"]]).fetchall()
        names = [*_PROPERTIES, *(str(name) for (name,) in found)]
        if values["by"] not in names:
            raise unknown("property of the utterances,", str(values["by"]), names)
    for key in _OF_RUN:
        selected = values.get(key)
        if selected is not None and "run_id" in values:
            _check_of_run(connection, values["run_id"], key, selected)
    return values


def check_values(
    connection: duckdb.DuckDBPyConnection, sql: str, given: Mapping[str, Any] | Sequence[Any] | None
) -> None:
    """Refuse a query, before it reads anything, if a `$name` or `?` in it has no value, or a value is unused.

    Raises:
        UsageError: names the parameters without a value, and the unused values.
    """
    names = list(given) if isinstance(given, Mapping) else [str(index + 1) for index in range(len(given or ()))]
    expected = [name for statement in connection.extract_statements(sql) for name in statement.named_parameters]
    known = {name.lower() for name in names}  # DuckDB ignores case too
    missing = sorted(f"${name}" for name in expected if name.lower() not in known)
    if missing:
        raise UsageError(
            f"the query's {', '.join(missing)} has no value; give one (--param NAME=VALUE for $NAME), "
            "or write it into the query"
        )
    for name in names:
        if name.lower() not in {other.lower() for other in expected}:
            raise unknown("parameter of the query,", name, expected)


def _check_of_run(connection: duckdb.DuckDBPyConnection, run_id: str | None, column: str, value: str) -> None:
    # Refuse a group, domain or method that is not in the plan of a run; without a plan, accept any.
    rows = connection.execute(f'SELECT DISTINCT "{column}" FROM raw.plans WHERE run_id = ?', [run_id]).fetchall()
    names = [str(row[0]) for row in rows]
    if names and value not in names:
        raise unknown(f"{column} of the run {run_id!r},", value, names + [EVERY] * (column == "group"))
