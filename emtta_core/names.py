"""Names that are fixed, and what suites, groups, domains, methods and runs may be called: safe in paths and URLs."""

import re

from emtta_core.errors import UsageError

DEMO = "demo"
"""The name of the model that emtta carries, whatever folder may lie beside a suite."""

FAMILIES = "emtta.models"
"""The entry points by which installed packages bring families of models."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def is_name(text: str) -> bool:
    """Return whether a text is a name that `check_name` lets pass."""
    return _NAME.fullmatch(text) is not None and text.lower() != "null"


def check_name(what: str, name: str) -> str:
    """Return `name`; UsageError saying why where it is none.

    Args:
        what: what is called so, for the refusal.
        name: the name.
    """
    if name.lower() == "null":
        raise UsageError(
            f"{what} {name!r} is an invalid name: readers of Parquet take it for a missing one; choose another"
        )
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{what} {name!r} is an invalid name: letters, digits, `.`, `_`, `+` and `-` are allowed, "
            "and the first is a letter or a digit"
        )
    return name
