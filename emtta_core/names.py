"""What suites, groups, domains, methods and runs may be called: safe in a path, in a URL and in Parquet's keys."""

import re

from emtta_core.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def check_name(what: str, name: str) -> str:
    """Return `name`; UsageError saying why where it is none.

    Args:
        what: what is called so, for the refusal.
        name: the name.
    """
    if name.lower() == "null":
        raise UsageError(f"{what} {name!r} is no name: readers of Parquet take it for a missing one; choose another")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{what} {name!r} is no name: letters, digits, `.`, `_`, `+` and `-` are allowed, "
            "and the first is a letter or a digit"
        )
    return name
