"""Options that several verbs share."""

from enum import StrEnum
from typing import Annotated

import typer


class Isolation(StrEnum):
    """Whether cells run in processes of their own."""

    PROCESS = "process"
    NONE = "none"


StoreOption = Annotated[
    str,
    typer.Option(
        "--store", metavar="STORE", envvar="EMTTA_STORE", help="A folder, or s3://BUCKET/PREFIX.", show_default=True
    ),
]
"""Where results lie."""

DevicesOption = Annotated[
    str | None,
    typer.Option("--devices", metavar="auto|cpu|cuda:0,…", help="Where cells run. Default: as the suite says."),
]
"""Where cells run."""

IsolationOption = Annotated[
    Isolation | None,
    typer.Option("--isolation", help="Cells in processes of their own, or all in this. Default: as the suite says."),
]
"""Whether cells run in processes of their own."""

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
"""Whether to do nothing but say it."""

DEFAULT_STORE = "emtta-store"
