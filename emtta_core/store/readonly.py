"""Which queries of a user run: those that read, and nothing else.

DuckDB keeps a query from files outside the store (`enable_external_access`), but inside it a statement like COPY
could still write, and since DuckDB 2.0 it may hide in a WITH clause of a SELECT; a function like `enable_logging`
writes from within FROM. So the query's syntax tree is walked, and only nodes and functions that read are let through.
"""

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from emtta_core.errors import EmttaError, UsageError

_READING = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}

_TABLE_FUNCTIONS = frozenset(
    {
        *("unnest", "range", "generate_series", "repeat", "repeat_row", "json_each", "json_tree", "summary"),
        *("histogram", "histogram_values"),
        # files of the store, which DuckDB itself lets no query leave
        *("read_parquet", "parquet_scan", "parquet_schema"),
        *("parquet_metadata", "parquet_file_metadata", "parquet_kv_metadata"),
        # what there is to be asked
        *("duckdb_columns", "duckdb_functions", "duckdb_keywords", "duckdb_schemas", "duckdb_settings"),
        *("duckdb_tables", "duckdb_types", "duckdb_views", "pragma_table_info", "pragma_version"),
    }
)
"""Functions that may stand in FROM; others run hidden SQL, read memory, or write logs and profiles to a file."""

_REFUSED_FUNCTIONS = frozenset({"query", "json_execute_serialized_sql", "write_log"})
"""Functions that may stand nowhere."""


def check_reads_only(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse `sql` unless it is one SELECT that only reads.

    Raises:
        EmttaError: when DuckDB cannot parse it; the message is DuckDB's own.
        UsageError: when it is something other than one SELECT, or writes.
    """
    rows = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    tree = json.loads(rows[0][0])
    if tree.get("error", True):
        if tree.get("error_type") == "not implemented":
            raise UsageError(
                "only one SELECT at a time can be run here, and the store is never written by SQL; "
                "begin with SELECT, FROM, WITH, DESCRIBE or SHOW "
                "(a PIVOT wants its values: PIVOT … ON x IN (…))"
            )
        reason = str(tree.get("error_message", "no reason given"))
        reason = reason.partition(' Use "SET ')[0]  # DuckDB's advice, which is not to be had here
        raise EmttaError(f"the query cannot be parsed: {reason}")
    if len(tree["statements"]) != 1:
        raise UsageError(f"one query at a time; there are {len(tree['statements'])}")
    for node in _nodes(tree):
        kind = node.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _READING:
            raise UsageError(f"the store is never written by SQL; remove the {kind.split('_')[0]} from the query")
        name = node.get("function_name")
        if isinstance(name, str) and name.lower() in _REFUSED_FUNCTIONS:
            raise UsageError(f"the function {name} cannot be used here; write what it would run as a query of its own")
        if kind == "TABLE_FUNCTION":
            _check_table_function(str(node.get("function", {}).get("function_name", "")).lower())


def _check_table_function(name: str) -> None:
    """Refuse a function in FROM that does more than give rows of the store or of its arguments."""
    if name not in _TABLE_FUNCTIONS:
        raise UsageError(
            f"the function {name} cannot be used here; in FROM there may be views, tables, files of the store, "
            f"and: {', '.join(sorted(_TABLE_FUNCTIONS))}"
        )


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a JSON tree."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for item in tree:
            yield from _nodes(item)
