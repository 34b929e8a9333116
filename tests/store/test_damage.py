"""A malformed file is reported and affects nothing else; an unreadable file is never treated as missing.

The file is long because each kind of damage is defined once, and every reader of the store is tested with all of them.
"""

import errno
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Command
from store_factory import begin_run, end_attempt, one_run, with_errors, write_shard

from emtta_core.errors import EmttaError, StoreError
from emtta_core.faults import is_transient
from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.store import AudioBytes, Catalogue, CellKey, LinkRow, PreparedRow, Store
from emtta_core.store.backend import Entry, Folder
from emtta_core.store.compaction import compact
from emtta_core.store.integrity import Check, check_store
from emtta_core.store.lease import holder
from emtta_core.store.parquet import parquet
from emtta_core.store.pruning import Keep, plan_pruning, prune
from emtta_core.store.schema import VERSION_KEY
from emtta_core.store.tables import TABLES

SLOW = pytest.mark.slow
BAD = CellKey("bad", "babble", "source")
SHARD = "run_id=bad/domain=babble/method=source/seed=none/001-00000.parquet"
RECORD, PLAN = "runs/run_id=bad/run.parquet", "plans/run_id=bad/plan.parquet"


def prepare(store: Store, corpus_id: str, count: int = 1) -> None:
    """Write a prepared corpus with `count` shards of one utterance each."""
    for shard in range(count):
        audio = AudioBytes(bytes=b"fLaC", path="a.flac")
        row = PreparedRow(utterance_id=f"u{shard}", audio=audio, text="a", language="en", speaker="s", seconds=1.0,
                          corruption=None, snr_db=None)  # fmt: skip
        store.write_prepared(corpus_id, shard, [row])
    store.finish_prepared(corpus_id, shards=count, utterances=count)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A complete run `good`, a complete run `bad` that reuses one of its results, and their audio."""
    store = Store.open(tmp_path / "store", create=True)
    one_run(store, "good")
    one_run(store, "bad")
    link = LinkRow(domain="babble", method="source", cell_id="babble.source", utterance_id="a", source_domain="babble",
                   source_method="source", source_cell_id="babble.source", source_attempt=1)  # fmt: skip
    store.write_links("bad", "good", [link])
    prepare(store, "corpus-babble")
    return store


def table(store: Store, name: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(store.backend.read(name)))


def without_null_check(found: pa.Table, column: str, values: pa.Array) -> pa.Table:
    """Replace a column, whatever the new type, and keep the table's metadata."""
    return found.set_column(found.schema.get_field_index(column), column, values).replace_schema_metadata(
        found.schema.metadata
    )


Damage = Callable[[Store, str], str]
"""Damages a file of a run, or adds a malformed one, and returns its name."""


def of(name: str, run: str) -> str:
    """The name, in another run, of a file of the run `bad`."""
    return name.replace("run_id=bad", f"run_id={run}")


def bytes_changed(name: str, change: Callable[[bytes], bytes]) -> Damage:
    def make(store: Store, run: str) -> str:
        store.backend.write(of(name, run), change(store.backend.read(of(name, run))))
        return of(name, run)

    return make


def changed(name: str, change: Callable[[pa.Table], pa.Table]) -> Damage:
    return bytes_changed(name, lambda content: parquet(change(pq.read_table(pa.BufferReader(content)))))


def moved(name: str, to: str) -> Damage:
    def make(store: Store, run: str) -> str:
        store.backend.write(of(to, run), store.backend.read(of(name, run)))
        return of(to, run)

    return make


def replaced(name: str, make: Callable[[Path], None]) -> Damage:
    def place(store: Store, run: str) -> str:
        path = Path(store.backend.url(of(name, run)))
        path.unlink()
        make(path)
        return of(name, run)

    return place


def swapped(of_type: pa.DataType, column: str) -> Callable[[pa.Table], pa.Table]:
    return lambda found: without_null_check(found, column, pa.array(["?"] * found.num_rows).cast(of_type))


def null(column: str) -> Callable[[pa.Table], pa.Table]:
    return lambda found: without_null_check(found, column, pa.nulls(found.num_rows, found.schema.field(column).type))


def newer(found: pa.Table) -> pa.Table:
    return found.replace_schema_metadata({**found.schema.metadata, VERSION_KEY: b"999"})


