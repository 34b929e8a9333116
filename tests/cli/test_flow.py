"""The flow runs missing cells, isolates failed domains, and reports what failed and how to finish it."""

import errno
import json
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import CLEAN, Speech, SuiteFile
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, TaskRun

from emtta_core.errors import StoreError
from emtta_core.pipeline.events import (
    CellFinished,
    DomainPrepared,
    Event,
    Listener,
    Started,
    Stopping,
    UtterancesDone,
    channel,
    ignore,
)
from emtta_core.pipeline.models import digest_of
from emtta_core.pipeline.run import plan_run, record
from emtta_core.pipeline.selection import select
from emtta_core.pipeline.state import cell_states
from emtta_core.store import CellKey, HypothesisRow, Store
from emtta_core.store.lease import Holder, holder
from emtta_core.suite import load_suite
from flows.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("prefect_server")

NOISY = CLEAN.replace('"clean"', '"noisy"', 1) + 'corruption = { name = "noise", kind = "typing", snr_db = 5 }\n'
UNSPOKEN = """\
[[domains]]
name = "unspoken"
group = "synthetic"
corpus = { name = "synthetic", utterances = 1, voices = ["no-such-voice"] }
"""
UNKNOWN_LANGUAGE = CLEAN.replace('"clean"', '"polish"', 1).replace("speech", 'speech", language = "pl')


def run(path: Path, store: Path, only: Sequence[str] = (), listener: Listener = ignore) -> State[Any]:
    """Plan and record a suite, and run cells of it."""
    suite, opened = load_suite(str(path)), Store.open(store, create=True)
    planned = plan_run(suite, digest_of(suite.model))
    record(planned, opened)
    cells = [(cell.domain, cell.method, cell.seed) for cell in select(planned.cells, only)]
    now = {"runtime": suite.runtime, "model": suite.model}
    with channel.listening(listener):
        return evaluate(planned.run_id, str(store), cells, return_state=True, **now)


def run_id(store: Path) -> str:
    (found,) = Store.open(store).runs()
    return found


def states(store: Path) -> dict[str, str]:
    return {state.cell.name: state.state for state in cell_states(Store.open(store), run_id(store))}


def task_runs(state: State[Any]) -> list[TaskRun]:
    flow_run = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        return client.read_task_runs(flow_run_filter=flow_run)


