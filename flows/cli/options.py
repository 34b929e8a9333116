"""Options that several verbs share."""

from typing import Annotated

import typer

StoreOption = Annotated[
    str,
    typer.Option(
        "--store", metavar="STORE", envvar="EMTTA_STORE", help="A folder, or s3://BUCKET/PREFIX.", show_default=True
    ),
]
"""Where results lie."""

DEFAULT_STORE = "emtta-store"
