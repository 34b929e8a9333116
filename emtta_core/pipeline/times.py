"""Places' times of day, by their names in the IANA database."""

import difflib
from zoneinfo import ZoneInfo, available_timezones

from emtta_core.errors import UsageError


def timezone_of(name: str) -> ZoneInfo:
    """Return the time zone called `name`, as in `Europe/Berlin`; UsageError naming those that are like it."""
    known = available_timezones()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or ["UTC", "Europe/Berlin", "America/New_York"]
        raise UsageError(f"unknown time zone {name!r}; the names are those of the IANA database, as {', '.join(near)}")
    return ZoneInfo(name)