def test_every_cell_is_evaluated(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    events: list[Event] = []
    state = run(suite_file(CLEAN + NOISY), tmp_path / "store", listener=events.append)
    assert state.is_completed(), state.message
    assert state.message == f"run {run_id(tmp_path / 'store')}: 4 cells complete"
    assert set(states(tmp_path / "store").values()) == {"complete"}
    started = [event for event in events if isinstance(event, Started)]
    assert [(event.domains, event.cells, event.utterances) for event in started] == [
        (2, 4, {"source": 6, "em-tok-b": 6})
    ]
    assert sum(isinstance(event, CellFinished) for event in events) == 4
    records = task_runs(state)
    assert len(records) == 6  # two domains, four cells
    assert all(record.state is not None and record.state.is_completed() for record in records)
    assert {record.name for record in records} >= {"prepare clean", "noisy/em-tok-b"}
    results = json.loads((tmp_path / f"store/logs/{run_id(tmp_path / 'store')}.results.json").read_text())
    assert results["counts"]["complete"] == 4
    assert all(figure["wer"] is not None for figure in results["groups"])

    again = run(suite_file(CLEAN + NOISY), tmp_path / "store")
    assert again.is_completed()
    assert not task_runs(again)


def test_failures_are_isolated_and_named(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    events: list[Event] = []
    path, store = suite_file(UNSPOKEN + UNKNOWN_LANGUAGE + CLEAN), tmp_path / "store"
    state = run(path, store, listener=events.append)
    assert state.is_failed()
    message = str(state.message)
    assert states(store) == {
        "unspoken/source": "failed",
        "unspoken/em-tok-b": "failed",
        "polish/source": "failed",
        "polish/em-tok-b": "failed",
        "clean/source": "complete",
        "clean/em-tok-b": "complete",
    }
    assert "4 of 6 cells failed" in message
    assert "unspoken/source: the domain could not be prepared: espeak-ng has no voice 'no-such-voice'" in message
    assert "polish/em-tok-b: " in message
    assert f"emtta rerun {run_id(store)} --store {store}" in message
    assert [event.domain for event in events if isinstance(event, DomainPrepared) and event.error] == ["unspoken"]


def test_unrecorded_failure_is_isolated(
    suite_file: SuiteFile, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Store.begin_attempt

    def refuse(self: Store, key: CellKey) -> int:
        if key.domain == "unspoken":
            raise StoreError("the disk is full")
        return begin(self, key)

    monkeypatch.setattr(Store, "begin_attempt", refuse)
    state = run(suite_file(UNSPOKEN + CLEAN, ("source",)), tmp_path / "store")
    assert "unspoken/source: the domain could not be prepared: espeak-ng has no voice" in str(state.message)
    assert states(tmp_path / "store") == {"unspoken/source": "missing", "clean/source": "complete"}


def test_mistake_is_not_retried(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    state = run(suite_file(UNKNOWN_LANGUAGE, ("source",)), tmp_path / "store")
    assert state.is_failed()
    attempts = Store.open(tmp_path / "store").cells(CellKey(run_id(tmp_path / "store"), "polish", "source"))
    assert [row.state for row in attempts] == ["failed"]


def test_transient_fault_loses_only_shard(
    suite_file: SuiteFile, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = Store.write_hypotheses, 0

    def busy(self: Store, key: CellKey, attempt: int, shard: int, rows: Sequence[HypothesisRow]) -> Path:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StoreError("the disk is full") from OSError(errno.ENOSPC, "no space left on device")
        return write(self, key, attempt, shard, rows)

    monkeypatch.setattr(Store, "write_hypotheses", busy)
    state = run(suite_file(methods=("em-tok-b",)), tmp_path / "store")
    assert state.is_completed(), state.message
    attempts = Store.open(tmp_path / "store").cells(CellKey(run_id(tmp_path / "store"), "clean", "em-tok-b"))
    assert [(row.state, row.done, row.reused) for row in attempts] == [("failed", 2, 0), ("complete", 1, 2)]


def test_stopping_run_does_not_retry(
    suite_file: SuiteFile, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        channel.ask_to_stop(signal.SIGTERM)
        raise StoreError("the disk is full") from OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(Store, "write_hypotheses", busy)
    assert run(suite_file(methods=("em-tok-b",)), tmp_path / "store").name == "Interrupted"
    key = CellKey(run_id(tmp_path / "store"), "clean", "em-tok-b")
    assert len(Store.open(tmp_path / "store").cells(key)) == 1


def test_resume_uses_current_settings(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    path, store = suite_file(methods=("source", "em-tok")), tmp_path / "store"
    assert run(path, store, only=["method=source"]).is_completed()
    path.write_text(path.read_text().replace("batch_size = 2", "batch_size = 1"))
    assert run(path, store).is_completed()
    keys = [CellKey(run_id(store), "clean", *cell) for cell in (("source",), ("em-tok", 0))]
    assert [row.batch_size for key in keys for row in Store.open(store).cells(key)] == [2, 1]


def test_unknown_run_lists_existing(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    suite, store = load_suite(str(suite_file())), Store.open(tmp_path / "store", create=True)
    record(plan_run(suite, digest_of(suite.model), "mine"), store)
    state = evaluate("yours", store.location, return_state=True)
    assert (state.is_failed(), "unknown run 'yours'; choose from: mine" in str(state.message)) == (True, True)


def test_other_code_run_is_not_resumed(
    suite_file: SuiteFile, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store = suite_file(methods=("source", "em-tok")), tmp_path / "store"
    assert run(path, store, only=["method=source"]).is_completed()
    monkeypatch.setattr("emtta_core.pipeline.run.ALGORITHM_VERSION", -1)
    state = evaluate(run_id(store), str(store), return_state=True)
    assert state.is_failed()
    assert "was planned by different code" in str(state.message)
    assert states(store) == {"clean/source": "complete", "clean/em-tok": "missing"}


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_signal_starts_no_new_cell(
    suite_file: SuiteFile, speech: Speech, tmp_path: Path, number: signal.Signals
) -> None:
    path, store = suite_file(CLEAN + NOISY, ("source", "em-tok-b")), tmp_path / "store"
    events: list[Event] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, UtterancesDone) and not any(isinstance(other, UtterancesDone) for other in events):
            signal.pthread_kill(main, number)
        events.append(event)

    main = threading.main_thread().ident
    assert main is not None
    state = run(path, store, listener=interrupt)
    assert (state.name, state.is_failed()) == ("Interrupted", True)
    assert f"are not complete, as it was asked to stop by {number.name}\n" in str(state.message)
    assert sum(isinstance(event, Stopping) for event in events) == 1
    left = [name for name, found in states(store).items() if found != "complete"]
    assert left
    assert all(f"{name}: " in str(state.message) for name in left)
    assert "not started: the run was asked to stop" in str(state.message)

    assert run(path, store).is_completed()
    assert set(states(store).values()) == {"complete"}


def test_superseded_run_stops_writing(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    path, store = suite_file(CLEAN, ("source", "em-tok")), Store.open(tmp_path / "store", create=True)
    path.write_text(path.read_text().replace("isolation", "workers = 1, isolation"))
    successor = replace(Holder.this_process(), host="elsewhere", boot="another")

    def take_over(event: Event) -> None:
        if isinstance(event, UtterancesDone):
            lease = f"leases/{run_id(tmp_path / 'store')}/000003.json"
            store.backend.write(lease, json.dumps(asdict(successor)).encode())

    state = run(path, Path(store.location), listener=take_over)
    assert state.is_failed()
    assert f"'{run_id(tmp_path / 'store')}' was taken over by process {os.getpid()} on elsewhere" in str(state.message)
    assert states(tmp_path / "store") == {"clean/source": "partial", "clean/em-tok": "missing"}
    assert [entry.name.rpartition("/")[2] for entry in store.backend.list("cells")] == ["001.begun"]
    assert not store.backend.list("statistics")
    assert holder(store, run_id(tmp_path / "store")) == successor


def test_only_selected_cells_run(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    state = run(suite_file(CLEAN + NOISY), tmp_path / "store", only=["domain=noisy", "method=source"])
    assert state.is_completed()
    assert [name for name, found in states(tmp_path / "store").items() if found == "complete"] == ["noisy/source"]
