"""What a run produces besides its rows: its log and, in Prefect, its leaderboard, its failures and its task runs.

The log, `logs/<run>.log` in the store, takes the messages of Prefect, the flow and the libraries during the run.
Artifacts only display the contents of the store, and are never read back. Prefect keeps the versions of each key, so
the page of a suite's key shows its history from run to run.
"""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
from prefect import get_client, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun
from prefect.logging.formatters import PrefectFormatter
from prefect.runtime import flow_run

from emtta_core.compare import Comparison
from emtta_core.sanitize import SanitizingFormatter
from emtta_core.store import Catalogue, Result, Store
from emtta_core.store.describe import verdicts_of
from emtta_core.trend import Watch

MAX_ROWS = 1_000
"""The most rows of a table artifact; the report has all."""


def key(kind: str, suite: str) -> str:
    """An artifact's key: lower-case letters, digits and dashes only, as Prefect requires."""
    return "-".join(re.findall("[a-z0-9]+", f"{kind} {suite}".lower()))


def publish(
    store: Store, run_id: str, prefix: str = "", page: str | None = None, catalogue: Catalogue | None = None
) -> None:
    """Publish the leaderboard and failures of a run, with commands to see more, as artifacts of the current flow run.

    Failures are only logged, as no result depends on artifacts. `prefix` begins the keys of the artifacts, so that
    nightly runs have a separate history; `page` is the location of the run's page, if one was written; `catalogue` is
    one of the run, if the caller has it open.
    """
    try:
        suite = store.run(run_id).suite
        with Catalogue(store, runs=[run_id]) if catalogue is None else nullcontext(catalogue) as opened:
            opened.cache_rows()
            leaderboard, failures = (opened.report(name, run_id) for name in ("leaderboard", "failures"))
            best = "".join(f"; {verdict}" for verdict in verdicts_of(opened, run_id)[:1])  # of all domains
        shown = f"; its page: {_link(page)}" if page else ""
        _table(key(f"{prefix} leaderboard", suite), leaderboard, f"WER of {run_id}, %{best}{shown}")
        _table(key(f"{prefix} failures", suite), failures, f"Incomplete cells and utterances in error in {run_id}")
        create_markdown_artifact(_commands(store, run_id, page), key(f"{prefix} report", suite), f"How to see {run_id}")
    except Exception:
        get_run_logger().warning("the artifacts of run %s could not be written", run_id, exc_info=True)


def publish_comparison(suite: str, run_id: str, comparison: Comparison | None, watch: Watch | None) -> None:
    """Publish a comparison and the trends as artifacts of the current flow run; failures are only logged."""
    found = [one for one in (comparison, watch) if one is not None]
    if not found:
        return
    try:
        text = "\n".join(one.markdown() for one in found)
        create_markdown_artifact(text, key("comparison", suite), "; ".join(one.summary for one in found))
    except Exception:
        get_run_logger().warning("the comparison of %s could not be written", run_id, exc_info=True)


def _table(name: str, result: Result, description: str) -> None:
    rows: list[dict[str, Any]] = Result(result.table.slice(0, MAX_ROWS)).rounded
    if result.table.num_rows > MAX_ROWS:
        description += f"; the first {MAX_ROWS:,} of {result.table.num_rows:,} rows"
    create_table_artifact(rows, name, description)


def _link(page: str) -> str:
    # A Markdown link to a page, with its address to copy in case the browser does not follow it.
    address = page if "://" in page else Path(page).as_uri()
    return f"[{page}]({address})"


def _commands(store: Store, run_id: str, page: str | None) -> str:
    named = [store.command("report", name, "--run", run_id) for name in ("leaderboard", "domains", "failures")]
    commands = "\n".join([*named, store.command("status", run_id), store.command("view")])
    return (
        f"# {run_id}\n\n" + (f"Page: {_link(page)}\n\n" if page else "") + f"Store: `{store.location}`\n\n"
        "```console\n"
        f"{commands}\n"
        "```\n"
    )


class Formatter(SanitizingFormatter, PrefectFormatter):
    """Formats log lines, with the name of the flow or task run if any, and without passwords in URLs."""

    def __init__(self) -> None:
        head = "%(asctime)s %(levelname)-7s %(name)s"
        super().__init__(
            f"{head} %(message)s",
            flow_run_fmt=f"{head} %(flow_run_name)s: %(message)s",
            task_run_fmt=f"{head} %(task_run_name)s: %(message)s",
        )


@contextmanager
def also_logging_to(store: Store, run_id: str) -> Iterator[None]:
    """Send the log records of this process also to the log of a run, inside the `with` block."""
    root, emtta_logger = logging.getLogger(), logging.getLogger("emtta")
    with store.run_log(run_id) as path:
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(Formatter())
        root.addHandler(handler)
        level = emtta_logger.level
        emtta_logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            emtta_logger.setLevel(level)
            root.removeHandler(handler)
            handler.close()


RUNS_AT_ONCE = 200
"""The most task runs that the server returns at once."""


def wait_for_records(expected: int, *, timeout: float = 60.0, poll: float = 0.2) -> bool:
    """Wait, inside a flow run, until all its task runs are in a final state on the server, or it no longer answers.

    Args:
        expected: the number of task runs.
        timeout: the most seconds to wait; the store has the results in any case.
        poll: the most seconds between polls; the first ones are closer together.

    Returns:
        Whether the server still answers.
    """
    deadline, pause = time.monotonic() + timeout, poll / 8
    while True:
        try:
            runs = _task_runs()
        except httpx.TransportError as error:
            get_run_logger().warning("Prefect's server no longer answers (%s); the store has all results", error)
            return False
        # States reach the server as events, shortly after the tasks have ended here.
        final = sum(run.state is not None and run.state.is_final() for run in runs)
        if final >= expected:
            return True
        if time.monotonic() > deadline:
            get_run_logger().warning("Prefect has %d of %d task records; the store has all results", final, expected)
            return True
        time.sleep(pause)
        pause = min(2 * pause, poll)


def _task_runs() -> list[TaskRun]:
    runs: list[TaskRun] = []
    this_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.get_id()]))
    with get_client(sync_client=True) as client:
        while True:
            page = client.read_task_runs(flow_run_filter=this_run, limit=RUNS_AT_ONCE, offset=len(runs))
            runs += page
            if len(page) < RUNS_AT_ONCE:
                return runs
