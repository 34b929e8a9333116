"""A suite finds its run again, and a run id is never reused for another plan."""

import errno
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLEAN, Speech, SuiteFile

from emtta_core.errors import StoreError, UsageError
from emtta_core.pipeline.reuse import expected
from emtta_core.pipeline.run import Run, find_started, load_run, plan_night, plan_run, record, versions
from emtta_core.pipeline.state import run_status
from emtta_core.store import Store
from emtta_core.store.lease import STALE, Holder, lease
from emtta_core.store.parquet import parquet
from emtta_core.store.schema import VERSION_KEY
from emtta_core.suite import load_suite

DIGEST = "0123456789abcdef"


def planned(path: Path, run_id: str | None = None, digest: str = DIGEST) -> Run:
    return plan_run(load_suite(str(path)), digest, run_id)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


def test_same_suite_finds_its_run(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    first = planned(suite_file())
    record(first, store)
    record(planned(suite_file()), store)
    assert list(store.runs()) == [first.run_id]
    assert first.run_id.startswith("tiny-")


def test_record_reads_back_equal(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    run = planned(suite_file())
    record(run, store)
    assert load_run(store, run.run_id) == run


def test_planning_writes_nothing(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    states = expected(planned(suite_file()), store).states
    assert [(state.cell.method, state.state, state.missing) for state in states] == [
        ("source", "missing", 3),
        ("em-tok-b", "missing", 3),
    ]
    assert not store.runs()


def test_other_plan_shows_differences(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    record(planned(suite_file(), "mine"), store)
    noisy = CLEAN + 'corruption = { name = "noise", kind = "typing", snr_db = 3 }\n'
    with pytest.raises(UsageError) as refusal:
        record(planned(suite_file(noisy, ("source",)), "mine"), store)
    message = str(refusal.value)
    assert "'mine' exists with a different plan" in message
    assert "methods: ['source', 'em-tok-b'] there, ['source'] here" in message
    assert "domains.clean.corruption: None there" in message
    assert "--run-id" in message


def test_stream_in_another_order_is_refused(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    path = suite_file(methods=("em-tok-b",))
    text = path.read_text()
    path.write_text(f'stream = {{ reset = "never", order = "corpus" }}\n{text}')
    record(planned(path, "mine"), store)
    path.write_text(f'stream = {{ reset = "never", order = "shuffled" }}\n{text}')
    with pytest.raises(UsageError, match=r"(?s)stream\.order: 'corpus' there, 'shuffled' here.*another --run-id"):
        record(planned(path, "mine"), store)


def test_other_weights_are_refused(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    record(planned(suite_file(), "mine"), store)
    with pytest.raises(UsageError, match=f"the model's weights: {DIGEST} there, fedc here"):
        record(planned(suite_file(), "mine", "fedc"), store)


def test_changed_speech_is_refused(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    record(planned(suite_file(), "mine"), store)
    (speech.path / "good0.wav").write_bytes(b"something else")
    with pytest.raises(UsageError, match="the content of a corpus"):
        record(planned(suite_file(), "mine"), store)


def test_changed_scoring_is_recorded(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    record(planned(suite_file(), "mine"), store)
    path = suite_file()
    path.write_text('scorers = ["jiwer", "whisper"]\nerrors = "delete"\n' + path.read_text())
    record(planned(path, "mine"), store)
    row = store.run("mine")
    assert row.scorers == ("jiwer", "whisper")
    assert {(cell.scorer, cell.counts_errors) for cell in store.plan("mine")} == {("jiwer", True)}
    assert load_run(store, "mine").suite.scorers == ("jiwer", "whisper")


def test_packages_and_cpu_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = versions()["processor"]
    assert usual.startswith(platform.machine())
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert versions()["processor"] == f"{usual} as avx2"
    assert {"python", "torch", "transformers", "soxr", "soundfile", "whisper-normalizer", "jiwer"} <= versions().keys()


def test_baseline_cpu_is_recorded() -> None:
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    program = "from emtta_core.pipeline.run import versions; print(versions()['processor'])"
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(found)}
    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert printed.stdout.startswith(platform.machine())
    assert not any(extension in printed.stdout.split() for extension in found)


def test_changed_runtime_keeps_id(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    record(planned(suite_file(), "mine"), store)
    path = suite_file()
    path.write_text(path.read_text().replace("batch_size = 2", "batch_size = 7"))
    record(planned(path, "mine"), store)


def test_status_counts_existing_work(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    run = planned(suite_file(), "mine")
    record(run, store)
    status = run_status(store, "mine").as_dict()
    assert (status["state"], status["cells"]["planned"], status["cells"]["missing"]) == ("incomplete", 2, 2)
    assert status["utterances"] == {"planned": 6, "done": 0, "in_error": 0, "reused": 0}


def test_status_names_only_live_worker(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    record(planned(suite_file(), "mine"), store)
    with lease(store, "mine"):
        status = run_status(store, "mine")
        assert status.as_dict()["holder"]["process"] == os.getpid()
        assert f"active process: {os.getpid()} on {platform.node()} since 2" in status.as_text()
    died = replace(Holder.this_process(), host="elsewhere", boot="another")
    path = Path(store.location) / "leases" / "mine" / "000003.json"
    path.write_text(json.dumps(asdict(died)))
    assert run_status(store, "mine").holder == died  # nothing shows that it is dead
    os.utime(path, (path.stat().st_mtime - STALE - 1,) * 2)
    status = run_status(store, "mine")
    assert (status.as_dict()["holder"], status.as_dict()["state"]) == (None, "incomplete")
    assert f"active process: none; finish the run with: emtta rerun mine --store {store.location}\n" in status.as_text()


def test_unknown_id_lists_existing(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    record(planned(suite_file(), "mine"), store)
    for ask in (load_run, run_status):
        with pytest.raises(UsageError, match="unknown run 'yours'; choose from: mine"):
            ask(store, "yours")


def test_id_escaping_store_is_refused(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    with pytest.raises(UsageError, match="run id"):
        record(planned(suite_file(), "../mine"), store)


def test_id_race_records_one_suite(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    runs = [planned(suite_file(), "mine"), planned(suite_file(methods=("source",), name="other.toml"), "mine")]
    for number in range(20):
        store = Store.open(tmp_path / f"store-{number}", create=True)
        begin = Barrier(2)

        def attempt(run: Run, store: Store = store, begin: Barrier = begin) -> bool:
            begin.wait()
            try:
                record(run, store)
            except (StoreError, UsageError):
                return False
            return True

        with ThreadPoolExecutor(2) as threads:
            recorded = list(threads.map(attempt, runs))
        assert recorded.count(True) == 1
        assert load_run(store, "mine").plan.cells == runs[recorded.index(True)].cells


@pytest.mark.parametrize("lost", ["Input/output error", "version 999"])
@pytest.mark.parametrize("nightly", [True, False])
def test_unreadable_record_is_kept(
    lost: str, nightly: bool, suite_file: SuiteFile, speech: Speech, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = load_suite(str(suite_file()))
    run = plan_night(suite, DIGEST, store, "2026-11-23") if nightly else planned(suite_file())
    record(run, store)
    name, read = f"runs/run_id={run.run_id}/run.parquet", store.backend.read
    if lost == "version 999":
        found = pq.read_table(pa.BufferReader(read(name)))
        newer = found.replace_schema_metadata({**found.schema.metadata, VERSION_KEY: b"999"})
        store.backend.write(name, parquet(newer))
    else:

        def read_or_fail(asked: str) -> bytes:
            if asked == name:
                raise OSError(errno.EIO, lost)
            return read(asked)

        monkeypatch.setattr(store.backend, "read", read_or_fail)
    before = {path: path.read_bytes() for path in Path(store.location).rglob("*.parquet")}
    for begin in (record, expected):
        with pytest.raises(StoreError, match=rf"cannot read .*run\.parquet: .*{lost}.*Nothing was changed"):
            begin(run, store)
    if nightly:
        with pytest.raises(StoreError, match=r"cannot read .*run\.parquet"):
            plan_night(suite, DIGEST, store, "2026-11-23")
    assert {path: path.read_bytes() for path in Path(store.location).rglob("*.parquet")} == before


def test_unreadable_suite_blocks_no_other(suite_file: SuiteFile, speech: Speech, store: Store) -> None:
    run, other = planned(suite_file()), planned(suite_file(), "other")
    record(other, store)
    store.write_run("other", replace(store.run("other"), suite_toml="nonsense = ["))
    assert expected(run, store).reusable == {}
    other = planned(suite_file(), f"{run.suite.name}-0123abcd")
    record(other, store)
    store.backend.write(f"plans/run_id={other.run_id}/plan.parquet", b"PAR1")
    assert find_started(run, store) is run
