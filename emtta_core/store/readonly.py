"""Which queries of a user run: those that read, and nothing else.

DuckDB keeps a query from files outside the store (`enable_external_access`), but inside it a statement like COPY
could still write, and since DuckDB 2.0 it may hide in a WITH clause of a SELECT. So the query's syntax tree is
walked, and only nodes that read are let through.
"""

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from emtta_core.errors import EmttaError, UsageError

_READING = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}

_REFUSED_FUNCTIONS = {
    # run SQL that the tree does not show
    "query",
    "json_execute_serialized_sql",
    # take addresses in this process's memory
    "arrow_scan",
    "arrow_scan_dumb",
    "pandas_scan",
    "python_map_function",
}


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
        raise EmttaError(f"the query cannot be read: {tree.get('error_message', 'no reason given')}")
    if len(tree["statements"]) != 1:
        raise UsageError(f"one query at a time; there are {len(tree['statements'])}")
    for node in _nodes(tree):
        kind = node.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _READING:
            raise UsageError(f"the store is never written by SQL; remove the {kind.split('_')[0]} from the query")
        name = node.get("function_name")
        if isinstance(name, str) and name.lower() in _REFUSED_FUNCTIONS:
            raise UsageError(f"the function {name} cannot be used here; write what it would run as a query of its own")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a JSON tree."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for item in tree:
            yield from _nodes(item)
