"""What a run leaves besides its rows: its log; on Prefect's page its leaderboard, its failures, and its task runs.

The log is `logs/<run>.log` in the store: what Prefect, the flow and the libraries say while the run goes on. An
artifact is a view of the store for whoever looks at the page, and nothing is read back from one. Each key keeps its
versions, so that the page of a suite's key shows how it went from run to run.
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

MOST_ROWS = 1_000
"""Of a table; the report itself has all."""


def key(kind: str, suite: str) -> str:
    """An artifact's key: small letters, digits and dashes alone, as Prefect wants them."""
    return "-".join(re.findall("[a-z0-9]+", f"{kind} {suite}".lower()))


def publish(
    store: Store, run_id: str, prefix: str = "", page: str | None = None, catalogue: Catalogue | None = None
) -> None:
    """Put the leaderboard and the failures of a run on the page of the current flow run, with the way to the rest.

    A page that cannot be written costs no result: what went wrong is logged. `prefix` begins the keys of the artifacts,
    so that the nights have a history of their own; `page` is where the page on the run lies, if one was written;
    `catalogue` is one of the run, where the caller has it open.
    """
    try:
        suite = store.run(run_id).suite
        with Catalogue(store, runs=[run_id]) if catalogue is None else nullcontext(catalogue) as opened:
            opened.cache_rows()
            leaderboard, failures = (opened.report(name, run_id) for name in ("leaderboard", "failures"))
            best = "".join(f"; {verdict}" for verdict in verdicts_of(opened, run_id)[:1])  # of all domains
        shown = f"; the page on it: {_link(page)}" if page else ""
        _table(key(f"{prefix} leaderboard", suite), leaderboard, f"WER of {run_id}, %{best}{shown}")
        _table(key(f"{prefix} failures", suite), failures, f"What is not complete or in error in {run_id}")
        create_markdown_artifact(_commands(store, run_id, page), key(f"{prefix} report", suite), f"How to see {run_id}")
    except Exception:
        get_run_logger().warning("the artifacts of run %s could not be written", run_id, exc_info=True)


def publish_comparison(suite: str, run_id: str, comparison: Comparison | None, watch: Watch | None) -> None:
    """Put a comparison and the trends on the page of the current flow run; what cannot be written is logged."""
    found = [one for one in (comparison, watch) if one is not None]
    if not found:
        return
    try:
        text = "\n".join(one.markdown() for one in found)
        create_markdown_artifact(text, key("comparison", suite), "; ".join(one.summary for one in found))
    except Exception:
        get_run_logger().warning("the comparison of %s could not be written", run_id, exc_info=True)


def _table(name: str, result: Result, description: str) -> None:
    rows: list[dict[str, Any]] = Result(result.table.slice(0, MOST_ROWS)).rounded
    if result.table.num_rows > MOST_ROWS:
        description += f"; the first {MOST_ROWS:,} of {result.table.num_rows:,} rows"
    create_table_artifact(rows, name, description)


def _link(page: str) -> str:
    # A link to a page in Markdown, with its address to be copied where a browser does not follow it.
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
    """The layout of a line, which of a flow or a task run has its name, without the passwords of URLs."""

    def __init__(self) -> None:
        head = "%(asctime)s %(levelname)-7s %(name)s"
        super().__init__(
            f"{head} %(message)s",
            flow_run_fmt=f"{head} %(flow_run_name)s: %(message)s",
            task_run_fmt=f"{head} %(task_run_name)s: %(message)s",
        )


@contextmanager
def also_logging_to(store: Store, run_id: str) -> Iterator[None]:
    """Send the log records of this process to the log of a run as well, inside the `with` block."""
    root, own = logging.getLogger(), logging.getLogger("emtta")
    with store.run_log(run_id) as path:
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(Formatter())
        root.addHandler(handler)
        level = own.level
        own.setLevel(logging.INFO)
        try:
            yield
        finally:
            own.setLevel(level)
            root.removeHandler(handler)
            handler.close()


RUNS_AT_ONCE = 200
"""The most task runs that the server gives at once."""


def wait_for_records(expected: int, *, timeout: float = 60.0, poll: float = 0.2) -> bool:
    """Wait, inside a flow run, until the server shows all of its task runs in a final state, or no longer answers.

    Args:
        expected: how many task runs there are.
        timeout: seconds after which to go on; the store has the results in any case.
        poll: the most seconds between two looks; the first ones follow each other faster.

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
        # States reach the server as events, some moments after the tasks have ended here.
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
