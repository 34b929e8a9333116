"""A run on a Ray cluster of two nodes has the same rows as elsewhere, and a lost worker loses only its shard."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from conftest import CLEAN, Command, Speech, SuiteFile, tone
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State

from emtta_core.pipeline.events import (
    CellFinished,
    DomainPrepared,
    Event,
    Listener,
    Started,
    UtterancesDone,
    channel,
    ignore,
)
from emtta_core.pipeline.models import digest_of
from emtta_core.pipeline.run import plan_run, record
from emtta_core.pipeline.state import cell_states
from emtta_core.store import CellKey, CellRow, Store
from emtta_core.suite import load_suite
from flows.evaluate import evaluate
from flows.nightly import nightly

pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed: pip install 'emtta[ray]'")

from emtta_core.worker.ray import check_machine

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

ROOT = Path(__file__).parents[2]
NOISY = CLEAN.replace('"clean"', '"noisy"', 1) + 'corruption = { name = "noise", kind = "typing", snr_db = 5 }\n'
UTTERANCES = 6


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Ray cluster of two nodes with one CPU each, whose Python finds another `tasks` first; yields its address."""
    from ray.cluster_utils import Cluster

    project = tmp_path_factory.mktemp("project")
    (project / "tasks.py").write_text("raise ImportError('not the tasks of emtta')")

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # so that any token of this machine is ignored
        patch.setenv("PYTHONPATH", f"{project}{os.pathsep}{ROOT}")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        found = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
        try:
            found.add_node(**node)
            yield found.address
        finally:
            found.shutdown()


@pytest.fixture(scope="module")
def joined(cluster: str) -> Iterator[str]:
    """The cluster, with this process connected to it, so that workers stay and need not start again for each run."""
    import ray

    ray.init(cluster, log_to_driver=False, configure_logging=False)
    yield cluster
    ray.shutdown()


@pytest.fixture
def slow_suite(suite_file: SuiteFile, speech: Speech) -> Path:
    """A suite whose cell `clean/em-tok-b` has six slow shards, and is retried once."""
    for index in range(3, UTTERANCES):
        speech.add(f"good{index}", tone(0.6 + 0.2 * index, 200 + 40 * index), "seven small boats")
    path = suite_file()
    text = path.read_text().replace("steps = 1", "steps = 30").replace("batch_size = 2", "batch_size = 1")
    path.write_text(text)
    return path


def run(path: Path, store: Path, cluster: str | None, listener: Listener = ignore) -> State[Any]:
    """Execute the missing cells of the run `mine`, on a cluster or in this process."""
    if not store.exists():
        suite = load_suite(str(path))
        record(plan_run(suite, digest_of(suite.model), "mine"), Store.open(store, create=True))
    with channel.listening(listener):
        if cluster is None:
            return evaluate("mine", str(store), return_state=True)
        return evaluate("mine", str(store), runner="ray", ray_address=cluster, return_state=True)


def attempts(store: Path, method: str) -> list[CellRow]:
    return list(Store.open(store).cells(CellKey("mine", "clean", method)))


def rows(store: Path) -> dict[tuple[str, str], tuple[object, ...]]:
    """The results and error counts of each utterance of each cell."""
    opened, found = Store.open(store), {}
    for state in cell_states(opened, "mine"):
        key = state.cell.key("mine")
        for name, utterance in opened.done(key, state.cell.cell_id).items():
            row, score = utterance.hypothesis, utterance.score
            assert score is not None
            words = (score.hits, score.substitutions, score.deletions, score.insertions)
            found[state.cell.name, name] = (row.hypothesis, row.source_hypothesis, row.tokens, row.error, *words)
    return found


def is_shard(event: Event) -> bool:
    """Whether an event reports a new shard of the slow cell."""
    return isinstance(event, UtterancesDone) and event.method == "em-tok-b" and not event.resumed


