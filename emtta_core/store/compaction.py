"""Compaction: merge a run's many shards into a few packs, while others read.

The order makes a killed compaction harmless, and lets the next one finish it:

1. Take the run's lease, so that nobody writes to it.
2. Check each file against its checksums, so that no damage is copied into a pack.
3. Read the rows of each kind of pack, and write them as one new file. It covers the shards: readers ignore them from
   that moment on. Read back what was written, and compare.
4. Remove the covered files. A reader that had just listed them, and finds them gone, lists again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from emtta_core.errors import StoreError
from emtta_core.store.backend import Entry
from emtta_core.store.catalogue import Catalogue
from emtta_core.store.lease import lease
from emtta_core.store.parquet import BrokenFile, parquet, read_table
from emtta_core.store.snapshot import PACK_OF, PACKS, UTTERANCES, Pack, Snapshot, attempt_of, kind_of, newest
from emtta_core.store.store import Store
from emtta_core.store.tables import TABLES
from emtta_core.store.views import describe_broken, sql_text

_KEYS = "run_id, domain, method, cell_id, attempt, utterance_id"


@dataclass(frozen=True, slots=True)
class Compaction:
    """The outcome of a compaction, or the plan of one."""

    run_id: str  # the run
    files: int  # files with rows before
    packs: int  # files that remain
    size: int  # bytes before
    packed: int | None = None  # bytes of the files that remain; None if nothing was done

    @property
    def needed(self) -> bool:
        """Whether there is something to do."""
        return self.files > self.packs


def plan_compaction(store: Store, run_id: str) -> Compaction:
    """Plan the compaction of a run; raises UsageError if there is no such run."""
    store.run(run_id)
    entries = _files(store, run_id)
    present = {PACK_OF[entry.name.split("/")[0]].name for entry in entries if not entry.name.startswith("packs/")}
    kinds = present | {entry.name.split("/")[1] for entry in entries if entry.name.startswith("packs/")}
    return Compaction(run_id, len(entries), len(kinds), sum(entry.size for entry in entries))


def compact(store: Store, run_id: str) -> Compaction:
    """Merge the shards of a run into packs.

    Raises:
        UsageError: there is no such run.
        StoreError: another process is working on it, its plan is missing, or one of its files cannot be read.
    """
    store.run(run_id)
    with lease(store, run_id):
        return compact_held(store, run_id)


def compact_held(store: Store, run_id: str) -> Compaction:
    """Do what `compact` does, for a run whose lease the caller holds."""
    store.plan(run_id)  # raises if it cannot be read: a pack permanently marks which rows count by it
    before = plan_compaction(store, run_id)
    snapshot = Snapshot.take(store.backend, [run_id])
    old_files = {entry.name for entry in _files(store, run_id)}
    _refuse_broken(store, run_id, _damaged(store, [entry for entry in snapshot.entries if entry.name in old_files]))
    attempt = max((attempt_of(entry.name) for entry in _marks(store, run_id)), default=0)
    with Catalogue(store, runs=[run_id]) as catalogue:
        for pack in PACKS.values():
            if any(snapshot.loose[table] for table in pack.tables):
                _write(store, pack, run_id, attempt, catalogue)
    store.backend.remove([entry.name for entry in _covered(store, run_id)])
    after = _files(store, run_id)
    return Compaction(run_id, before.files, len(after), before.size, sum(entry.size for entry in after))


def _write(store: Store, pack: Pack, run_id: str, attempt: int, catalogue: Catalogue) -> None:
    rows = _rows(pack, _own_condition(run_id, attempt), catalogue)
    for table in pack.tables:
        # The join pairs rows by their keys; a duplicate key would permanently multiply them.
        ((expected,),) = catalogue.query(
            f"SELECT count(*) FROM raw.{table} WHERE {_own_condition(run_id, attempt)}"
        ).rows
        found = rows.filter(pack.rows_of(TABLES[table].row, {})).num_rows
        if found != expected:
            raise StoreError(
                f"the pack {pack.name} of the run {run_id!r} would hold {found} rows of {table} instead of {expected}: "
                "an attempt has an utterance twice. Nothing was changed; the run can be read as it is"
            )
    _refuse_broken(store, run_id, catalogue.broken)
    name, content = pack.file(run_id, attempt), parquet(rows)
    store.backend.write(name, content)
    try:
        intact = store.backend.read(name) == content and not isinstance(read_table(name, content, pack), BrokenFile)
    except OSError:
        intact = False
    if not intact:
        store.backend.remove([name])  # the shards count again
        raise StoreError(
            f"{store.backend.url(name)} does not read back as it was written: the disk or the memory is faulty. "
            "The run is unchanged; repair the machine before writing anything else"
        )


def _damaged(store: Store, entries: Sequence[Entry]) -> list[BrokenFile]:
    # The files that fail a page checksum or cannot be read at all.
    damaged = []
    for name, content in store.backend.read_all([entry.name for entry in entries]):
        kind = kind_of(name)
        assert kind is not None
        found = BrokenFile.refused(name, content) if isinstance(content, OSError) else read_table(name, content, kind)
        if isinstance(found, BrokenFile):
            damaged.append(found)
    return damaged


def _refuse_broken(store: Store, run_id: str, broken: Sequence[BrokenFile]) -> None:
    if broken:
        command = store.command("rerun", run_id)
        reasons = "; ".join(describe_broken(store.backend, broken))
        raise StoreError(
            f"the run {run_id!r} cannot be compacted while files of it cannot be read: {reasons}. "
            f"Restore them, or delete them and evaluate their utterances again: {command}"
        )


def _own_condition(run_id: str, attempt: int) -> str:
    # The condition for the run's own rows up to an attempt: reused rows stay where they are.
    return f"run_id = {sql_text(run_id)} AND attempt BETWEEN 1 AND {attempt}"


def _rows(pack: Pack, condition: str, catalogue: Catalogue) -> pa.Table:
    if pack is UTTERANCES:
        query = f"""
            SELECT
                * EXCLUDE (seed, seed_of_score),
                coalesce(seed, seed_of_score) AS seed,
                counting.attempt IS NOT NULL AS counts
            FROM raw.hypotheses
            FULL JOIN (
                SELECT * RENAME (error AS score_error, seed AS seed_of_score) FROM raw.scores
            ) AS scores USING ({_KEYS})
            LEFT JOIN (SELECT {_KEYS} FROM utterances) AS counting USING ({_KEYS})
            WHERE {condition}
            ORDER BY domain, method, seed, attempt, utterance_id
        """
    else:
        query = f"SELECT * FROM raw.{pack.tables[0]} WHERE {condition} ORDER BY domain, method, seed, attempt"
    return catalogue.query(query).table.select(pack.schema.names).cast(pack.schema)


def _files(store: Store, run_id: str) -> Sequence[Entry]:
    return [entry for entry in _marks(store, run_id) if entry.name.endswith(".parquet")]


def _marks(store: Store, run_id: str) -> Sequence[Entry]:
    folders = [*PACK_OF, *(pack.folder for pack in PACKS.values())]
    found = [entry for folder in folders for entry in store.backend.list(f"{folder}/run_id={run_id}")]
    return [entry for entry in found if attempt_of(entry.name)]


def _covered(store: Store, run_id: str) -> Sequence[Entry]:
    marks = _marks(store, run_id)
    packs = {
        name: attempt_of(entry.name)
        for name, pack in PACKS.items()
        for entry in newest(mark for mark in marks if mark.name.startswith(f"{pack.folder}/")).values()
    }

    def covered(entry: Entry) -> bool:
        table, attempt = entry.name.split("/")[0], attempt_of(entry.name)
        # The marker of an attempt that was begun, which has a number but no rows.
        if entry.name.endswith(".begun"):  # a pack keeps the numbers from being assigned again
            return attempt <= max(packs.values(), default=0)
        if table in PACK_OF:
            return attempt <= packs.get(PACK_OF[table].name, 0)
        return attempt < packs[entry.name.split("/")[1]]

    return [entry for entry in marks if covered(entry)]
