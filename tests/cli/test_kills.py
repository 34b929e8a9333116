"""With killed processes and full disks, no torn file is visible, finished work is kept, and a rerun completes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Command, Speech, SuiteFile, tone

from emtta_core.store import Catalogue, Store

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EMTTA = (sys.executable, "-c", "from flows.cli.main import main; main()")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A separate 2 MB file system."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this system lets nobody mount a disk here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def long_suite(suite_file: SuiteFile, speech: Speech) -> Path:
    """A suite with a slow run: forty more utterances, one per shard, in worker processes."""
    for index in range(40):
        speech.add(f"more{index}", tone(3.5, 150 + 10 * index), "seven small boats")
    path = suite_file(methods=("em-tok-b",))
    text = path.read_text().replace("steps = 1, candidates = 2", "steps = 10, candidates = 4")
    path.write_text(text.replace('isolation = "none"', "workers = 1").replace("batch_size = 2", "batch_size = 1"))
    return path


def start(path: Path, store: Path, server: str, more_than: int = 0) -> subprocess.Popen[str]:
    """Start `emtta run` with this server (or, if empty, its own), and wait for a new shard."""
    process = subprocess.Popen(
        [*EMTTA, "run", str(path), "--run-id", "mine", "--store", str(store)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PREFECT_API_URL": server},
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len(shards(store)) <= more_than:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline, "no shard in two minutes"
        time.sleep(0.02)
    return process


def shards(store: Path) -> list[Path]:
    return list((store / "scores").rglob("*.parquet"))


def children_of(process: subprocess.Popen[str], command: str) -> list[str]:
    found = subprocess.run(["pgrep", "-P", str(process.pid), "-f", command], capture_output=True, text=True)
    return found.stdout.split()


def readable(store: Path) -> bool:
    return all(pq.read_table(path) is not None for path in store.rglob("*.parquet"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 3), (signal.SIGTERM, 143)])
def test_first_signal_finishes_shard(
    emtta: Command, long_suite: Path, tmp_path: Path, prefect_server: str, number: signal.Signals, code: int
) -> None:
    store = tmp_path / "store"
    process = start(long_suite, store, prefect_server)
    process.send_signal(number)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == code
    assert f"finish them with: emtta rerun mine --store {store}" in messages
    kept = {path: path.stat().st_mtime_ns for path in shards(store)}
    assert 1 <= len(kept) < 43
    assert readable(store)
    assert (
        f"it would reuse {len(kept)} finished utterances" in emtta("rerun", "mine", "--store", store, "--dry-run").err
    )
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_second_ctrl_c_leaves_no_process(long_suite: Path, tmp_path: Path, prefect_server: str) -> None:
    store = tmp_path / "store"
    process = start(long_suite, store, prefect_server)
    workers = children_of(process, "emtta_core.worker")
    assert workers
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode in (3, 130)  # the shard may finish between the two signals
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert readable(store)


@pytest.mark.parametrize("order", ["corpus", "mixed"])
def test_killed_stream_resumes_identically(
    emtta: Command, long_suite: Path, tmp_path: Path, prefect_server: str, order: str
) -> None:
    """Kills the run several times, each time at a different moment."""
    domain = long_suite.read_text().partition("[[domains]]")[2]
    again = "[[domains]]" + domain.replace('"clean"', '"again"')
    text = long_suite.read_text().replace("[[domains]]", f'[stream]\norder = "{order}"\n[[domains]]') + again
    long_suite.write_text(text.replace("steps = 10", "steps = 2"))
    assert emtta("run", long_suite, "--run-id", "mine", "--store", tmp_path / "whole").code == 0
    store = tmp_path / "store"
    for turn in range(3):
        before = len(shards(store))
        process = start(long_suite, store, prefect_server, more_than=before)
        time.sleep(0.3 * turn)
        workers = children_of(process, "emtta_core.worker")
        for pid in (*map(int, workers), process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        if process.stderr:
            process.stderr.close()
    assert emtta("rerun", "mine", "--store", store).code == 0
    columns = "domain, utterance_id, position, hypothesis, source_hypothesis, entropy_before, entropy_after, errors"
    made = []
    for location in (tmp_path / "whole", store):
        with Catalogue(Store.open(location)) as catalogue:
            made.append(catalogue.query(f"SELECT {columns} FROM utterances ORDER BY domain, position").rows)
            losses = "SELECT domain, utterance_id, step, loss, gradient_norm FROM steps ORDER BY ALL"
            made.append(catalogue.query(losses).rows)
    assert len(made[0]) == 86
    assert made[:2] == made[2:]


def test_lost_server_loses_no_cell(emtta: Command, long_suite: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    long_suite.write_text(long_suite.read_text().replace("steps = 10", "steps = 1"))
    process = start(long_suite, store, "")
    (server,) = children_of(process, "flows.prefect_server")
    os.kill(int(server), signal.SIGKILL)
    _, messages = process.communicate(timeout=420)
    assert process.returncode == 0
    assert "Prefect's server no longer answers" in messages
    assert "ERROR" not in messages
    assert "Traceback" not in messages
    with Catalogue(Store.open(store)) as catalogue:
        assert catalogue.query("SELECT sum(done), count(*) FROM cells").rows == [(43, 1)]
        assert catalogue.query("SELECT * FROM statistics").rows


def test_full_disk_fails_until_freed(
    emtta: Command, suite_file: SuiteFile, speech: Speech, small_disk: Path, prefect_server: str
) -> None:
    path, store = suite_file(), small_disk / "store"
    assert emtta("run", path, "--run-id", "mine", "--store", store, "--only", "method=source").code == 0
    before = emtta("report", "domains", "--run", "mine", "--store", store, "--format", "csv").out
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        free = os.statvfs(small_disk)
        file.write(b"x" * (free.f_bavail * free.f_frsize - 8192))
    outcome = emtta("run", path, "--run-id", "mine", "--store", store)
    assert outcome.code in (1, 3)
    assert "No space left on device" in outcome.err
    assert "Traceback" not in outcome.err
    ballast.unlink()
    assert readable(store)
    assert emtta("report", "domains", "--run", "mine", "--store", store, "--format", "csv").out == before
    assert emtta("rerun", "mine", "--store", store).code == 0


def test_read_only_store_is_queryable(
    emtta: Command, suite_file: SuiteFile, speech: Speech, small_disk: Path, prefect_server: str
) -> None:
    path, store = suite_file(), small_disk / "store"
    assert emtta("run", path, "--run-id", "mine", "--store", store, "--only", "method=source").code == 0
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    outcome = emtta("run", path, "--run-id", "mine", "--store", store)
    assert outcome.code == 1
    assert "Read-only file system" in outcome.err
    assert "choose a writable store" in outcome.err
    assert emtta("status", "mine", "--store", store).code == 3
    assert "source" in emtta("report", "domains", "--run", "mine", "--store", store, "--format", "csv").out


def test_random_faults_lose_nothing(tmp_path: Path) -> None:
    out = tmp_path / "chaos.json"
    few = ("--kills", "3", "--errors", "3", "--out", out)
    subprocess.run([sys.executable, ROOT / "benchmarks" / "chaos.py", *few], check=True)
    found = json.loads(out.read_text())
    for result in (found["kills"], found["errors"]):
        assert (result["survived"], result["rows_lost"], result["files_torn"]) == (3, 0, 0)
    assert found["kills"]["strikes"] >= 2


def test_one_of_five_hosts_works(long_suite: Path, tmp_path: Path, prefect_server: str) -> None:
    # Each host has its own process numbers, so none can check whether another's lease holder is alive.
    host = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*host, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives nobody namespaces of their own")
    store = tmp_path / "store"
    command = [*host, *EMTTA, "run", str(long_suite), "--run-id", "mine", "--store", str(store)]
    environment = os.environ | {"PREFECT_API_URL": prefect_server}
    hosts = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(5)
    ]
    ended = [(process.communicate(timeout=300)[1], process.returncode) for process in hosts]
    assert sorted(code for _, code in ended)[0] == 0
    refused = [message for message, code in ended if code]
    assert all("is being worked on by" in message for message in refused), refused
    with Catalogue(Store.open(store)) as catalogue:
        counted = catalogue.query("SELECT count(*), count(DISTINCT utterance_id) FROM utterances WHERE error IS NULL")
        attempts = catalogue.query("SELECT count(*) FROM attempts")
    planned = sum(row.utterances for row in Store.open(store).plan("mine"))
    assert counted.rows == [(planned, planned)]
    assert attempts.rows == [(1,)]
    assert subprocess.run([*EMTTA, "check", "--store", str(store)], capture_output=True, check=False).returncode == 0
