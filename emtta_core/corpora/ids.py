"""Ids of utterances, which are names of files too: letters, digits, `.`, `_` and `-`."""

import re

from emtta_core.identity import digest

_ID = re.compile(r"[A-Za-z0-9._-]+")
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]")


def is_id(name: str) -> bool:
    """Return whether a name may be an utterance's id."""
    return _ID.fullmatch(name) is not None


def id_of(name: str, source: str | None = None) -> str:
    """Return an id made of a name; what an id may not hold becomes `_`, and then a digest tells such names apart.

    Args:
        name: what would be the id.
        source: what the digest is taken of; by default the name.
    """
    plain = _FOREIGN.sub("_", name)
    return plain if plain == name else f"{plain}-{digest(name if source is None else source, 8)}"
