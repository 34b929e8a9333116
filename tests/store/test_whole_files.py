"""A file of the store exists completely or not at all, whatever happens to its writer."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from store_factory import begin_run, with_errors, write_shard

from emtta_core.errors import StoreError, UsageError
from emtta_core.store import CellKey, StepRow, Store
from emtta_core.store.backend import open_backend
from emtta_core.store.parquet import read_rows

KEY = CellKey("run", "babble", "em-tok")

WRITER = """
    import sys
    from emtta_core.store import CellKey, StepRow, Store

    store, key = Store.open(sys.argv[1], create=True), CellKey("run", "babble", "em-tok")
    rows = [
        StepRow(cell_id="c", attempt=1, utterance_id=f"u{i}", step=i, hypothesis=f"{i * 7919}", entropy=i / 7, tokens=i)
        for i in range(int(sys.argv[2]))
    ]
    print("ready", flush=True)
"""


def start(store: "str | Path", rows: int, then: str) -> "subprocess.Popen[str]":
    """Start a process that opens the store, makes `rows` rows, prints that it is ready, and executes `then`."""
    script = textwrap.dedent(WRITER) + textwrap.dedent(then)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(store), str(rows)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


KILLED_WHILE_WRITING = """
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the system kills the process at its 4097th byte
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    store.write_steps(key, 1, 0, rows)
"""

KILLED_BEFORE_RENAME = """
    import os, signal
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
    store.write_steps(key, 1, 0, rows)
"""


@pytest.mark.parametrize(
    ("then", "killed_by"), [(KILLED_WHILE_WRITING, signal.SIGXFSZ), (KILLED_BEFORE_RENAME, signal.SIGKILL)]
)
def test_killed_writer_leaves_no_partial_file(then: str, killed_by: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path, 20_000, then)
    process.communicate()

    assert process.returncode == -killed_by
    assert list(tmp_path.rglob("*.parquet")) == []
    (left,) = tmp_path.rglob("*.tmp")
    store = Store.open(tmp_path, create=True)
    assert left.exists(), "a young file may have a live writer"
    os.utime(left, (0, 0))
    assert store.begin_attempt(KEY) == 1
    Store.open(tmp_path, create=True)
    assert not left.exists()


def test_random_kill_leaves_whole_shards(usual_location: str) -> None:
    store, folder = Store.open(usual_location, create=True), f"steps/{KEY.folder}"
    for attempt in (1, 2):
        then = f"[store.write_steps(key, {attempt}, shard, rows) for shard in range(100_000)]"
        process = start(usual_location, 40, then)
        while not store.backend.exists(f"{folder}/{attempt:03d}-00002.parquet"):
            assert process.poll() is None, "the writer ended before it could be killed"
            time.sleep(0.005)
        time.sleep(0.007 * attempt)
        process.kill()
        process.wait()
    files = [entry.name for entry in store.backend.list("steps")]
    assert len(files) >= 6
    assert all(len(read_rows(store.backend, name, StepRow)) == 40 for name in files)


def test_cleanup_spares_foreign_files(tmp_path: Path) -> None:
    others = [tmp_path / name for name in (".mine.tmp", ".mine.0123456789ab", "notes.0123456789ab.tmp", ".a.b.tmp")]
    for path in others:
        path.write_text("a user's file")
        os.utime(path, (0, 0))
    Store.open(tmp_path, create=True)
    assert all(path.exists() for path in others)


def test_shard_race_has_one_winner(usual_location: str) -> None:
    then = "sys.stdin.readline(); store.write_steps(key, 1, 0, rows)"
    script = textwrap.dedent(WRITER) + then
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, usual_location, str(rows)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rows in (3, 4)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    messages = [writer.communicate()[1] for writer in writers]
    codes = [writer.returncode for writer in writers]
    assert sorted(codes) == [0, 1]
    assert "already exists" in messages[codes.index(1)]
    backend = open_backend(usual_location)
    (file,) = backend.list("steps")
    assert len(read_rows(backend, file.name, StepRow)) == (3, 4)[codes.index(0)]
    assert not list(Path(usual_location).rglob("*.tmp"))


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    then = """
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    store.write_steps(key, 1, 0, rows)
    """
    process = start(tmp_path, 20_000, then)
    _, message = process.communicate()
    assert process.returncode == 1
    assert "StoreError: cannot write" in message
    assert "File too large" in message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_attempt_rows_are_final(location: str) -> None:
    store = Store.open(location, create=True)
    write_shard(store, KEY, {"a": [with_errors(1)]})
    with pytest.raises(StoreError, match="rows of an attempt are final"):
        write_shard(store, KEY, {"a": [with_errors(0)]})


def test_unusable_store_gives_reason(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(StoreError, match="Not a directory"):
        Store.open(file / "store", create=True)
    with pytest.raises(StoreError, match=r"File exists|is a file"):
        Store.open(file, create=True)
    with pytest.raises(StoreError, match="is a file, not a store"):
        Store.open(file)
    with pytest.raises(StoreError, match="there is no store at"):
        Store.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()

    with pytest.raises(StoreError, match=r"'run_id=old', which Parquet readers take for a column"):
        Store.open(tmp_path / "run_id=old" / "store", create=True)
    assert not (tmp_path / "run_id=old").exists()
    with pytest.raises(StoreError, match="contains a backslash"):
        Store.open(tmp_path / "back\\slash" / "store", create=True)
    assert not (tmp_path / "back\\slash").exists()

    store = Store.open(tmp_path / "store", create=True)
    (tmp_path / "store" / "plans").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write"):
        begin_run(store, "run", [("noise", "babble", "source")])


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-x", ".hidden", "a b", "ü", "a=b", "null", "NULL"])
def test_invalid_name_is_refused(name: str, location: str) -> None:
    with pytest.raises(UsageError, match="is an invalid name"):
        CellKey(name, "domain", "method")
    with pytest.raises(UsageError, match="is an invalid name"):
        CellKey("run", name, "method")
    store = Store.open(location, create=True)
    with pytest.raises(UsageError, match="is an invalid name"):
        store.run(name)
    with pytest.raises(UsageError, match="is an invalid name"):
        store.prepared(name)