def workers() -> list[int]:
    """The PIDs of Ray's processes that are executing a cell."""
    found = subprocess.run(["pgrep", "-f", "^ray::evaluate-cell"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def the_worker() -> int:
    """The PID of the only process at work; waits until the process of a cell that has just finished is idle."""
    deadline = time.monotonic() + 10
    while len(found := workers()) != 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    (pid,) = found
    return pid


def test_cluster_matches_local_results(cluster: str, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    path, events = suite_file(CLEAN + NOISY), list[Event]()
    assert run(path, tmp_path / "threads", None).is_completed()
    state = run(path, tmp_path / "ray", cluster, events.append)
    assert state.is_completed(), state.message
    assert rows(tmp_path / "ray") == rows(tmp_path / "threads")
    assert len(rows(tmp_path / "ray")) == 12
    assert [event.workers for event in events if isinstance(event, Started)] == [2]
    assert sum(isinstance(event, CellFinished) for event in events) == 4
    assert sum(event.utterances for event in events if isinstance(event, UtterancesDone)) == 12
    log = (tmp_path / "ray/logs/run_id=mine/domain=clean/method=em-tok-b/seed=none/001.log").read_text()
    assert "clean/em-tok-b of run mine on cpu" in log
    with get_client(sync_client=True) as client:
        this_run = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        records = client.read_task_runs(flow_run_filter=this_run)
    assert len(records) == 6
    assert all(record.state is not None and record.state.is_completed() for record in records)


def test_cluster_reports_to_own_server(
    cluster: str, suite_file: SuiteFile, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    command = [sys.executable, "-m", "emtta_core", "run", str(suite_file()), "--run-id", "mine"]
    where = ["--store", str(tmp_path / "store"), "--runner", "ray", "--ray-address", cluster]
    done = subprocess.run([*command, *where], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "store/logs/mine.log").read_text()
    assert "View at" not in log  # the temporary server has no pages
    assert "401 Unauthorized" not in log
    with closing(sqlite3.connect(tmp_path / "prefect" / "prefect.db")) as database:
        found = database.execute("SELECT state_type, count(*) FROM task_run GROUP BY state_type").fetchall()
    assert found == [("COMPLETED", 3)]  # a domain and two cells


def test_cluster_runs_nightly(cluster: str, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    events = list[Event]()
    with channel.listening(events.append):
        state = nightly(
            str(suite_file()), str(tmp_path / "store"), runner="ray", ray_address=cluster, return_state=True
        )
    assert state.is_completed(), state.message
    assert [event.workers for event in events if isinstance(event, Started)] == [2]
    assert sum(isinstance(event, CellFinished) for event in events) == 2


def test_killed_worker_loses_only_shard(joined: str, slow_suite: Path, tmp_path: Path) -> None:
    store, killed = tmp_path / "store", list[int]()

    def kill(event: Event) -> None:
        finished = [row for row in attempts(store, "source") if row.state == "complete"]
        if is_shard(event) and finished and len(killed) < 2:  # in the first and the second attempt
            pid = the_worker()
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    state = run(slow_suite, store, joined, kill)
    assert state.is_failed()
    assert "1 of 2 cells failed" in str(state.message)
    assert f"the Ray worker {killed[1]} on " in str(state.message)
    assert [row.state for row in attempts(store, "source")] == ["complete"]
    assert [(row.attempt, row.state) for row in attempts(store, "em-tok-b")] == [(1, "failed"), (2, "failed")]
    assert attempts(store, "em-tok-b")[1].reused > 0
    with get_client(sync_client=True) as client:
        this_run = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        ends = [record.state_name for record in client.read_task_runs(flow_run_filter=this_run)]
    assert sorted(map(str, ends)) == ["Completed", "Completed", "Crashed", "Crashed"]

    assert run(slow_suite, store, joined).is_completed()
    last = attempts(store, "em-tok-b")[-1]
    assert (last.state, last.done + last.reused) == ("complete", UTTERANCES)
    assert 0 < last.done < UTTERANCES


def test_ctrl_c_finishes_shards(joined: str, slow_suite: Path, tmp_path: Path) -> None:
    store, events = tmp_path / "store", list[Event]()
    main = threading.main_thread().ident
    assert main is not None

    def interrupt(event: Event) -> None:
        if is_shard(event) and not any(map(is_shard, events)):
            signal.pthread_kill(main, signal.SIGINT)
        events.append(event)

    state = run(slow_suite, store, joined, interrupt)
    assert state.is_failed()
    assert "clean/em-tok-b: the run was asked to stop; finished utterances are kept" in str(state.message)
    (stopped,) = attempts(store, "em-tok-b")
    assert (stopped.state, 0 < stopped.done < UTTERANCES) == ("interrupted", True)
    assert run(slow_suite, store, joined).is_completed()
    assert attempts(store, "em-tok-b")[-1].reused == stopped.done


def test_ctrl_c_cancels_waiting_cells(joined: str, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    import ray

    def other_work() -> None:
        time.sleep(600)

    others = [ray.remote(other_work).remote() for _ in range(2)]
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(3.0, signal.pthread_kill, [main, signal.SIGINT])

    def begin(event: Event) -> None:
        if isinstance(event, DomainPrepared):
            timer.start()

    state = run(suite_file(methods=("source",)), tmp_path / "store", joined, begin)
    assert "clean/source: not started: the run was asked to stop" in str(state.message)
    assert attempts(tmp_path / "store", "source") == []
    for other in others:
        ray.cancel(other, force=True)


def test_overlong_cell_is_stopped(joined: str, slow_suite: Path, tmp_path: Path) -> None:
    slow_suite.write_text(slow_suite.read_text().replace("retries = 1", "retries = 0, timeout = 0.1"))
    state = run(slow_suite, tmp_path / "store", joined)
    assert "clean/em-tok-b: the attempt took longer than 0.1 s (runtime.timeout)" in str(state.message)
    assert [row.state for row in attempts(tmp_path / "store", "em-tok-b")] == ["failed"]
    assert workers() == []


MISTAKES = {
    "devices of this machine": (["--runner", "ray", "--devices", "cpu"], 2, "leave it out"),
    "isolation": (["--runner", "ray", "--isolation", "none"], 2, "Ray isolates cells itself"),
    "an address without its runner": (["--ray-address", "head:6379"], 2, "add that, or leave out --ray-address"),
    "nobody at the address": (["--runner", "ray", "--ray-address", "127.0.0.1:9"], 1, "no Ray cluster answers at"),
    "no address": (["--runner", "ray", "--ray-address", "head"], 1, "the address is HOST:PORT of its head"),
}


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES.values(), ids=MISTAKES)
def test_error_prints_only_message(
    arguments: list[str],
    code: int,
    words: str,
    emtta: Command,
    suite_file: SuiteFile,
    speech: Speech,
    tmp_path: Path,
    prefect_server: str,
) -> None:
    outcome = emtta("run", suite_file(), "--store", tmp_path / "store", *arguments)
    assert outcome.code == code
    assert words in outcome.err
    assert "Traceback" not in outcome.err


def test_second_cluster_is_refused(
    joined: str, suite_file: SuiteFile, speech: Speech, emtta: Command, tmp_path: Path
) -> None:
    words = ("run", suite_file(methods=("source",)), "--store", tmp_path / "store", "--runner", "ray", "--ray-address")
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        refused = emtta(*words, address)
    assert refused.code == 2
    assert f"connected to the Ray cluster at {joined!r}" in refused.err
    assert f"cannot use the one at {address!r}" in refused.err

    (suggested,) = re.findall("or give the address '([^']+)'", refused.err)
    done = emtta(*words, suggested.replace("127.0.0.1", "localhost"))
    assert done.code == 0, done.err


def test_missing_package_names_extra(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    outcome = emtta("run", suite_file(), "--store", tmp_path / "store", "--runner", "ray")
    assert outcome.code == 1
    assert "pip install 'emtta[ray]'" in outcome.err


def test_unfit_machine_gives_reason(suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str) -> None:
    suite, store = load_suite(str(suite_file())), Store.open(tmp_path / "store", create=True)
    record(plan_run(suite, digest_of(suite.model), "mine"), store)
    release = version("emtta")
    assert check_machine(store.location, "mine", prefect_server, release, "head") is None
    assert "use a folder that all machines share" in str(
        check_machine(str(tmp_path), "mine", prefect_server, release, "head")
    )
    no_server = str(check_machine(store.location, "mine", "http://127.0.0.1:9/api", release, "head"))
    assert "export PREFECT_API_URL=http://head:4200/api" in no_server
    assert "install the same release" in str(check_machine(store.location, "mine", prefect_server, "0.0.0", "head"))


@pytest.fixture
def ray_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Runs a command that starts a node, with further options, and returns its output once the node is up."""
    import ray

    ray.shutdown()  # a process that is connected to another test's cluster may use no other
    for name, value in {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    small = f"--node-ip-address 127.0.0.1 --object-store-memory {100 * 2**20} --block"  # the node ends with its process
    with ExitStack() as stack:

        def begin(command: str, *options: str) -> str:
            program, *words = f"{command} {small}".split()
            with (tmp_path / f"{options[-1]}.log").open("w+b") as log:
                node = subprocess.Popen([Path(sys.executable).with_name(program), *words, *options], stdout=log)
            stack.callback(node.wait)
            stack.callback(node.terminate)
            deadline = time.monotonic() + 120
            while "Ray runtime started" not in (output := Path(log.name).read_text()):
                assert node.poll() is None, output
                assert time.monotonic() < deadline, output
                time.sleep(0.2)
            return output

        yield begin


def test_suggested_ray_commands_work(
    ray_node: Callable[..., str], emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path
) -> None:
    words = ("run", suite_file(methods=("source",)), "--store", tmp_path / "store", "--runner", "ray", "--ray-address")
    (head,) = re.findall("`(ray start [^`]*)`", emtta(*words, "127.0.0.1:9").err)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    output = ray_node(head, "--include-dashboard", "false", "--num-cpus", "0", "--port", port)
    (address,) = set(re.findall(r"--address='(\S+)'", output))

    idle = emtta(*words, address)
    assert "the Ray cluster has 0 CPUs and 0 GPUs for tasks" in idle.err
    (join,) = re.findall(r"\((ray start [^)]*)\)", idle.err)
    ray_node(join.replace("…", address), "--num-cpus", "1")
    done = emtta(*words, address)
    assert done.code == 0, done.err
