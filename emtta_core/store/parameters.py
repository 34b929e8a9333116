"""The values that parameters get: those of a report what is given, where the store knows it, or defaults; those of a
query what is given, and nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from emtta_core.errors import UsageError, unknown
from emtta_core.store.reports import Query

_RUNS = "SELECT run_id FROM raw.runs ORDER BY created_at DESC, run_id DESC"
_BEFORE = """
    SELECT arg_max(earlier.run_id, (earlier.created_at, earlier.run_id))
    FROM raw.runs AS earlier
    INNER JOIN raw.runs AS this USING (suite, model)
    WHERE this.run_id = ? AND earlier.created_at < this.created_at
"""
_OF_RUN = ("group", "domain", "method")
"""Parameters whose values are those of a column of the run's plan."""

EVERY = "all"
"""The group that holds every domain."""


def parameter_values(
    connection: duckdb.DuckDBPyConnection, chosen: Query, given: Mapping[str, str]
) -> dict[str, str | None]:
    """Return a value for each parameter of a report; None for what is not restricted.

    Raises:
        UsageError: a parameter, a run, or a value is unknown; it lists those there are.
    """
    if "run_id" in given and "run_id" not in chosen.parameters:
        raise UsageError(f"the report {chosen.name} is on all runs of the store; leave the run {given['run_id']!r} out")
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
    for key in _OF_RUN:
        asked = values.get(key)
        if asked is not None and "run_id" in values:
            _check_of_run(connection, values["run_id"], key, asked)
    return values


def check_values(
    connection: duckdb.DuckDBPyConnection, sql: str, given: Mapping[str, Any] | Sequence[Any] | None
) -> None:
    """Refuse a query before it reads anything where a `$name` or `?` of it has no value, or a value no place in it.

    Raises:
        UsageError: it names those without a value, or without a place.
    """
    names = list(given) if isinstance(given, Mapping) else [str(place + 1) for place in range(len(given or ()))]
    wanted = [name for statement in connection.extract_statements(sql) for name in statement.named_parameters]
    known = {name.lower() for name in names}  # DuckDB heeds no case either
    missing = sorted(f"${name}" for name in wanted if name.lower() not in known)
    if missing:
        raise UsageError(
            f"no value is given for {', '.join(missing)} of the query; give one (--param NAME=VALUE for $NAME), "
            "or write it into the query"
        )
    for name in names:
        if name.lower() not in {other.lower() for other in wanted}:
            raise unknown("parameter of the query,", name, wanted)


def _check_of_run(connection: duckdb.DuckDBPyConnection, run_id: str | None, column: str, value: str) -> None:
    """Refuse a group, domain or method that is not in the plan of a run; any will do where there is no plan."""
    rows = connection.execute(f'SELECT DISTINCT "{column}" FROM raw.plans WHERE run_id = ?', [run_id]).fetchall()
    names = [str(row[0]) for row in rows]
    if names and value not in names:
        raise unknown(f"{column} of the run {run_id!r},", value, names + [EVERY] * (column == "group"))
