"""What a reader is not to be shown as it is: signs that act on a terminal or a page, and passwords in addresses.

A transcript or an id may hold them. In the store and in what is exported for programs they stay as they are.
"""

import re

from emtta_core.network import without_passwords

_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls but tab and line feed, marks that turn the direction of what follows, and halves of a surrogate pair."""


def escaped(text: str) -> str:
    r"""`text` with each acting sign as its escape, and without the passwords of URLs.

    Example:
        >>> print(escaped("red: \x1b[31m, backwards: \u202eabc"))
        red: \x1b[31m, backwards: \u202eabc
    """
    return _ACTING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), without_passwords(text))