MALFORMED: dict[str, Damage] = {
    "a record without a row": changed(RECORD, lambda found: found.slice(0, 0)),
    "a record with two rows": changed(RECORD, lambda found: pa.concat_tables([found, found])),
    "a plan without a row": changed(PLAN, lambda found: found.slice(0, 0)),
    "a null time": changed(RECORD, null("created_at")),
    "a null suite": changed(RECORD, null("suite")),
    "null references": changed(f"hypotheses/{SHARD}", null("reference")),
    "text for a time": changed(RECORD, swapped(pa.string(), "created_at")),
    "text for a number": changed(f"scores/{SHARD}", swapped(pa.string(), "words")),
    "bytes for text": changed(f"hypotheses/{SHARD}", swapped(pa.binary(), "reference")),
    "text for the planned number": changed(PLAN, swapped(pa.string(), "utterances")),
    "text for a list": changed(f"hypotheses/{SHARD}", swapped(pa.string(), "flags")),
    "a column too few": changed(f"scores/{SHARD}", lambda found: found.drop_columns(["words"])),
    "a record without its time": changed(RECORD, lambda found: found.drop_columns(["created_at"])),
    "a column too many": changed(PLAN, lambda found: found.append_column("more", pa.array(["x"] * found.num_rows))),
    "a column of the path": changed(PLAN, lambda found: found.append_column("run_id", pa.array(["good"]))),
    "no column at all": bytes_changed(RECORD, lambda _: parquet(pa.table({}))),
    "another table's rows": bytes_changed(RECORD, lambda _: parquet(TABLES["plans"].schema.empty_table())),
    "a newer release's record": changed(RECORD, newer),
    "a newer release's scores": changed(f"scores/{SHARD}", newer),
    "a second = in a run's folder": moved(RECORD, "runs/run_id=a=b/run.parquet"),
    "a second = in a domain's folder": moved(f"scores/{SHARD}", f"scores/{SHARD.replace('babble', 'a=b')}"),
    "another key in the path": moved(RECORD, "runs/run=bad/run.parquet"),
    "no key in the path": moved(RECORD, "runs/bad/run.parquet"),
    "a level too few": moved(RECORD, "runs/run.parquet"),
    "a level too many": moved(f"scores/{SHARD}", f"scores/more=1/{SHARD}"),
    "a key twice": moved(RECORD, "runs/run_id=bad/run_id=good/run.parquet"),
    "a name that is NULL": moved(RECORD, "runs/run_id=NULL/run.parquet"),
    "a folder named like a file": moved(RECORD, "runs/run_id=other/run.parquet/x.parquet"),
    "a name without a number": moved(f"scores/{SHARD}", f"scores/{SHARD.replace('001-', 'copy-')}"),
    "a name that is no text": moved(RECORD, os.fsdecode(b"runs/run_id=b\xffd/run.parquet")),
    "a shard of audio misplaced": moved("prepared/corpus-babble/part-00000.parquet", "prepared/part-00000.parquet"),
    "audio without its time": changed(
        "prepared/corpus-babble/part-00000.parquet", lambda found: found.drop_columns(["seconds"])
    ),
    "a link that is text": changed(
        "links/run_id=bad/source_run=good/00000.parquet", swapped(pa.string(), "source_attempt")
    ),
    "a pack of another kind": moved(f"scores/{SHARD}", "packs/utterances/run_id=bad/001.parquet"),
    "an empty file": bytes_changed(RECORD, lambda _: b""),
    "no Parquet at all": bytes_changed(RECORD, lambda _: b"run_id,suite\n" * 1000),
    "cut short": bytes_changed(PLAN, lambda content: content[:-30]),
    "a footer that claims too much": bytes_changed(PLAN, lambda content: content[:-8] + b"\xff\xff\xff\x7fPAR1"),
    "a pipe": replaced(RECORD, os.mkfifo),
    "a pipe for a shard": replaced(f"scores/{SHARD}", os.mkfifo),
    "a device": replaced(PLAN, lambda path: path.symlink_to("/dev/zero")),
}  # fmt: skip


def traces(name: str) -> tuple[str, str]:
    """What every message about a file contains: its folder, and the end of its name."""
    return name.split("/")[0], name.rpartition("/")[2]


