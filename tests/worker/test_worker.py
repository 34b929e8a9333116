"""Cells run in separate processes: if one dies, only its shard is lost, its end is recorded, and the cell continues."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Speech, SuiteFile, tone

from emtta_core.errors import ModelError, UsageError
from emtta_core.faults import is_transient
from emtta_core.pipeline.events import AttemptBegun, CellFinished, Event, Listener, UtterancesDone, ignore, never
from emtta_core.pipeline.job import InterruptedRunError, Job
from emtta_core.pipeline.models import digest_of
from emtta_core.pipeline.plan import Cell
from emtta_core.pipeline.preparation import prepare_domain
from emtta_core.pipeline.run import plan_run, record
from emtta_core.store import CellKey, Store
from emtta_core.suite import Runtime, load_suite
from emtta_core.worker.devices import Device, choose_devices
from emtta_core.worker.pool import OwnProcess, WorkerPool
from emtta_core.worker.worker import JobFailedError, TransientJobError, WorkerLostError

UTTERANCES = 6
CPU = Device("cpu", "cpu", {"OMP_NUM_THREADS": "1"})


class Bench:
    """A planned and prepared run of two cells on the tiny model, each with six utterances, two per shard."""

    def __init__(self, suite: Path, store: Path) -> None:
        self.store = Store.open(store, create=True)
        loaded = load_suite(str(suite))
        self.run = plan_run(loaded, digest_of(loaded.model))
        record(self.run, self.store)
        prepare_domain(loaded.domains[0], self.run.cells[0].corpus_id, self.store, None)
        self.events: list[Event] = []

    def job(self, method: str, **runtime: object) -> Job:
        cell = next(cell for cell in self.run.cells if cell.method == method)
        job = Job.of(self.run, cell, self.store.location)
        return job.model_copy(update={"runtime": job.runtime.model_copy(update=runtime)})

    def key(self, method: str) -> CellKey:
        return self.job(method).key

    def log(self, method: str) -> str:
        return self.store.backend.read(f"logs/{self.key(method).folder}/001.log").decode()

    def texts(self, method: str) -> dict[str, str | None]:
        done = self.store.done(self.key(method), self.job(method).cell.cell_id)
        return {name: utterance.hypothesis.hypothesis for name, utterance in done.items()}


@pytest.fixture
def bench(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> Bench:
    for index in range(3, UTTERANCES):
        speech.add(f"good{index}", tone(0.6 + 0.2 * index, 200 + 40 * index), "seven small boats")
    return Bench(suite_file(methods=("source", "em-tok")), tmp_path / "store")


class Shared:
    """A pool whose process several tests use in turn, as one takes seconds to start."""

    def __init__(self) -> None:
        self.listener: Listener = ignore  # the listener of the current test
        self.pool = WorkerPool([CPU], lambda event: self.listener(event), never)


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    there = Shared()
    with there.pool:
        yield there
    assert children() == []


@pytest.fixture
def pool(shared: Shared, bench: Bench) -> WorkerPool:
    """The shared pool, which sends its events to this test's bench."""
    shared.listener = bench.events.append
    return shared.pool


@pytest.fixture
def send_signal(shared: Shared, pool: WorkerPool, bench: Bench) -> Callable[[signal.Signals], None]:
    """Sends the working process of the shared pool a signal, once, when its first shard is done."""

    def listener(number: signal.Signals) -> None:
        sent = threading.Event()
        working: list[int] = []

        def listen(event: Event) -> None:
            bench.events.append(event)
            if not working:  # found before the first shard, as the process keeps working during the search
                working.extend(children())
            if is_shard(event) and not sent.is_set():
                sent.set()
                for pid in working:
                    os.kill(pid, number)

        shared.listener = listen

    return listener


def is_shard(event: Event) -> bool:
    return isinstance(event, UtterancesDone) and not event.resumed


def children() -> list[int]:
    """The worker processes that this process has started."""
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "emtta_core.worker"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def test_process_matches_local_results(bench: Bench, pool: WorkerPool, suite_file: SuiteFile, tmp_path: Path) -> None:
    other = Bench(suite_file(methods=("source", "em-tok"), name="again.toml"), tmp_path / "other")
    process = children()
    for method in ("source", "em-tok"):
        report = pool.do(bench.job(method))
        assert (report.done, report.reused, report.errors) == (UTTERANCES, 0, 0)
        assert pool.do(bench.job(method)).reused == UTTERANCES  # same process, and no work is repeated
    assert children() == process
    assert len(process) == 1
    for method in ("source", "em-tok"):
        OwnProcess([CPU], ignore, never).do(other.job(method))
        assert bench.texts(method) == other.texts(method)
    assert sum(isinstance(event, CellFinished) for event in bench.events) == 4
    assert "clean/em-tok of run tiny-" in bench.log("em-tok")


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGSEGV, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_killed_process_loses_only_shard(
    bench: Bench, pool: WorkerPool, send_signal: Callable[[signal.Signals], None], number: signal.Signals
) -> None:
    send_signal(number)
    with pytest.raises(WorkerLostError, match=f"cpu was ended by {number.name} during its cell") as lost:
        pool.do(bench.job("em-tok"))
    assert is_transient(lost.value)
    kept = bench.texts("em-tok")
    assert 2 <= len(kept) < UTTERANCES
    (row,) = bench.store.cells(bench.key("em-tok"))
    assert (row.attempt, row.state, row.reused, row.device) == (1, "failed", len(kept), "cpu")
    assert number.name in str(row.error)
    report = pool.do(bench.job("em-tok"))
    assert (report.attempt, report.reused, report.done) == (2, len(kept), UTTERANCES - len(kept))
    assert bench.texts("em-tok").items() >= kept.items()
    if number == signal.SIGSEGV:
        assert "Segmentation fault" in bench.log("em-tok")


