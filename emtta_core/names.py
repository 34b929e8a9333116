"""Names that are fixed, and what suites, groups, domains, methods and runs may be called: safe in paths and URLs."""

import re

from emtta_core.errors import UsageError

DEMO = "demo"
"""The name of the model that emtta carries, whatever folder may lie beside a suite."""

FAMILIES = "emtta.models"
"""The entry points by which installed packages bring families of models."""

METHODS = "emtta.methods"
"""The entry points by which installed packages bring methods."""

NAME = r"(?!(?i:null)(?![A-Za-z0-9._+-]))[A-Za-z0-9][A-Za-z0-9._+-]*"
"""A name, as a regular expression; readers of Parquet take NULL for a missing one."""


NO_SEED = "none"
"""What stands for the seed of a method that draws no random numbers, in paths and on the command line."""


def seed_name(seed: int | None) -> str:
    """A seed as paths and commands name it."""
    return NO_SEED if seed is None else str(seed)


def is_name(text: str) -> bool:
    """Whether a text is a valid name."""
    return re.fullmatch(NAME, text) is not None


def check_name(what: str, name: str) -> str:
    """Check that the name of `what` is valid, and return it; UsageError says why it is not."""
    if name.lower() == "null":
        raise UsageError(
            f"{what} {name!r} is an invalid name: readers of Parquet take it for a missing one; choose another"
        )
    if not is_name(name):
        raise UsageError(
            f"{what} {name!r} is an invalid name: letters, digits, `.`, `_`, `+` and `-` are allowed, "
            "and the first is a letter or a digit"
        )
    return name