def check_good_run(store: Store, names: Sequence[str], messages: str) -> None:
    """Check that queries on the run `good` work as usual, and that every malformed file is named."""
    with Catalogue(store) as catalogue:
        assert "good" in {row["run_id"] for row in catalogue.report("runs").records}
        assert catalogue.report("leaderboard", "good").records[0]["wer"] == 25.0
        words = "SELECT typeof(words), words FROM utterances WHERE run_id = 'good' ORDER BY utterance_id"
        assert catalogue.query(words).rows == [("BIGINT", 4), ("BIGINT", 4)]
        for folder in TABLES:
            catalogue.query(f"SELECT * FROM raw.{folder}")
        left_out = [file.name for file in catalogue.broken]
    assert store.runs()["good"].suite == "test"
    plan_pruning(store, Keep(newest=1))
    faults = check_store(store).faults
    for name in names:
        assert name in left_out
        of_the_file = [fault for fault in faults if all(trace in fault.file for trace in traces(name))]
        assert of_the_file, name
        assert all(fault.reason and fault.remedy for fault in of_the_file)
    assert any(trace in messages for name in names for trace in traces(name))


def test_all_malformed_files_are_named(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    names = []
    for number, kind in enumerate(MALFORMED):
        for path in list(Path(store.location).rglob("run_id=bad")):
            shutil.copytree(path, path.with_name(f"run_id=bad-{number}"))
        names.append(MALFORMED[kind](store, f"bad-{number}"))
    with Catalogue(store):
        messages = caplog.text
    assert messages.encode(), "any log can encode it, whatever the file names"
    check_good_run(store, names, messages)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MALFORMED)
def test_each_malformed_file_is_named(kind: str, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    name = MALFORMED[kind](store, "bad")
    with Catalogue(store):
        assert all(trace in caplog.text for trace in traces(name))
    check_good_run(store, [name], caplog.text)


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind in ("text for a number", "a second = in a run's folder") else pytest.param(kind, marks=SLOW)
        for kind in MALFORMED
    ],
)
def test_commands_work_on_healthy_run(
    kind: str, store: Store, emtta: Command, caplog: pytest.LogCaptureFixture
) -> None:
    name = MALFORMED[kind](store, "bad")
    for verb, *arguments in (
        ("list", "--format", "json"),
        ("report", "leaderboard", "--run", "good", "--format", "json"),
        ("status", "good", "--json"),
        ("sql", "SELECT run_id, wer FROM cells WHERE run_id = 'good'", "--format", "json"),
        ("compact", "good"),
    ):
        caplog.clear()
        outcome = emtta(verb, *arguments, "--store", store.location)
        assert outcome.code == 0, (verb, outcome.err)
        assert "good" in outcome.out + outcome.err
        reads_it = verb in ("list", "sql") and not (verb == "list" and name.startswith("prepared/"))
        assert not reads_it or all(trace in caplog.text for trace in traces(name)), verb
    outcome = emtta("check", store.location, "--format", "json")
    assert outcome.code == 1
    assert any(all(trace in fault["file"] for trace in traces(name)) for fault in json.loads(outcome.out))


OF_ONE_RUN = {
    "report": ("report", "leaderboard", "--run", "bad"),
    "report against another": ("report", "pairs", "--run", "good", "--param", "baseline=bad"),
    "report html": ("report", "html", "--run", "bad", "--out", "page.html"),
    "status": ("status", "bad"),
    "rerun": ("rerun", "bad", "--dry-run"),
    "compare": ("compare", "good", "bad"),
    "compare the earlier": ("compare", "bad", "good"),
    "compact": ("compact", "bad"),
    "catalog export": ("catalog", "export", "out.duckdb", "--run", "bad"),
}
"""Commands that take a run, by name."""


@pytest.mark.parametrize("verb", OF_ONE_RUN)
def test_unreadable_record_is_explained(
    verb: str, store: Store, emtta: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store.backend.write(RECORD, store.backend.read(RECORD)[:-30])
    outcome = emtta(*OF_ONE_RUN[verb], "--store", store.location)
    assert outcome.code == 1
    messages = " ".join(outcome.err.split())
    assert f"cannot read {store.backend.url(RECORD)}: " in messages
    assert "unknown run" not in messages
    assert "delete" in messages


def refusing(place: Folder, number: int, *names: str) -> "pytest.MonkeyPatch":
    """Make reading some files of a folder fail with this error number, until the patch is undone."""
    patch = pytest.MonkeyPatch()
    read, read_tails = place.read, place.read_tails
    error = OSError(number, os.strerror(number))

    def read_or_fail(name: str) -> bytes:
        if name.endswith(names):
            raise error
        return read(name)

    def read_tails_or_fail(entries: Iterator[Entry], length: int) -> Iterator[tuple[Entry, bytes | OSError]]:
        for entry, tail in read_tails(entries, length):
            yield entry, error if entry.name.endswith(names) else tail

    patch.setattr(place, "read", read_or_fail)
    patch.setattr(place, "read_tails", read_tails_or_fail)
    return patch


def content(store: Store) -> dict[str, bytes]:
    """All files except leases, which come and go."""
    root = Path(store.location)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "leases" not in path.parts
    }


