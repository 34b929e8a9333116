"""Fixed names, the valid names of suites, groups, domains, methods and runs (safe in paths and URLs), and counts."""

import re

from emtta_core.errors import UsageError

DEMO = "demo"
"""The name of the model included in emtta, which takes precedence over a folder of that name."""

FAMILIES = "emtta.models"
"""The entry point group for model families from installed packages."""

METHODS = "emtta.methods"
"""The entry point group for methods from installed packages."""

NAME = r"(?!(?i:null)(?![A-Za-z0-9._+-]))[A-Za-z0-9][A-Za-z0-9._+-]*"
"""A regular expression for names; Parquet readers take NULL for a missing value."""


NO_SEED = "none"
"""The seed of a method that draws no random numbers, in paths and on the command line."""


def seed_name(seed: int | None) -> str:
    """A seed as written in paths and commands."""
    return NO_SEED if seed is None else str(seed)


def counted(number: int, noun: str) -> str:
    """A number with its noun, which is plural unless there is one: `1 cell`, `1,200 cells`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def is_name(text: str) -> bool:
    """Whether a text is a valid name."""
    return re.fullmatch(NAME, text) is not None


def check_name(what: str, name: str) -> str:
    """Return the name of `what` if it is valid; otherwise raise a UsageError that says why not."""
    if name.lower() == "null":
        raise UsageError(
            f"{what} {name!r} is an invalid name: Parquet readers take it for a missing value; choose another"
        )
    if not is_name(name):
        raise UsageError(
            f"{what} {name!r} is an invalid name: letters, digits, `.`, `_`, `+` and `-` are allowed, "
            "and the first is a letter or a digit"
        )
    return name
