"""`emtta schedule`: evaluate a suite each night, from this machine."""

import platform
from typing import Annotated

import typer

from flows.cli import _log
from flows.cli._options import (
    DEFAULT_STORE,
    DevicesOption,
    IsolationOption,
    MinEffectOption,
    RayAddressOption,
    RunnerOption,
    StoreOption,
    SuiteArgument,
)
from flows.cli._output import put, say

SHOWN = 5
"""How many of the next runs `--dry-run` shows."""


def schedule(
    suite: SuiteArgument,
    cron: Annotated[
        str, typer.Option("--cron", metavar="'M H D M W'", help="Minute, hour, day, month, day of the week.")
    ] = "0 4 * * *",
    timezone: Annotated[
        str, typer.Option("--timezone", metavar="NAME", help="Time zone of the hour, such as Europe/Berlin.")
    ] = "UTC",
    store: StoreOption = DEFAULT_STORE,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="RUN", help="Compare each night with this run.", show_default=False),
    ] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="As of emtta compare.")] = 0.05,
    min_effect: MinEffectOption = "0.2",
    trend_nights: Annotated[
        int, typer.Option("--trend-nights", help="Seek a trend over at most so many nights; see docs/statistics.md.")
    ] = 30,
    trend_threshold: Annotated[
        float, typer.Option("--trend-threshold", metavar="Z", help="The least z of a trend.")
    ] = 3.8,
    deployment: Annotated[
        str | None,
        typer.Option("--name", help="The deployment's name in Prefect. Default: SUITE-HOST.", show_default=False),
    ] = None,
    devices: DevicesOption = None,
    isolation: IsolationOption = None,
    runner: RunnerOption = "threads",
    ray_address: RayAddressOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show when the next runs are due, and exit.")] = False,
) -> None:
    """Evaluate a suite each night and compare it with the last run, for as long as this command runs.

    The last run is the last complete one that heard the same speech, or --baseline. It needs a Prefect server (emtta
    server starts one), whose address PREFECT_API_URL names. Ctrl-C ends it, and pauses the schedule. For a work pool
    see prefect.yaml and docs/operations.md.

    Examples:
        emtta schedule demo --cron "0 4 * * *" --timezone Europe/Berlin

        emtta schedule suites/mine.toml --cron "30 1 * * 1-5" --dry-run
    """
    _log.settle_environment()
    from emtta_core.scoring.thresholds import check_thresholds
    from emtta_core.store import Store
    from emtta_core.store.backend import open_backend
    from emtta_core.suite import load_suite
    from emtta_core.trend import check_trend
    from flows.nightly import next_runs
    from flows.runner import check_runner

    check_runner(runner, ray_address, devices, isolation)
    least = check_thresholds(alpha, min_effect)
    check_trend(trend_nights, trend_threshold, min_effect)
    if baseline is not None:
        Store.open(store).run(baseline)
    name = load_suite(suite).name
    location = open_backend(store).location
    due = next_runs(cron, timezone, SHOWN)
    for date in due if dry_run else due[:1]:
        line = f"{name}: {date:%a %Y-%m-%d %H:%M %Z} ({date:%z})"
        if dry_run:
            put(f"{line}\n")
        else:
            say(f"next run of {line}, into {location}")
    if dry_run:
        return
    from flows.nightly import serve

    what = {"suite": suite, "store": location, "timezone": timezone}
    against = {"baseline": baseline, "alpha": alpha, "min_effect": least.value}
    trend = {"trend_nights": trend_nights, "trend_threshold": trend_threshold}
    how = {"devices": devices, "isolation": isolation, "runner": runner, "ray_address": ray_address}
    serve(deployment or f"{name}-{platform.node()}", cron, timezone, what | against | trend | how)
