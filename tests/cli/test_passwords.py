"""No password in an address reaches Prefect: its server stores neither log lines nor messages with one."""

import logging
import time
from inspect import signature
from typing import Any

import pytest
from prefect import flow, get_client, get_run_logger, task
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import State
from prefect.logging.handlers import APILogHandler

from emtta_core.errors import EmttaError
from emtta_core.faults import is_transient
from flows.evaluate import evaluate
from flows.nightly import nightly
from tasks.cells import evaluate as evaluate_cell
from tasks.cells import hide_passwords, prepare

pytestmark = pytest.mark.usefixtures("prefect_server")

SECRET = "open-sesame"
ADDRESS = f"https://me:{SECRET}@host:1/path"
SHOWN = "https://***@host:1/path"


@task(persist_result=False)
@hide_passwords()
def ask(address: str) -> None:
    get_run_logger().warning("asking %s", address)
    raise ConnectionError(f"{address} does not answer")


@flow(persist_result=False)
@hide_passwords()
def asking() -> None:
    get_run_logger().warning("about to ask %s", ADDRESS)
    ask.submit(ADDRESS).wait()
    raise ConnectionError(f"nor does {ADDRESS}")


def logged(state: State[Any], least: int) -> list[str]:
    """Return a flow run's log lines from the server, once there are at least this many."""
    chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    deadline = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while True:
            found = [entry.message for entry in client.read_logs(chosen)]
            if len(found) >= least or time.monotonic() > deadline:
                return found
            time.sleep(0.2)


def final_state(state: State[Any]) -> State[Any]:
    """Return the final state of a flow run's task run; states reach the server as events, so this waits."""
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while True:
            for record in client.read_task_runs(flow_run_filter=chosen):
                if record.state is not None and record.state.is_final():
                    return record.state
            assert time.monotonic() < deadline, "the server has no final state of the task run"
            time.sleep(0.2)


def test_server_never_sees_password() -> None:
    state = asking(return_state=True)
    assert state.is_failed()
    assert f"nor does {SHOWN}" in str(state.message)
    task_state = final_state(state)
    assert f"{SHOWN} does not answer" in str(task_state.message)
    for handler in logging.getLogger("prefect.flow_runs").handlers:
        if isinstance(handler, APILogHandler):
            handler.flush()
    lines = logged(state, 4)
    assert f"about to ask {SHOWN}" in lines
    assert f"asking {SHOWN}" in lines
    assert any("Traceback" in line and SHOWN in line for line in lines)
    assert not any(SECRET in text for text in (*lines, str(state.message), str(task_state.message)))


def test_hidden_error_stays_retryable() -> None:
    with pytest.raises(EmttaError, match=r"^ConnectionError: ") as hidden, hide_passwords():
        raise ConnectionError(ADDRESS)
    assert is_transient(hidden.value) == is_transient(ConnectionError(ADDRESS))
    with pytest.raises(ConnectionError, match="no address"), hide_passwords():
        raise ConnectionError("no address")


@pytest.mark.parametrize("one", [evaluate, nightly, evaluate_cell, prepare], ids=lambda one: one.name)
def test_every_flow_and_task_hides_passwords(one: Any) -> None:
    required = [value for value in signature(one.fn).parameters.values() if value.default is value.empty]
    with pytest.raises(EmttaError, match=r"https://\*\*\*@host") as refusal:
        one.fn(*[_Raising()] * len(required))
    assert SECRET not in str(refusal.value)


class _Raising:
    """A value whose every use raises an error with an address."""

    def __getattr__(self, name: str) -> Any:
        raise ConnectionError(ADDRESS)

    def __fspath__(self) -> str:
        raise ConnectionError(ADDRESS)

    def __call__(self, *_: object) -> Any:
        raise ConnectionError(ADDRESS)

    def __str__(self) -> str:
        raise ConnectionError(ADDRESS)
