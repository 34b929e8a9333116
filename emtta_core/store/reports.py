"""The SQL that is shipped: the stack of views and the named reports, with what their heads declare."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

from emtta_core.errors import unknown

_PARAMETER = re.compile(r"^-- param (?P<name>\w+)(?: = (?P<default>[^:]*))?: (?P<text>.*)$", re.MULTILINE)
_SUMMARY = re.compile(r"^-- (?P<name>[\w-]+): (?P<text>.*)$", re.MULTILINE)
_PLACE = re.compile(r"^\d+_")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a report, as the line `-- param NAME = DEFAULT: TEXT` of its head declares it.

    Attributes:
        name: its name; the query reads it with `getvariable('NAME')`, as text.
        default: its value where none is given; None for NULL.
        text: what it is.
    """

    name: str
    default: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """A shipped SQL file.

    Attributes:
        name: the view or the report.
        summary: one line on what it shows.
        parameters: those of its head, by name.
        sql: the whole file, one SELECT.
    """

    name: str
    summary: str
    parameters: Mapping[str, Parameter]
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
    files = sorted(
        (file for file in (resources.files("sql") / folder).iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    queries = (_parse(_PLACE.sub("", file.name.removesuffix(".sql")), file.read_text("utf-8")) for file in files)
    return MappingProxyType({query.name: query for query in queries})


def _parse(name: str, sql: str) -> Query:
    head = _SUMMARY.match(sql)
    if head is None or head["name"] != name:
        raise ValueError(f"the SQL file of {name!r} must begin with the line `-- {name}: what it shows`")
    parameters = {
        match["name"]: Parameter(match["name"], match["default"], match["text"]) for match in _PARAMETER.finditer(sql)
    }
    return Query(name, head["text"], MappingProxyType(parameters), sql)