@pytest.mark.slow
def test_closed_pool_starts_no_process(bench: Bench) -> None:
    others, first = children(), threading.Event()
    pool = WorkerPool([CPU], lambda event: is_shard(event) and first.set(), never)
    with ThreadPoolExecutor(1) as threads:
        with pool:
            cell = threads.submit(pool.do, bench.job("em-tok"))
            assert first.wait(120)
        assert children() == others
        (row,) = bench.store.cells(bench.key("em-tok"))
        assert (row.state, row.reused) == ("interrupted", len(bench.texts("em-tok")))
        assert row.error == "the run was ended during the cell; finished work is kept"
        with pytest.raises(InterruptedRunError, match="during the cell"):
            cell.result()
    with pytest.raises(InterruptedRunError, match="the run has ended"):
        pool.do(bench.job("em-tok"))
    assert children() == others


@pytest.mark.slow
def test_hung_process_is_killed(bench: Bench, pool: WorkerPool, send_signal: Callable[[signal.Signals], None]) -> None:
    send_signal(signal.SIGSTOP)
    with pytest.raises(WorkerLostError, match=r"took longer than 20 s \(runtime.timeout\)"):
        pool.do(bench.job("em-tok", timeout=20))
    assert children() == []
    assert pool.do(bench.job("em-tok", timeout=200)).reused >= 2


def test_invalid_answer_kills_process(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "garbling").mkdir()
    (tmp_path / "garbling" / "sitecustomize.py").write_text('import os\nos.write(1, b\'{"kind": "Gossip"}\\n\')\n')
    device, others = Device("cpu", "cpu", {"PYTHONPATH": str(tmp_path / "garbling")}), children()
    with WorkerPool([device], bench.events.append, never) as pool:
        with pytest.raises(WorkerLostError, match=r"Gossip.*which is not an answer; it was killed"):
            pool.do(bench.job("source"))
        assert children() == others
    (row,) = bench.store.cells(bench.key("source"))
    assert "not an answer" in str(row.error)
    assert bench.store.backend.exists(f"logs/{bench.key('source').folder}/001.log")


def test_process_survives_failure(bench: Bench, pool: WorkerPool) -> None:
    lost = bench.job("source").model_copy(update={"run_id": "other"})
    gone = lost.model_copy(update={"cell": Cell("clean", "clean", "source", "x", "no-audio", "recipe", 3)})
    process = children()
    with pytest.raises(JobFailedError, match="the prepared audio of clean is not in the store"):
        pool.do(gone)
    assert pool.do(bench.job("source")).done == UTTERANCES
    assert children() == process


LOST_DEVICE = """
import torch
from emtta_core.adaptation import paths

def run(*_):
    raise torch.AcceleratorError("CUDA error: device-side assert triggered")

paths.run = run
"""


