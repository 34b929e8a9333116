"""User queries: only read-only ones run, within limits of time and memory; refusals include a hint."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
from rich.filesize import decimal

from emtta_core.errors import EmttaError, UsageError
from emtta_core.store.reports import reports, views

_READING = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}

_TABLE_FUNCTIONS = frozenset(
    {
        *("unnest", "range", "generate_series", "repeat", "repeat_row", "json_each", "json_tree", "summary"),
        *("histogram", "histogram_values"),
        # files; DuckDB itself allows only those of the store
        *("read_parquet", "parquet_scan", "parquet_schema"),
        *("parquet_metadata", "parquet_file_metadata", "parquet_kv_metadata"),
        # the contents of the database
        *("duckdb_columns", "duckdb_functions", "duckdb_keywords", "duckdb_schemas", "duckdb_settings"),
        *("duckdb_tables", "duckdb_types", "duckdb_views", "pragma_table_info", "pragma_version"),
    }
)
"""Table functions allowed in FROM; others run hidden SQL, read memory, or write logs and profiles to a file."""

_REFUSED_FUNCTIONS = frozenset({"query", "json_execute_serialized_sql", "write_log"})
"""Functions that are not allowed anywhere."""


def check_reads_only(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse `sql` unless it is one SELECT that only reads.

    Raises:
        EmttaError: DuckDB cannot parse it; the message includes DuckDB's.
        UsageError: it is not a single SELECT, or it writes.
    """
    rows = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    tree = json.loads(rows[0][0])
    if tree.get("error", True):
        if tree.get("error_type") == "not implemented":
            raise UsageError(
                "only one SELECT at a time can be run here, and SQL cannot write to the store; "
                "begin with SELECT, FROM, WITH, DESCRIBE or SHOW "
                "(a PIVOT must list its values: PIVOT … ON x IN (…))"
            )
        reason = str(tree.get("error_message", "no reason given"))
        reason = reason.partition(' Use "SET ')[0]  # drop DuckDB's advice, which does not apply here
        raise EmttaError(f"the query cannot be parsed: {reason}")
    if len(tree["statements"]) != 1:
        raise UsageError(f"one query at a time; there are {len(tree['statements'])}")
    for node in _nodes(tree):
        kind = node.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _READING:
            raise UsageError(f"SQL cannot write to the store; remove the {kind.split('_')[0]} from the query")
        name = node.get("function_name")
        if isinstance(name, str) and name.lower() in _REFUSED_FUNCTIONS:
            raise UsageError(f"the function {name} cannot be used here; run its query directly instead")
        if kind == "TABLE_FUNCTION":
            function = str(node.get("function", {}).get("function_name", "")).lower()
            if function not in _TABLE_FUNCTIONS:
                raise UsageError(
                    f"the function {function} cannot be used here; FROM accepts views, tables, files of the store, "
                    f"and: {', '.join(sorted(_TABLE_FUNCTIONS))}"
                )


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for item in tree:
            yield from _nodes(item)


SECONDS = 600.0
"""The default time limit of a query."""

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b)", re.IGNORECASE)
_MIN_BYTES = 50_000_000
"""The fewest bytes with which DuckDB can open a store."""