UNREADABLE = [errno.EIO, pytest.param(errno.ESTALE, marks=SLOW), pytest.param(errno.EACCES, marks=SLOW), "newer"]


@pytest.fixture(params=UNREADABLE, ids=str)
def unreadable(request: pytest.FixtureRequest, store: Store) -> Iterator[Callable[..., None]]:
    """Makes files of the store unreadable: the system refuses to read them, or a newer release wrote them."""
    patches = []

    def make(*names: str) -> None:
        if request.param == "newer":
            for name in names:
                store.backend.write(name, parquet(newer(table(store, name))))
        else:
            patches.append(refusing(store.backend, request.param, *names))

    yield make
    for patch in patches:
        patch.undo()


def test_unreadable_audio_is_not_prepared_again(store: Store, unreadable: Callable[..., None]) -> None:
    unreadable("prepared/corpus-babble/part-00000.parquet")
    with pytest.raises(StoreError, match=r"cannot read .*part-00000\.parquet: .* Try again, or use the release"):
        store.prepared("corpus-babble")


def test_unreadable_marker_is_not_missing(store: Store) -> None:
    patch = refusing(store.backend, errno.ESTALE, "_complete.json")
    with pytest.raises(StoreError, match=r"cannot read .*_complete\.json: Stale file handle") as refusal:
        store.prepared("corpus-babble")
    assert is_transient(refusal.value)
    patch.undo()
    store.backend.write("prepared/corpus-babble/_complete.json", b'{"shards": 99999999999999, "utterances": 1}')
    assert store.prepared("corpus-babble") is None


def test_transient_error_is_retryable(store: Store) -> None:
    corpus = store.prepared("corpus-babble")
    assert corpus is not None
    patch = refusing(store.backend, errno.EIO, "part-00000.parquet")
    with pytest.raises(StoreError, match="Input/output error") as refusal:
        list(store.read_prepared(corpus))
    assert is_transient(refusal.value)
    patch.undo()
    assert [row.utterance_id for row in store.read_prepared(corpus)] == ["u0"]


@pytest.mark.parametrize("table", ["hypotheses", "scores"])
def test_unreadable_results_are_kept(table: str, store: Store, unreadable: Callable[..., None]) -> None:
    unreadable(f"{table}/{SHARD}")
    with pytest.raises(StoreError, match=rf"cannot read .*{table}.*\. Nothing was changed\. Try again"):
        store.done(BAD, "babble.source")


def test_unreadable_links_are_not_missing(store: Store, unreadable: Callable[..., None]) -> None:
    unreadable("links/run_id=bad/source_run=good/00000.parquet")
    with pytest.raises(StoreError, match=r"cannot read .*links"):
        store.links("bad")


@pytest.mark.parametrize("name", [f"scores/{SHARD}", f"hypotheses/{SHARD}", PLAN, RECORD])
def test_unreadable_run_is_not_pruned(name: str, store: Store, unreadable: Callable[..., None]) -> None:
    begin_run(store, "newest", [("noise", "babble", "source")], created_at=datetime(2026, 11, 29, tzinfo=UTC))
    store.backend.remove([entry.name for entry in store.backend.list("links")])
    unreadable(name)
    before = content(store)
    later = datetime(2036, 1, 1, tzinfo=UTC)
    found = plan_pruning(store, Keep(newest=1), now=later)
    done = prune(store, found)
    assert "bad" not in [run.name for run in done.runs]
    assert not done.corpora or name != PLAN
    after = content(store)
    assert {path: after.get(path) for path in before if "run_id=bad" in path} == {
        path: kept for path, kept in before.items() if "run_id=bad" in path
    }
    if name != RECORD:
        assert "cannot be read" in done.spared["bad"]


