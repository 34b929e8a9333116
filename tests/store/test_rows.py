"""Rows read back as they were written, and every file documents its content."""

import dataclasses
import io
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from store_factory import begin_run

from emtta_core.errors import StoreError, UsageError
from emtta_core.store import AudioBytes, CellKey, PreparedRow, Store
from emtta_core.store.backend import open_backend
from emtta_core.store.parquet import read_rows, write_rows
from emtta_core.store.schema import SCHEMA_VERSION
from emtta_core.store.tables import TABLES, Table, documented

BAD_RUN = "runs/run_id=bad/run.parquet"


def sample(kind: Any) -> Any:
    """A value of the type `kind`."""
    if isinstance(kind, UnionType):
        kind = get_args(kind)[0]
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return (sample(item), None, sample(item)) if isinstance(item, UnionType) else (sample(item),)
    if dataclasses.is_dataclass(kind):
        return kind(**{name: sample(inner) for name, inner, _ in documented(kind)})
    return {
        str: "Grüße, 'x'",
        bytes: b"\x00\xff",
        bool: True,
        int: 2**40,
        float: 0.1,
        datetime: datetime(2026, 1, 2, tzinfo=UTC),
    }[kind]


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_values_roundtrip(table: Table, location: str) -> None:
    full = table.row(**{name: sample(kind) for name, kind, _ in documented(table.row)})
    sparse = dataclasses.replace(
        full, **{name: None for name, kind, _ in documented(table.row) if isinstance(kind, UnionType)}
    )
    backend = open_backend(location)
    for name, row in (("full.parquet", full), ("sparse.parquet", sparse)):
        write_rows(backend, name, [row], table.schema)
        assert read_rows(backend, name, table.row) == [row]


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_file_documents_columns(table: Table, location: str) -> None:
    backend = open_backend(location)
    write_rows(backend, "rows.parquet", [], table.schema)
    schema = pq.read_schema(pa.BufferReader(backend.read("rows.parquet")))
    assert schema.metadata[b"emtta.schema_version"] == str(SCHEMA_VERSION).encode()
    assert schema.metadata[b"emtta.table"] == table.name.encode()
    assert all(field.metadata[b"doc"] for field in schema)


def test_other_version_file_is_rejected(location: str) -> None:
    schema = TABLES["plans"].schema.with_metadata({b"emtta.schema_version": b"999"})
    store = Store.open(location, create=True)
    write_rows(store.backend, "plans/run_id=old/plan.parquet", [], schema)
    with pytest.raises(StoreError, match="version 999"):
        store.plan("old")
    assert store.backend.exists("plans/run_id=old/plan.parquet")


def test_runs_list_newest_first(location: str) -> None:
    store = Store.open(location, create=True)
    assert store.runs() == {}
    for day, run_id in enumerate(["b-first", "a-second"], 1):
        begin_run(store, run_id, [("noise", "babble", "source")], created_at=datetime(2026, 1, day, tzinfo=UTC))
    assert list(store.runs()) == ["a-second", "b-first"]
    assert store.run("b-first").suite == "test"
    for ask in (store.run, store.plan):
        with pytest.raises(UsageError, match=r"unknown run 'c'; choose from: a-second, b-first"):
            ask("c")


def test_plan_keeps_order(location: str) -> None:
    store = Store.open(location, create=True)
    cells = [("noise", "vacuum", "source"), ("accent", "arabic", "source"), ("noise", "babble", "source")]
    begin_run(store, "run", cells)
    assert [(row.group, row.domain, row.method) for row in store.plan("run")] == cells
    assert [row.position for row in store.plan("run")] == [0, 1, 2]


def test_broken_run_hides_no_other(location: str) -> None:
    store = Store.open(location, create=True)
    for run_id in ("good", "bad"):
        begin_run(store, run_id, [("noise", "babble", "source")])
    store.backend.write(BAD_RUN, store.backend.read(BAD_RUN)[:-20])
    assert list(store.runs()) == ["good"]
    with pytest.raises(StoreError, match=r"cannot read .*run\.parquet.*run the suite again"):
        store.run("bad")
    begin_run(store, "bad", [("noise", "babble", "source")])
    assert set(store.runs()) == {"good", "bad"}


