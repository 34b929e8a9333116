"""Sanitize output: characters that act on a terminal or a page, and passwords in URLs.

A transcript or an id may contain such characters. The store and exports for programs keep them.
"""

import logging
import os
import re

_CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and line feed, marks that change the text direction, and lone surrogates."""

_USER_INFO = re.compile(r"(?<=://)[^\s/?#'\"<>]+@")


def without_passwords(text: str) -> str:
    """Replace user names and passwords in URLs with `***`.

    Example:
        >>> without_passwords("https://me:secret@host/api does not answer")
        'https://***@host/api does not answer'
    """
    if "@" not in text:
        return text
    for value in os.environ.values():  # a password may contain characters that end a URL for the pattern
        _, scheme, rest = value.partition("://")
        credentials = rest.rpartition("@")[0]
        if scheme and ":" in credentials:
            text = text.replace(f"{credentials}@", "***@")
    return _USER_INFO.sub("***@", text)


class SanitizingFormatter(logging.Formatter):
    """Formats log records without the passwords of URLs."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, its traceback included."""
        return without_passwords(super().format(record))


def escaped(text: str) -> str:
    r"""Replace each control character by its escape, and remove passwords from URLs.

    Example:
        >>> print(escaped("red: \x1b[31m, backwards: \u202eabc"))
        red: \x1b[31m, backwards: \u202eabc
    """
    return _CONTROL_CHARACTERS.sub(
        lambda found: found[0].encode("unicode_escape").decode("ascii"), without_passwords(text)
    )
