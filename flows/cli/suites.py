"""`emtta suites`: what is shipped."""

import tomllib

from rich.table import Table

from flows.cli.output import out


def suites() -> None:
    """List the shipped suites.

    A suite of your own is a TOML file, named by its path.

    Examples:
        emtta suites

        emtta run suites/mine.toml
    """
    from emtta_core.suites import SUITES, suite_names

    table = Table("suite", "domains", "methods", "what it is")
    for name in suite_names():
        data = tomllib.loads((SUITES / f"{name}.toml").read_text(encoding="utf-8"))
        table.add_row(name, str(len(data["domains"])), str(len(data["methods"])), data.get("description", ""))
    out.print(table)