def test_newly_unreadable_run_is_kept(store: Store) -> None:
    begin_run(store, "bad", [("noise", "babble", "source")], utterances=9)
    store.backend.remove([entry.name for entry in store.backend.list("links")])
    begin_run(store, "newest", [("noise", "babble", "source")], created_at=datetime(2026, 11, 29, tzinfo=UTC))
    found = plan_pruning(store, Keep(newest=1))
    assert [run.name for run in found.runs] == ["bad"]
    before = content(store)
    for name in (RECORD, f"scores/{SHARD}"):
        patch = refusing(store.backend, errno.EIO, name)
        done = prune(store, found)
        patch.undo()
        assert done.runs == []
        assert "cannot" in done.spared["bad"]
        assert content(store) == before
    patch = pytest.MonkeyPatch()
    listing = store.backend.list

    def links_fail(folder: str) -> list[Entry]:
        if folder == "links":
            raise StoreError("cannot list links: Input/output error")
        return list(listing(folder))

    patch.setattr(store.backend, "list", links_fail)
    assert prune(store, found).runs == []
    patch.undo()
    assert content(store) == before


def test_unreadable_rows_keep_statistics(store: Store, unreadable: Callable[..., None]) -> None:
    assert update_statistics(store, "bad")
    end_attempt(store, BAD, group="noise", attempt=2)
    write_shard(store, BAD, {"a": [with_errors(2)]}, attempt=2)
    before = content(store)
    unreadable(f"scores/{SHARD}")
    kept = content(store)
    with pytest.raises(StoreError, match=r"cannot read .*scores"):
        update_statistics(store, "bad")
    assert content(store) == kept
    assert {name: before[name] for name in before if name.startswith("statistics/run_id=bad/")}.items() <= kept.items()


def test_unreadable_file_stops_compaction(store: Store, unreadable: Callable[..., None]) -> None:
    unreadable(f"scores/{SHARD}")
    before = content(store)
    with pytest.raises(StoreError, match="cannot be compacted while files of it cannot be read"):
        compact(store, "bad")
    assert content(store) == before


def test_catalogue_rereads_failed_file(store: Store) -> None:
    patch = refusing(store.backend, errno.EIO, f"scores/{SHARD}")
    with Catalogue(store) as catalogue:
        assert [file.problem for file in catalogue.broken] == ["unreadable"]
        patch.undo()
        assert catalogue.query("SELECT count(*) FROM raw.scores WHERE run_id = 'bad' AND attempt = 1").rows == [(2,)]
        assert catalogue.broken == ()


