"""Compaction: a run's many shards become some packs, while others read.

In this order, so that a compaction that is killed leaves nothing to mend, and its successor ends it:

1. The run's lease is taken, so that nobody writes it.
2. Each file is held against its checksums, so that no damage is written into a pack for good.
3. The rows of each kind of pack are read, and written as one new file. With it the shards are covered: readers leave
   them alone from that moment on. What was written is read again, and compared.
4. What is covered is removed. Whoever had just listed it, and finds it gone, lists again.
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
    """What a compaction did, or would do."""

    run_id: str  # the run
    files: int  # files with rows before
    packs: int  # those that stay
    size: int  # bytes before
    packed: int | None = None  # bytes of those that stay; none where nothing was done

    @property
    def needed(self) -> bool:
        """Whether there is something to do."""
        return self.files > self.packs


def plan_compaction(store: Store, run_id: str) -> Compaction:
    """Find what a compaction of a run would do; UsageError when there is no such run."""
    store.run(run_id)
    entries = _files(store, run_id)
    held = {PACK_OF[entry.name.split("/")[0]].name for entry in entries if not entry.name.startswith("packs/")}
    kinds = held | {entry.name.split("/")[1] for entry in entries if entry.name.startswith("packs/")}
    return Compaction(run_id, len(entries), len(kinds), sum(entry.size for entry in entries))


def compact(store: Store, run_id: str) -> Compaction:
    """Put what a run has in shards into packs.

    Raises:
        UsageError: there is no such run.
        StoreError: another process works on it, its plan is missing, or one of its files cannot be read.
    """
    store.run(run_id)
    with lease(store, run_id):
        return compact_held(store, run_id)


def compact_held(store: Store, run_id: str) -> Compaction:
    """Do what `compact` does for a run whose lease the caller has."""
    store.plan(run_id)  # raises where it cannot be read: by it a pack marks for good which rows count
    before = plan_compaction(store, run_id)
    snapshot = Snapshot.take(store.backend, [run_id])
    own = {entry.name for entry in _files(store, run_id)}
    _refuse_broken(store, run_id, _damaged(store, [entry for entry in snapshot.entries if entry.name in own]))
    attempt = max((attempt_of(entry.name) for entry in _marks(store, run_id)), default=0)
    with Catalogue(store, runs=[run_id]) as catalogue:
        for pack in PACKS.values():
            if any(snapshot.loose[table] for table in pack.tables):
                _write(store, pack, run_id, attempt, catalogue)
    store.backend.remove([entry.name for entry in _covered(store, run_id)])
    after = _files(store, run_id)
    return Compaction(run_id, before.files, len(after), before.size, sum(entry.size for entry in after))


def _write(store: Store, pack: Pack, run_id: str, attempt: int, catalogue: Catalogue) -> None:
    rows = _rows(pack, _own(run_id, attempt), catalogue)
    for table in pack.tables:
        # The join pairs rows by their keys; were a key there twice, it would multiply them, for good.
        ((expected,),) = catalogue.query(f"SELECT count(*) FROM raw.{table} WHERE {_own(run_id, attempt)}").rows
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
            f"what was written as {store.backend.url(name)} is not what is read there: the disk or the memory is at "
            "fault. The run is as it was; see to the machine before anything more is written"
        )


def _damaged(store: Store, entries: Sequence[Entry]) -> list[BrokenFile]:
    # The files of which a page is not what was written, or that cannot be read at all.
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
        again = store.command("rerun", run_id)
        reasons = "; ".join(describe_broken(store.backend, broken))
        raise StoreError(
            f"the run {run_id!r} cannot be compacted while files of it cannot be read: {reasons}. "
            f"Bring them back, or delete them and have their utterances done again: {again}"
        )


def _own(run_id: str, attempt: int) -> str:
    # The condition on rows that the run has made itself, up to an attempt: what it reuses stays where it is.
    return f"run_id = {sql_text(run_id)} AND attempt BETWEEN 1 AND {attempt}"


def _rows(pack: Pack, own: str, catalogue: Catalogue) -> pa.Table:
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
            WHERE {own}
            ORDER BY domain, method, seed, attempt, utterance_id
        """
    else:
        query = f"SELECT * FROM raw.{pack.tables[0]} WHERE {own} ORDER BY domain, method, seed, attempt"
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
        # The mark of an attempt that was begun, which has a number and no rows of its own.
        if entry.name.endswith(".begun"):  # a pack keeps their number from being given once more
            return attempt <= max(packs.values(), default=0)
        if table in PACK_OF:
            return attempt <= packs.get(PACK_OF[table].name, 0)
        return attempt < packs[entry.name.split("/")[1]]

    return [entry for entry in marks if covered(entry)]
