"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

StoreOption = Annotated[
    Path, typer.Option("--store", metavar="DIR", envvar="EMTTA_STORE", help="The store's folder.", show_default=True)
]
"""Where results lie."""

DEFAULT_STORE = Path("emtta-store")
