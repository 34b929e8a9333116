"""What to write instead, where DuckDB refuses a query."""

import re

import duckdb

from emtta_core.store.reports import reports, views

_NOT_CODE = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_KEYWORD_USES = re.compile(r"\b(?:within\s+)?group\s*(?:by\b|\()|\bwindow\s+\w+\s+as\b", re.IGNORECASE)
_NO_TABLE = re.compile(r"Table with name (\S+) does not exist")
_NO_COLUMN = re.compile(r'Referenced column "([^"]+)" not found|does not have a column named "([^"]+)"')


def reserved_columns(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the columns that are keywords of SQL, and must stand in double quotes."""
    query = """
        SELECT DISTINCT column_name
        FROM duckdb_columns()
        INNER JOIN duckdb_keywords() ON lower(column_name) = keyword_name
        WHERE NOT internal AND keyword_category = 'reserved'
        ORDER BY column_name
    """
    return [str(row[0]) for row in connection.execute(query).fetchall()]


def hint(connection: duckdb.DuckDBPyConnection, sql: str, message: str) -> str:
    """Return what to write instead, as further sentences of a message; the empty text where nothing is known.

    Args:
        connection: which has the views.
        sql: the query.
        message: what DuckDB said of it.
    """
    code = _NOT_CODE.sub(" ", sql)
    if "syntax error" in message or "SELECT clause without selection list" in message:
        found = [name for name in reserved_columns(connection) if _stands_alone(name, code)]
        return "".join(f'\n{name} is a keyword of SQL; write the column in double quotes: "{name}"' for name in found)
    if (table := _NO_TABLE.search(message)) is not None:
        name = table[1].strip('"')
        if name in reports():
            return f"\n{name} is a report, not a view; show it with: emtta report {name}"
        return f"\nviews: {', '.join(sorted(views()))}; the tables as stored: raw.<table>"
    if (column := _NO_COLUMN.search(message)) is not None:
        return _of_column(connection, column[1] or column[2], sql)
    return ""


def _stands_alone(name: str, code: str) -> bool:
    """Return whether a keyword stands in a query elsewhere than where SQL has it."""
    return re.search(rf"(?<!\.)\b{name}\b", _KEYWORD_USES.sub(" ", code), re.IGNORECASE) is not None


def _of_column(connection: duckdb.DuckDBPyConnection, name: str, sql: str) -> str:
    """Return where a column is, and that a text stands in single quotes."""
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
        return f"\nif {name} is a text and not a column, write it in single quotes: '{name}'"
    return ""
