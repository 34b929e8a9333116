"""`emtta list`: the runs of the store."""

from typing import Annotated

import typer

from flows.cli._options import DEFAULT_STORE, ColumnsOption, MemoryOption, StoreOption, TimeoutOption, limits, names
from flows.cli._output import Format, say_if_empty, show


def runs(
    store: StoreOption = DEFAULT_STORE,
    columns: ColumnsOption = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TABLE,
    timeout: TimeoutOption = None,
    memory: MemoryOption = None,
) -> None:
    """List the runs of the store, newest first.

    Examples:
        emtta list

        emtta list --format json
    """
    from emtta_core.store import Store
    from emtta_core.store.run_list import RunList

    opened = Store.open(store)
    found = RunList(opened, limits(timeout, memory)).refresh()
    show(found, form, columns=names(columns))
    say_if_empty(found, opened)
