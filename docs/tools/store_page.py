"""Generate the tables, views and reports of `docs/store.md`, as Markdown.

    python docs/tools/store_page.py docs/store.md

replaces the text between the page's two markers.
"""

import sys
from pathlib import Path

from emtta_core.store.reports import Parameter, reports, views
from emtta_core.store.tables import TABLES, Table

BEGIN = "<!-- generated: python docs/tools/store_page.py docs/store.md -->\n"
END = "<!-- end of what is generated -->\n"


def document() -> str:
    """Return the generated part of the page."""
    return "\n".join(
        [
            "## Tables\n",
            *(_table(table) for table in TABLES.values()),
            "## Views\n",
            _views(),
            "## Reports\n",
            _reports(),
        ]
    )


def renew(page: str) -> str:
    """Replace the text between the markers of a page."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{document()}\n{END}{tail}"


def _table(table: Table) -> str:
    lines = [
        f"### {table.name}\n",
        f"`{table.layout}`\n",
        f"{table.row.__doc__}\n",
        "| column | type | meaning |",
        "|---|---|---|",
    ]
    for field in table.schema:
        kind = str(field.type) + (", may be null" if field.nullable else "")
        lines.append(f"| `{field.name}` | {kind} | {field.metadata[b'doc'].decode()} |")
    return "\n".join(lines) + "\n"


def _views() -> str:
    lines = ["| view | shows |", "|---|---|", *(f"| `{view.name}` | {view.summary} |" for view in views().values())]
    return "\n".join(lines) + "\n"


def _reports() -> str:
    lines = ["| report | shows | parameters |", "|---|---|---|"]
    for report in reports().values():
        parameters = "; ".join(_parameter(item) for item in report.parameters.values())
        lines.append(f"| `{report.name}` | {report.summary} | {parameters} |")
    return "\n".join(lines) + "\n"


def _parameter(item: Parameter) -> str:
    allowed = f" ({', '.join(item.allowed)})" if item.allowed and item.kind is None else ""
    default = f"; {item.default} by default" if item.default is not None else ""
    return f"`{item.name}`: {item.text}{allowed}{default}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renew(path.read_text("utf-8")), "utf-8")