def flipped(content: bytes, bit: int) -> bytes:
    found = bytearray(content)
    found[bit // 8] ^= 1 << bit % 8
    return bytes(found)


@pytest.mark.parametrize("flips", [12, pytest.param(400, marks=SLOW)])
def test_bit_flip_is_detected_or_harmless(flips: int, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    begin_run(store, "bad", [("noise", "babble", "source")], utterances=40)
    texts = {f"u{number}": [with_errors(number % 4), with_errors(number * 7 % 5)] for number in range(40)}
    write_shard(store, BAD, texts, attempt=store.begin_attempt(BAD))
    end_attempt(store, BAD, group="noise")
    compact(store, "bad")
    packs = {entry.name: store.backend.read(entry.name) for entry in store.backend.list("packs")}
    assert not check_store(store).faults

    def rows() -> list[object]:
        with Catalogue(store) as catalogue:
            names = ("raw.hypotheses", "raw.scores", "raw.steps", "raw.cells", "utterances")
            return [catalogue.query(f"FROM {name} ORDER BY ALL").rows for name in names]

    expected, detected, chance = rows(), 0, random.Random(7)
    for number in range(flips):
        name = chance.choice(sorted(packs))
        bit = chance.randrange(8 * len(packs[name]))
        store.backend.write(name, flipped(packs[name], bit))
        if check_store(store, "bad").faults:
            detected += 1
        else:
            assert rows() == expected, (number, name, bit)
        store.backend.write(name, packs[name])
    assert detected > flips // 3


def test_unknown_type_in_footer_is_detected(store: Store) -> None:
    # A footer is in Thrift's compact encoding: 0x15 starts the type of a column (field 1), and 0x0c is a byte array.
    # Arrow reads the rows of a column of unknown type, but asking for its bounds kills the process.
    name = next(entry.name for entry in store.backend.list("hypotheses") if "run_id=bad" in entry.name)
    sound = store.backend.read(name)
    path = sound.index(b"\x19\x18\x09reference", len(sound) - 8 - int.from_bytes(sound[-8:-4], "little"))
    kind = sound.rindex(b"\x15\x0c", 0, path) + 1
    store.backend.write(name, sound[:kind] + b"\x7c" + sound[kind + 1 :])
    (fault,) = check_store(store, "bad").faults
    assert (fault.file, fault.problem) == (store.backend.url(name), "damaged")


@pytest.mark.parametrize("table", ["hypotheses", "scores", "packs"])
def test_bad_page_stops_compaction(table: str, store: Store) -> None:
    if table == "packs":
        compact(store, "bad")
        write_shard(store, BAD, {"a": [with_errors(2)]}, attempt=store.begin_attempt(BAD))
    name = next(entry.name for entry in store.backend.list(table) if "run_id=bad" in entry.name)
    sound = store.backend.read(name)
    column = pq.read_metadata(pa.BufferReader(sound)).row_group(0).column(3)
    begins = column.dictionary_page_offset or column.data_page_offset
    store.backend.write(name, flipped(sound, 8 * (begins + column.total_compressed_size - 3)))
    before = content(store)
    with pytest.raises(StoreError, match="cannot be compacted"):
        compact(store, "bad")
    assert content(store) == before
    store.backend.write(name, sound)
    compact(store, "bad")


def test_bad_readback_stops_compaction(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write, before = store.backend.write, content(store)
    damaged: Callable[[bytes], bytes] = lambda found: flipped(found, 8 * 300)  # noqa: E731
    monkeypatch.setattr(
        store.backend, "write", lambda name, found: write(name, damaged(found) if name.startswith("packs/") else found)
    )
    with pytest.raises(StoreError, match="does not read back as it was written"):
        compact(store, "bad")
    assert content(store) == before


def test_check_passes_healthy_store(store: Store, emtta: Command) -> None:
    outcome = emtta("check", store.location)
    assert outcome.code == 0
    assert outcome.out == ""
    assert " files (" in outcome.err and "need attention: none" in outcome.err
    compact(store, "good")
    assert json.loads(emtta("check", "--store", store.location, "--format", "json").out) == []
    assert emtta("check", store.location, "--run", "nothing").code == 2
    assert emtta("check", Path(store.location) / "nowhere").code == 1


def faults(found: Check) -> dict[str, str]:
    return {fault.file.split("store/", 1)[1]: fault.reason for fault in found.faults}


def test_check_reports_missing_files(store: Store) -> None:
    prepare(store, "corpus-two", 2)
    store.backend.remove(["prepared/corpus-two/part-00001.parquet", PLAN])
    store.backend.remove([entry.name for entry in store.backend.list("hypotheses/run_id=good")])
    store.backend.write("leases/bad/000009.json", b"{")
    found = faults(check_store(store))
    assert "records 2 shards, but there are 1" in found["prepared/corpus-two/_complete.json"]
    assert "has no such file" in found[PLAN]
    assert "links to, of the run good, are gone" in found["links/run_id=bad/source_run=good/00000.parquet"]
    assert "cannot be read" in found["leases/bad"]


QUICK = {("pipe", 0), ("pipe", 3), ("zeros", 1), ("round about", 0)}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name) if (kind, at) in QUICK else pytest.param(kind, name, marks=SLOW)
        for kind in ("pipe", "zeros", "nowhere", "itself", "round", "round about")
        for at, name in enumerate(
            (
                "prepared/corpus-x/part-00000.parquet",
                "runs/run_id=x/run.parquet",
                "packs/x",
                "leases/good/000009.json",
            )
        )
    ],
)
def test_special_files_never_block(kind: str, name: str, store: Store, tmp_path: Path, emtta: Command) -> None:
    path = Path(store.location) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "back").symlink_to(path.parent)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"zeros": Path("/dev/zero"), "nowhere": tmp_path / "nowhere", "itself": path,
                         "round": path.parent.parent, "round about": other}[kind])  # fmt: skip
    where = ("--store", store.location)
    assert emtta("list", *where).code == 0
    assert emtta("prune", "--keep", "1", "--dry-run", *where).code == 0
    assert emtta("status", "bad", *where).code == 0
    if name.startswith("leases") and kind in ("pipe", "zeros"):
        with pytest.raises(StoreError, match="not a plain file"):
            holder(store, "good")
        assert "not a plain file" in emtta("compact", "good", *where).err
    else:
        assert emtta("compact", "good", *where).code == 0
    # A link that leads nowhere is as if it were absent; through one that leads elsewhere, files have wrong paths.
    is_fault = name != "packs/x" if kind in ("pipe", "zeros") else (kind, name) == ("round about", "packs/x")
    assert emtta("check", *where).code == is_fault
    with pytest.raises(EmttaError):
        store.run("x")
