"""Generate the page `sql/schema.md`: each view and report, with its grain, columns and parameters.

    python docs/tools/schema_page.py sql/schema.md

writes it from the headers of the SQL files, and from DuckDB's description of their columns on an empty store.
"""

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from emtta_core.store.catalogue import Catalogue
from emtta_core.store.describe import describe, describe_report
from emtta_core.store.reports import Query, reports, views
from emtta_core.store.result import Result
from emtta_core.store.store import Store
from emtta_core.store.tables import TABLES

_READS = re.compile(r"\b(?:FROM|JOIN)\s+((?:raw|open|settled)\.\w+|\w+)", re.IGNORECASE)

HEAD = """\
<!-- generated: python docs/tools/schema_page.py sql/schema.md -->

# The SQL schema

The views and reports behind `emtta sql` and `emtta report`. Views build on each other and on `raw.<table>`, the stored
rows, which [docs/store.md](../docs/store.md) describes. Columns and types are the same on every store, even an empty
one. Quote names that are SQL keywords: `"group"`.

"""


def schema_page() -> str:
    """Return the page."""
    with tempfile.TemporaryDirectory() as folder, Catalogue(Store.open(folder, create=True)) as catalogue:
        return HEAD + "\n".join(_lines(catalogue)) + "\n"


def _lines(catalogue: Catalogue) -> Iterator[str]:
    yield "| view | grain | reads |"
    yield "|---|---|---|"
    for view in views().values():
        yield f"| [`{view.name}`](#{view.name}) | {view.grain} | {', '.join(f'`{name}`' for name in reads(view))} |"
    yield "\n## Views"
    for view in views().values():
        yield from _section(view)
        yield f"\nGrain: {view.grain}"
        yield from _notes(view)
        yield from _table(describe(catalogue, view.name))
    yield "\n## Reports\n"
    yield "`emtta report NAME --param NAME=VALUE`; from Python `open_store(…).report(NAME, run=…, …)`."
    for report in reports().values():
        yield from _section(report)
        yield from _notes(report)
        if report.parameters:
            yield "\n| parameter | default | allowed | meaning |"
            yield "|---|---|---|---|"
        for parameter in report.parameters.values():
            allowed = parameter.kind.text if parameter.kind else ", ".join(f"`{value}`" for value in parameter.allowed)
            yield f"| `{parameter.name}` | {parameter.default or ''} | {allowed} | {parameter.text} |"
        yield from _table(describe_report(catalogue, report.name))


def reads(view: Query) -> list[str]:
    """Return the views and tables that a view reads, in order."""
    known = {*views(), *(f"raw.{table}" for table in TABLES), "open.hypotheses", "open.scores", "settled.utterances"}
    body = "\n".join(line for line in view.sql.splitlines() if not line.lstrip().startswith("--"))
    return list(dict.fromkeys(name for name in _READS.findall(body) if name in known - {view.name}))


def _section(query: Query) -> Iterator[str]:
    yield f"\n### {query.name}\n"
    yield f"{query.summary[0].upper()}{query.summary[1:]}"


def _notes(query: Query) -> Iterator[str]:
    if query.notes:
        yield f"\n{chr(10).join(query.notes)}"


def _table(columns: Result) -> Iterator[str]:
    yield "\n| column | type | meaning |"
    yield "|---|---|---|"
    for name, kind, meaning in columns.rows:
        yield f"| `{name}` | {kind} | {meaning.replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_page(), "utf-8")