def test_lost_device_ends_process(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(LOST_DEVICE)
    paths = os.pathsep.join([str(tmp_path / "broken"), os.environ.get("PYTHONPATH", "")])
    others = children()
    with WorkerPool([Device("cpu", "cpu", {"PYTHONPATH": paths})], bench.events.append, never) as pool:
        with pytest.raises(TransientJobError, match="device-side assert"):
            pool.do(bench.job("source"))
        assert children() == others
    (row,) = bench.store.cells(bench.key("source"))
    assert "device-side assert" in str(row.error)


@pytest.mark.parametrize("where", ["process", "here"])
def test_missing_model_fails_attempt(bench: Bench, pool: WorkerPool, where: str) -> None:
    job = bench.job("source").model_copy(update={"model_digest": "0123456789abcdef"})
    if where == "process":
        with pytest.raises(JobFailedError, match="planned with 0123456789abcdef"):
            pool.do(job)
        assert "planned with 0123456789abcdef" in bench.log("source")
    else:
        with pytest.raises(ModelError, match="planned with 0123456789abcdef"):
            OwnProcess([CPU], bench.events.append, never).do(job)
    (row,) = bench.store.cells(bench.key("source"))
    assert (row.attempt, row.state, row.done, row.device) == (1, "failed", 0, "cpu")
    assert "restore the model" in str(row.error)
    assert bench.events[0] == AttemptBegun("clean/source", 1)
    assert [event.error for event in bench.events if isinstance(event, CellFinished)] == [row.error]


@pytest.mark.slow
def test_stop_ends_cell_after_shard(bench: Bench) -> None:
    def stop() -> bool:
        return any(isinstance(event, UtterancesDone) for event in bench.events)

    with (
        WorkerPool([CPU], bench.events.append, stop) as pool,
        pytest.raises(InterruptedRunError, match="asked to stop"),
    ):
        pool.do(bench.job("em-tok", batch_size=1))
    assert 1 <= len(bench.texts("em-tok")) < UTTERANCES


OWNER = """
import sys
from emtta_core.pipeline.job import Job
from emtta_core.pipeline.events import UtterancesDone, never
from emtta_core.worker.devices import Device
from emtta_core.worker.pool import WorkerPool

def tell(event):
    if isinstance(event, UtterancesDone):
        print("shard", flush=True)

with WorkerPool([Device("cpu", "cpu", {"OMP_NUM_THREADS": "1"})], tell, never) as pool:
    print("worker", flush=True)
    pool.do(Job.model_validate_json(sys.stdin.read()))
"""


@pytest.mark.slow
def test_orphan_exits_and_keeps_work(bench: Bench) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    owner.stdin.write(bench.job("em-tok", batch_size=1).model_dump_json())
    owner.stdin.close()
    assert [owner.stdout.readline().strip() for _ in range(2)] == ["worker", "shard"]
    worker = subprocess.run(["pgrep", "-P", str(owner.pid)], capture_output=True, text=True, check=True)
    pid = int(worker.stdout.split()[0])
    owner.kill()
    owner.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "the worker outlives its owner"
        time.sleep(0.1)
    kept = bench.texts("em-tok")
    assert 1 <= len(kept) < UTTERANCES
    with WorkerPool([CPU], bench.events.append, never) as pool:
        assert pool.do(bench.job("em-tok")).reused == len(kept)


@pytest.mark.slow
def test_job_runs_by_hand(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(bench.job("source").model_dump_json())
    command = [sys.executable, "-m", "emtta_core.worker", str(tmp_path / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kinds = [line.split('"')[3] for line in done.stdout.splitlines()]
    assert kinds == ["AttemptBegun", *["UtterancesDone"] * 3, "CellFinished", "CellReport"]
    assert "clean/source of run" in done.stderr
    bare = subprocess.run(command[:-1], capture_output=True, text=True, check=False)
    assert bare.returncode == 1
    assert "usage: python -m emtta_core.worker JOB.json" in bare.stderr


@pytest.mark.parametrize(
    ("wanted", "message"),
    [("cuda:7", "there is no device 'cuda:7'.*auto, cpu"), ("gpu", "'gpu'"), ("cpu,cpu", "'cpu' is named twice")],
)
def test_unknown_device_is_refused(wanted: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_devices(wanted, Runtime())


def test_no_gpu_driver_skips_torch_import() -> None:
    look = "import sys; from emtta_core.worker.devices import _gpus; print(_gpus(), 'torch' in sys.modules)"
    driven = "import emtta_core.worker.devices as devices; devices._DRIVERS = ('no-such-driver',); "
    outcome = subprocess.run([sys.executable, "-c", driven + look], capture_output=True, text=True, check=True)
    assert outcome.stdout.split() == ["[]", "False"]


def test_processes_share_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emtta_core.worker.devices._gpus", lambda: [f"cuda:{index}" for index in range(8)])
    monkeypatch.setattr("emtta_core.worker.devices.cores", lambda: 64)

    def threads(wanted: str, workers: int | None = None) -> list[str]:
        return [device.environment["OMP_NUM_THREADS"] for device in choose_devices(wanted, Runtime(workers=workers))]

    assert threads("cuda:0") == ["64"]
    assert threads("auto") == ["8"] * 8
    assert threads("auto", workers=2) == ["4"] * 16
    assert threads("cpu,cuda:3", workers=2) == ["16"] * 4


def test_gpu_process_sees_only_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emtta_core.worker.devices._DRIVERS", ("null",))  # which exists in every /dev
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first, second = choose_devices("auto", Runtime())
    assert (first.name, first.torch_name, first.environment["CUDA_VISIBLE_DEVICES"]) == ("cuda:0", "cuda:0", "0")
    assert (second.name, second.torch_name, second.environment["CUDA_VISIBLE_DEVICES"]) == ("cuda:1", "cuda:0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-abc")
    (device,) = choose_devices("cuda:1", Runtime())
    assert device.environment["CUDA_VISIBLE_DEVICES"] == "GPU-abc"
    assert len(choose_devices("cuda:0", Runtime(workers=3))) == 3
    assert [device.name for device in choose_devices("cpu", Runtime(workers=2))] == ["cpu", "cpu"]
    with pytest.raises(UsageError, match="one process can only use one device, not cuda:0, cuda:1"):
        OwnProcess((first, second), ignore, never)
