"""`emtta suites`: what is shipped."""

from pathlib import Path

from rich.table import Table

from flows.cli.output import tabulate


def suites() -> None:
    """List the shipped suites.

    A suite of your own is a TOML file, named by its path.

    Examples:
        emtta suites

        emtta run suites/mine.toml
    """
    from emtta_core.suite_file import find, read
    from emtta_core.suites import suite_names

    table = Table("suite", "domains", "methods", "what it is")
    for name in suite_names():
        path, text = find(name, Path())
        suite = read(text, str(path), path.parent)
        table.add_row(name, str(len(suite["domains"])), str(len(suite["methods"])), suite["description"])
    tabulate(table)
