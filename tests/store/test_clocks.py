"""Setting the clock back between two attempts changes no result: attempts are numbered, not timed."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import time_machine
from conftest import Command, Speech, SuiteFile

from emtta_core.store import Catalogue, Store

FACTS = """
    SELECT domain, method, utterance_id, reference, hypothesis, errors, words, step_errors, error
    FROM utterances ORDER BY ALL
"""


@contextmanager
def set_back(days: float) -> Iterator[None]:
    """Set this process's clock back; worker processes and Prefect's server keep theirs, like other machines."""
    with time_machine.travel(datetime.now(UTC) - timedelta(days=days), tick=True):
        yield


def rows(store: Path, query: str) -> list[tuple[object, ...]]:
    with Catalogue(Store.open(store)) as catalogue:
        return catalogue.query(query).rows


def rows_by_file(store: Path) -> dict[Path, int]:
    return {file.relative_to(store): pq.read_table(file).num_rows for file in store.rglob("*.parquet")}


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["none", "process"])
def test_earlier_clock_keeps_result(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str, isolation: str
) -> None:
    path, calm, store = suite_file(), tmp_path / "calm", tmp_path / "store"
    assert emtta("run", path, "--run-id", "mine", "--store", calm).code == 0
    assert emtta("run", path, "--run-id", "mine", "--store", store, "--only", "method=source").code == 0
    kept = {file: file.stat().st_mtime_ns for file in (store / "scores").rglob("*.parquet")}
    with set_back(days=2):
        assert emtta("rerun", "mine", "--store", store, "--isolation", isolation).code == 0
    assert emtta("status", "mine", "--store", store).code == 0
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert rows_by_file(store) == rows_by_file(calm)
    assert rows(store, FACTS) == rows(calm, FACTS)
    board = [emtta("report", "leaderboard", "--store", each, "--format", "csv").out for each in (store, calm)]
    assert board[0] == board[1]


def test_newest_attempt_wins(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str
) -> None:
    path, store = suite_file(methods=("source",)), tmp_path / "store"
    assert emtta("run", path, "--run-id", "mine", "--store", store).code == 0
    with set_back(days=2):
        assert emtta("rerun", "mine", "--store", store, "--force", "--isolation", "none").code == 0
    assert rows(store, "SELECT DISTINCT attempt FROM utterances") == [(2,)]
    assert rows(store, "SELECT attempt, newest FROM attempts ORDER BY finished_at") == [(2, True), (1, False)]
