"""Options that several verbs share."""

from enum import StrEnum
from typing import Annotated

import typer


class Isolation(StrEnum):
    """Whether cells run in processes of their own."""

    PROCESS = "process"
    NONE = "none"


class Runner(StrEnum):
    """Who carries out the cells."""

    THREADS = "threads"
    RAY = "ray"


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

RunnerOption = Annotated[
    Runner, typer.Option("--runner", help="This machine, or the machines of a Ray cluster, which must see the store.")
]
"""Who carries out the cells."""

RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address", metavar="HOST:PORT", help="Of the cluster's head. Default: the cluster of this machine."
    ),
]
"""Which Ray cluster."""

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
"""Whether to do nothing but say it."""

DEFAULT_STORE = "emtta-store"