def parse_size(text: str) -> int:
    """Parse an amount of memory such as `4GB` or `512 MiB` into bytes.

    Raises:
        UsageError: it is not an amount of memory.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not an amount of memory; write a number and a unit, such as 4GB or 512MB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def memory_limit(connection: duckdb.DuckDBPyConnection) -> int:
    """DuckDB's default memory limit in bytes: 80 % of the memory of the machine or container."""
    ((value,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    return parse_size(str(value))


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a query."""

    seconds: float | None = SECONDS  # time limit; None for none
    # Memory limit in bytes; None for 40 % of the machine's memory. A result may take an eighth of it, because writing
    # it takes several times its size; temporary files may take four times the limit.
    memory: int | None = None
    options: bool = False  # whether the user can raise them with `--timeout` and `--memory`

    def __post_init__(self) -> None:
        """Refuse limits under which no query can run."""
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise UsageError(f"a time limit of {self.seconds:g} s is out of range; give seconds above 0")
        if self.memory is not None and self.memory < _MIN_BYTES:
            raise UsageError(
                f"a memory limit of {decimal(self.memory)} is too small; give at least {decimal(_MIN_BYTES)}"
            )

    def result_size(self, memory: int) -> int:
        """The most bytes of a result."""
        return memory // 8

    def disk(self, memory: int) -> int:
        """The most bytes of temporary files."""
        return memory * 4

    def exceeded_time(self, what: str) -> str:
        """The error message for exceeding the time limit."""
        more = (
            "--timeout SECONDS" if self.options else "Limits(seconds=…), or compact the store's runs: emtta compact RUN"
        )
        return f"{what} was stopped at the time limit of {self.seconds:g} s; allow more with {more}"

    def exceeded_memory(self, what: str, memory: int) -> str:
        """The error message for exceeding the memory limit."""
        more = "--memory SIZE" if self.options else "Limits(memory=…), or use a machine with more"
        return f"{what} was stopped at the memory limit of {decimal(memory)}; allow more with {more}"

    def exceeded_result(self, memory: int) -> str:
        """The error message for a result that is too large."""
        more = "--memory SIZE" if self.options else "Limits(memory=…)"
        return (
            f"the query was stopped: its result is larger than {decimal(self.result_size(memory))}, an eighth of the "
            f"memory limit; ask for fewer rows or columns (LIMIT), or allow more with {more}"
        )


_NOT_CODE = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_KEYWORD_USES = re.compile(r"\b(?:within\s+)?group\s*(?:by\b|\()|\bwindow\s+\w+\s+as\b", re.IGNORECASE)
_NO_TABLE = re.compile(r"Table with name (\S+) does not exist")
_NO_COLUMN = re.compile(r'Referenced column "([^"]+)" not found|does not have a column named "([^"]+)"')


def reserved_columns(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The columns whose names are SQL keywords and must be double-quoted."""
    query = """
        SELECT DISTINCT column_name
        FROM duckdb_columns()
        INNER JOIN duckdb_keywords() ON lower(column_name) = keyword_name
        WHERE NOT internal AND keyword_category = 'reserved'
        ORDER BY column_name
    """
    return [str(row[0]) for row in connection.execute(query).fetchall()]


def hint(connection: duckdb.DuckDBPyConnection, sql: str, message: str, command: Callable[..., str]) -> str:
    """A suggestion to append to an error message; empty if there is none.

    `message` is DuckDB's error for the query; `command` builds an `emtta` command on the store, like `Store.command`.
    """
    code = _NOT_CODE.sub(" ", sql)
    if "syntax error" in message or "SELECT clause without selection list" in message:
        found = [name for name in reserved_columns(connection) if _is_bare(name, code)]
        return "".join(f'\n{name} is an SQL keyword; write the column in double quotes: "{name}"' for name in found)
    if (table := _NO_TABLE.search(message)) is not None:
        name = table[1].strip('"')
        if name in reports():
            return f"\n{name} is a report, not a view; show it with: {command('report', name)}"
        return f"\nviews: {', '.join(sorted(views()))}; the tables as stored: raw.<table>"
    if (column := _NO_COLUMN.search(message)) is not None:
        return _of_column(connection, column[1] or column[2], sql)
    return ""


def _is_bare(name: str, code: str) -> bool:
    # Whether a keyword occurs in a query where SQL does not expect it.
    return re.search(rf"(?<!\.)\b{name}\b", _KEYWORD_USES.sub(" ", code), re.IGNORECASE) is not None


def _of_column(connection: duckdb.DuckDBPyConnection, name: str, sql: str) -> str:
    query = """
        SELECT DISTINCT table_name
        FROM duckdb_columns()
        WHERE NOT internal AND schema_name = 'main' AND lower(column_name) = lower(?)
        ORDER BY table_name
    """
    tables = [str(row[0]) for row in connection.execute(query, [name]).fetchall()]
    if tables:
        return f"\n{name} is a column of: {', '.join(tables)}"
    if f'"{name}"' in sql or re.search(rf"[=<>]\s*{re.escape(name)}\b", sql):
        return f"\nif {name} is a string, not a column, write it in single quotes: '{name}'"
    return ""
