"""The snapshot: the files of a store whose rows are read at one moment, each row in one of them."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from emtta_core.store.backend import Backend, Entry
from emtta_core.store.packs import FOLDER, PACK_OF, PACKS, UTTERANCES, Pack
from emtta_core.store.schema import REUSED, TABLES, Table

_LISTED_ALONE = 20
"""Runs whose folders are listed one by one; of more, everything is listed, for an object store bills each listing."""

_ATTEMPT = re.compile(r"(\d+)(?:-\d+\.parquet|\.parquet|\.begun)")


def attempt_of(name: str) -> int:
    """Return the attempt that the name of a shard, a record, a pack or a mark has; 0 for another file's."""
    match = _ATTEMPT.fullmatch(name.rpartition("/")[2])
    return int(match[1]) if match else 0


def run_of(name: str) -> str:
    """Return the run whose file it is; the empty text for a file of no run."""
    return _key_of(name, "run_id=")


def source_of(name: str) -> str:
    """Return the run whose results are reused by the run whose links a file holds."""
    return _key_of(name, "source_run=")


def sources(entries: Iterable[Entry]) -> dict[str, set[str]]:
    """Return, by run, the runs whose results it reuses, of files of the table `links`."""
    found: dict[str, set[str]] = {}
    for entry in entries:
        found.setdefault(run_of(entry.name), set()).add(source_of(entry.name))
    return found


def _key_of(name: str, key: str) -> str:
    return name.partition(f"/{key}")[2].partition("/")[0]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files that are read."""

    loose: Mapping[str, Sequence[Entry]]  # by table, the files that no pack covers
    packs: Mapping[str, Sequence[Entry]]  # by kind of pack, the newest of each run
    misplaced: Sequence[Entry] = ()  # Parquet files that lie where none of the store's does, and are not read

    @classmethod
    def take(
        cls, backend: Backend, runs: Collection[str] | None = None, tables: Collection[str] = tuple(TABLES)
    ) -> "Snapshot":
        """Look at a whole store, or at the files of some runs alone: with the results that they reuse, without audio.

        What is moved from shards to a pack meanwhile is seen once, for the packs are listed after the shards.

        Args:
            backend: the store's.
            runs: the runs; all by default.
            tables: those whose files are seen, `links` among them; all by default.
        """
        if runs is not None and len(runs) > _LISTED_ALONE:
            return cls.take(backend, tables=[name for name in tables if TABLES[name].keys]).of_runs(runs, ())

        def below(folder: str, reused: bool) -> list[Entry]:
            # List a folder, or what lies there of the runs, and of those whose results they reuse.
            if runs is None:
                return list(backend.list(folder))
            wanted = sorted({*runs, *(makers if reused else ())})
            return [entry for run in wanted for entry in backend.list(f"{folder}/run_id={run}")]

        links = below("links", reused=False)
        makers = {source_of(entry.name) for entry in links}
        listed = {
            name: links if name == "links" else below(name, name in REUSED)
            for name in tables
            if TABLES[name].keys or runs is None
        }
        all_packs = list(backend.list(FOLDER)) if runs is None else []  # one listing, for an object store bills each
        packed = {
            pack.name: []
            if set(tables).isdisjoint(pack.tables)
            else below(pack.folder, not REUSED.isdisjoint(pack.tables))
            if runs is not None
            else [entry for entry in all_packs if entry.name.startswith(f"{pack.folder}/")]
            for pack in PACKS.values()
        }
        misplaced: list[Entry] = []
        found = {name: _files_of(TABLES[name], entries, misplaced) for name, entries in listed.items()}
        packs = {name: newest(_files_of(PACKS[name], entries, misplaced)) for name, entries in packed.items()}
        loose = {
            table: tuple(uncovered(entries, packs[PACK_OF[table].name])) if table in PACK_OF else tuple(entries)
            for table, entries in found.items()
        }
        return cls(loose, {name: tuple(entries.values()) for name, entries in packs.items()}, tuple(misplaced))

    @property
    def entries(self) -> Iterator[Entry]:
        """Every file that is read."""
        for group in (self.loose, self.packs):
            for entries in group.values():
                yield from entries

    def without(self, names: Collection[str]) -> "Snapshot":
        """Return the snapshot without some files."""
        loose, packs = (
            {key: tuple(entry for entry in entries if entry.name not in names) for key, entries in group.items()}
            for group in (self.loose, self.packs)
        )
        return Snapshot(loose, packs, self.misplaced)

    def of_runs(self, runs: Collection[str], corpora: Collection[str]) -> "Snapshot":
        """Return the files of some runs with the results that they reuse, and the prepared audio of some corpora."""
        reused = sources(self.loose["links"])
        makers = set().union(*(reused.get(run, set()) for run in runs))

        def wanted(name: str) -> bool:
            table = name.removeprefix(f"{FOLDER}/").split("/")[0]
            if not run_of(name):
                return name.split("/")[1] in corpora
            return run_of(name) in runs or (run_of(name) in makers and (table in REUSED or table == UTTERANCES.name))

        return self.without({entry.name for entry in self.entries if not wanted(entry.name)})

    @property
    def open_runs(self) -> frozenset[str]:
        """The runs with utterances that are in no pack: in another attempt they may have rows that are."""
        tables = ("hypotheses", "scores", "links")
        return frozenset(run_of(entry.name) for table in tables for entry in self.loose.get(table, ()))


def cell_files(backend: Backend, table: str, run_id: str, folder: str) -> Sequence[Entry]:
    """Return the files with rows of a cell: its own that no pack covers, and the pack of its run.

    Args:
        backend: where.
        table: one that has packs.
        run_id: the run.
        folder: the cell's, below the table's.
    """
    found = [entry for entry in backend.list(f"{table}/{folder}") if TABLES[table].holds(entry.name)]
    packs = newest(backend.list(f"{PACK_OF[table].folder}/run_id={run_id}"))
    return (*uncovered(found, packs), *packs.values())


def _files_of(kind: Table | Pack, entries: Iterable[Entry], misplaced: list[Entry]) -> list[Entry]:
    # The files of a table, or of a kind of pack; add other Parquet files among them to `misplaced`.
    held = []
    for entry in entries:
        if kind.holds(entry.name):
            held.append(entry)
        elif entry.name.endswith(".parquet"):
            misplaced.append(entry)
    return held


def newest(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return, by run, the pack that covers most, of packs of one kind."""
    found: dict[str, Entry] = {}
    for entry in entries:
        run_id = run_of(entry.name)
        if attempt_of(entry.name) > (attempt_of(found[run_id].name) if run_id in found else 0):
            found[run_id] = entry
    return found


def uncovered(entries: Iterable[Entry], packs: Mapping[str, Entry]) -> Iterator[Entry]:
    """Yield the files of a table that no pack covers, given the newest by run."""
    for entry in entries:
        pack = packs.get(run_of(entry.name))
        if pack is None or not 0 < attempt_of(entry.name) <= attempt_of(pack.name):
            yield entry
