"""The SQL that is shipped: the stack of views and the named reports, with what their heads declare.

A head begins with `-- NAME: what it shows.` A view's goes on with its grain; `--   COLUMN, …   meaning` describes
columns, and further lines of it are indented more; `-- param …` declares a parameter; `-- cell …` says which columns
share a cell of a table for a reader; other lines are notes. A report's columns are in order of importance, because a
narrow terminal shows the first ones.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType

from emtta_core.entry import SQL
from emtta_core.errors import StoreError, UsageError, unknown
from emtta_core.store.result import SharedCell

_PARAMETER = re.compile(
    r"^-- param (?P<name>\w+)(?: = (?P<default>[^:\[]*?))?(?: \[(?P<allowed>[^\]]+)\])?: (?P<text>.*)$", re.MULTILINE
)
_COLUMNS = re.compile(r'--   (?P<names>(?:"?[\w<>…]+"?, )*"?[\w<>…]+"?) +(?P<text>\S.*)')
_FURTHER = re.compile(r"--    +(?P<text>\S.*)")
_CELL = re.compile(r"^-- cell (?P<name>[\w/]+): (?P<template>.*)$", re.MULTILINE)
_GRAIN = "-- grain: "
_SUMMARY = re.compile(r"^-- (?P<name>[\w-]+): (?P<text>.*)$", re.MULTILINE)
_PLACE = re.compile(r"^\d+_")


NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a report, as the line `-- param NAME = DEFAULT [ALLOWED]: TEXT` of its head declares it.

    Attributes:
        name: its name; the query reads it with `getvariable('NAME')`, as text.
        default: its value where none is given; None for NULL.
        text: what it is.
        allowed: the values it may have, `("number",)` for a whole number from 1; none where any will do.
    """

    name: str
    default: str | None
    text: str
    allowed: tuple[str, ...] = ()

    def check(self, value: str) -> None:
        """Refuse a value that the parameter cannot have with a UsageError that says which it can."""
        if self.allowed == (NUMBER,):
            if not re.fullmatch("0*[1-9][0-9]{0,8}", value, re.ASCII):
                raise UsageError(f"the parameter {self.name} is {value!r}; it is a whole number from 1")
        elif self.allowed and value not in self.allowed:
            raise unknown(self.name, value, list(self.allowed))


@dataclass(frozen=True, slots=True)
class Query:
    """A shipped SQL file.

    Attributes:
        name: the view or the report.
        summary: one line on what it shows.
        grain: what a row is; empty for a report.
        notes: what else its head says, a line each.
        columns: what the head says of each column, by name; of columns that it tells of together, the same.
        parameters: those of its head, by name.
        cells: which columns share a cell of a table for a reader.
        sql: the whole file, one SELECT.
    """

    name: str
    summary: str
    grain: str
    notes: tuple[str, ...]
    columns: Mapping[str, str]
    parameters: Mapping[str, Parameter]
    cells: tuple[SharedCell, ...]
    sql: str


@cache
def views() -> Mapping[str, Query]:
    """Return the views by name, each after those that it reads."""
    return _load("views")


@cache
def reports() -> Mapping[str, Query]:
    """Return the reports by name."""
    return _load("reports")


def report(name: str) -> Query:
    """Return one report; UsageError listing the names there are when it is unknown."""
    if name not in reports():
        raise unknown("report", name, list(reports()))
    return reports()[name]


def _load(folder: str) -> Mapping[str, Query]:
    files = sorted((SQL / folder).glob("*.sql"))
    if not files:
        raise StoreError(f"emtta's SQL files are missing from {SQL / folder}; install emtta again")
    return MappingProxyType({query.name: query for query in map(_parse, files)})


def _parse(file: Path) -> Query:
    name, sql = _PLACE.sub("", file.stem), file.read_text("utf-8")
    head = _SUMMARY.match(sql)
    if head is None or head["name"] != name:
        raise StoreError(
            f"{file} is no SQL file of emtta: it does not begin with the line `-- {name}: what it shows`; remove what "
            "is not emtta's, or install emtta again"
        )
    parameters = {
        match["name"]: Parameter(
            match["name"], match["default"], match["text"], tuple(filter(None, (match["allowed"] or "").split("|")))
        )
        for match in _PARAMETER.finditer(sql)
    }
    cells = tuple(SharedCell(match["name"], match["template"]) for match in _CELL.finditer(sql))
    grain, notes, columns = _read_head(sql)
    return Query(name, head["text"], grain, notes, columns, MappingProxyType(parameters), cells, sql)


def _read_head(sql: str) -> tuple[str, tuple[str, ...], Mapping[str, str]]:
    """Return the grain, the notes, and the meaning of each column, of the head of a file, its first line left out."""
    grain, notes = "", list[str]()
    columns: dict[str, str] = {}
    described: list[str] = []
    for line in takewhile(lambda line: line.startswith("--"), sql.splitlines()[1:]):
        of_columns, further = _COLUMNS.fullmatch(line), _FURTHER.fullmatch(line)
        if of_columns:
            described = [name.strip('"') for name in of_columns["names"].split(", ")]
            columns |= dict.fromkeys(described, of_columns["text"])
        elif further and described:
            columns |= {name: f"{columns[name]} {further['text']}" for name in described}
        elif line.startswith(_GRAIN):
            grain = line.removeprefix(_GRAIN)
        elif line != "-- columns:" and not _PARAMETER.fullmatch(line) and not _CELL.fullmatch(line):
            notes.append(line.removeprefix("-- "))
    return grain, tuple(notes), MappingProxyType(columns)
