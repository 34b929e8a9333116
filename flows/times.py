"""When a schedule's runs are due: Prefect's own reading of cron, checked before it is used."""

import asyncio
from datetime import datetime

from prefect.server.schemas.schedules import CronSchedule
from pydantic import ValidationError

from emtta_core.errors import UsageError
from emtta_core.pipeline.times import timezone_of

FIELDS = "minute hour day-of-month month day-of-week"
"""What a cron expression says, in this order."""


def next_runs(cron: str, timezone: str, count: int, after: datetime | None = None) -> list[datetime]:
    """Return when the next runs of a schedule are due, in its time zone.

    Args:
        cron: as in `0 4 * * *`.
        timezone: as in `Europe/Berlin`; the hour is kept where its clocks change.
        count: how many.
        after: none before this; now by default.

    Raises:
        UsageError: no cron expression, one that never comes, or no such time zone.
    """
    zone = timezone_of(timezone)
    if len(cron.split()) != len(FIELDS.split()) and not cron.startswith("@"):
        raise UsageError(
            f"the cron expression {cron!r} has {len(cron.split())} fields and not 5: {FIELDS}; as in '0 4 * * *', "
            "each night at four"
        )
    try:
        schedule = CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"the cron expression {cron!r} does not hold: {reason}; its fields are {FIELDS}, as in '0 4 * * *'"
        ) from error
    try:
        dates = asyncio.run(schedule.get_dates(count, start=after))
    except ValueError as error:
        raise UsageError(f"the cron expression {cron!r} never comes: {error}") from error
    return [date.astimezone(zone) for date in dates]