@pytest.mark.parametrize("broken", ["cut", "gone"])
def test_suggested_fix_repairs_plan(broken: str, location: str) -> None:
    store = Store.open(location, create=True)
    begin_run(store, "run", [("noise", "babble", "source")])
    plan = "plans/run_id=run/plan.parquet"
    if broken == "cut":
        store.backend.write(plan, store.backend.read(plan)[:-20])
    else:
        store.backend.remove([plan])
    with pytest.raises(StoreError, match=r"cannot read .*plan\.parquet: .* delete (.*run\.parquet) and run") as refusal:
        store.plan("run")
    record = str(refusal.value).split(", delete ")[1].split(" and run ")[0]
    store.backend.remove([record.removeprefix(f"{store.location}/")])
    assert store.runs() == {}, "so that the next `emtta run` plans it again"
    begin_run(store, "run", [("noise", "babble", "source")])
    assert len(store.plan("run")) == 1


def prepared_row(utterance_id: str) -> PreparedRow:
    flac = io.BytesIO()
    soundfile.write(flac, np.full(160, 0.25, dtype=np.float32), 16_000, format="FLAC")
    return PreparedRow(
        utterance_id=utterance_id,
        audio=AudioBytes(bytes=flac.getvalue(), path=f"{utterance_id}.flac"),
        text="hello",
        language="en",
        speaker="s",
        seconds=0.01,
        corruption="babble",
        snr_db=5.0,
    )


def test_truncated_shard_invalidates_corpus(location: str) -> None:
    store = Store.open(location, create=True)
    broken = dataclasses.replace(prepared_row("c"), audio=None, seconds=0.0, error="it is silent")
    store.write_prepared("abc", 0, [prepared_row("a"), prepared_row("b")])
    assert store.prepared("abc") is None
    with pytest.raises(StoreError, match="missing or broken"):
        store.finish_prepared("abc", shards=2, utterances=3)
    assert store.prepared("abc") is None
    store.write_prepared("abc", 1, [broken])
    corpus = store.finish_prepared("abc", shards=2, utterances=3)
    assert store.prepared("abc") == corpus
    assert list(store.read_prepared(corpus)) == [prepared_row("a"), prepared_row("b"), broken]

    store.backend.write(corpus.shards[1], store.backend.read(corpus.shards[1])[:100])
    assert store.prepared("abc") is None
    with pytest.raises(StoreError, match="cannot read"):
        list(store.read_prepared(corpus))


def test_datasets_reads_prepared_audio(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    store = Store.open(tmp_path / "store", create=True)
    store.write_prepared("abc", 0, [prepared_row("a"), dataclasses.replace(prepared_row("b"), audio=None, error="x")])
    (path,) = store.finish_prepared("abc", shards=1, utterances=2).shards
    file = store.backend.url(path)
    corpus = datasets.load_dataset("parquet", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
    assert corpus.features["audio"] == datasets.Audio(sampling_rate=16_000)
    undecoded = corpus.cast_column("audio", datasets.Audio(decode=False))
    samples, rate = soundfile.read(io.BytesIO(undecoded[0]["audio"]["bytes"]))
    assert (rate, samples.shape) == (16_000, (160,))
    assert undecoded[0]["text"] == "hello"
    assert undecoded[1]["audio"] is None


def test_attempt_number_follows_any_file(location: str) -> None:
    store = Store.open(location, create=True)
    key = CellKey("run", "babble", "em-tok")
    assert store.begin_attempt(key) == 1
    assert store.begin_attempt(key) == 2, "the first is on its way, or was killed before it wrote anything"
    store.write_scores(key, 12, 3, [])
    assert store.begin_attempt(key) == 13
    assert store.begin_attempt(CellKey("run", "babble", "em-tok-b")) == 1


def test_simultaneous_attempts_differ(usual_location: str) -> None:
    each = 20 if usual_location.startswith("s3://") else 200
    script = """
import sys
from emtta_core.store import CellKey, Store
store, key = Store.open(sys.argv[1], create=True), CellKey("run", "babble", "em-tok")
print("ready", flush=True)
sys.stdin.readline()
print(*(store.begin_attempt(key) for _ in range(int(sys.argv[2]))))
"""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", script, usual_location, str(each)]
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    numbers = [int(number) for process in processes for number in process.communicate()[0].split()]
    assert sorted(numbers) == list(range(1, 3 * each + 1))
