"""Pruning: old runs are removed, and the prepared audio that no plan names any more.

Of a run the record goes first, then the plan, then its rows: from the first step on it is no run any more, so that one
that is half removed is never seen. What a killed pruning leaves behind has no record, and another one removes it.

A run whose results a remaining run reuses stays. Whoever reuses results writes the link before it looks for the record
of their run, and pruning removes the record before it looks for links: one of the two sees the other.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from emtta_core.errors import StoreError, UsageError, unknown
from emtta_core.names import is_name
from emtta_core.store.backend import Entry
from emtta_core.store.catalogue import Catalogue
from emtta_core.store.lease import holder, lease, remove_old_leases
from emtta_core.store.parquet import BrokenFile
from emtta_core.store.schema import COMPLETE
from emtta_core.store.snapshot import FOLDER, run_of
from emtta_core.store.states import FOLDER as STATES
from emtta_core.store.store import Store
from emtta_core.store.tables import TABLES

SETTLED = 86_400.0
"""Seconds after which rows without a record, or prepared audio without a plan, are nobody's work in hand any more."""

_KEEP = re.compile(r"(?P<number>[0-9]{1,6})(?P<unit>[hdw]?)", re.ASCII)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_LOG = re.compile(r"logs/([^/]+)\.(?:log|html|results\.json)")


@dataclass(frozen=True, slots=True)
class Keep:
    """Which runs of a suite are kept."""

    newest: int = 0  # so many, the newest
    younger: timedelta = timedelta(0)  # or those that were begun since so long

    @classmethod
    def parse(cls, text: str) -> "Keep":
        """Parse `30d`, `12h`, `4w` or a number of runs; UsageError for anything else."""
        match = _KEEP.fullmatch(text)
        if match is None or int(match["number"]) == 0:
            raise UsageError(
                f"--keep {text!r} says neither how many runs of a suite are kept nor how old they may be; "
                "write a number, as 30, or an age in hours, days or weeks, as 12h, 30d or 8w; at least 1"
            )
        number = int(match["number"])
        return cls(younger=number * _UNITS[match["unit"]]) if match["unit"] else cls(newest=number)

    def keeps(self, index: int, created_at: datetime, now: datetime) -> bool:
        """Whether a run is kept: that at an index among those of its suite, 0 for the newest."""
        return index < self.newest or now - created_at < self.younger


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to be removed together."""

    name: str  # a run's id, or a corpus's
    files: Sequence[str]  # its files, in the order in which they go
    size: int  # their bytes
    suite: str | None = None  # the run's; none where its record is gone already, and for a corpus
    created_at: datetime | None = None  # when the run was begun
    state: str | None = None  # of the run, `complete` or `incomplete`


@dataclass(frozen=True, slots=True)
class Pruning:
    """What is to be removed of a store."""

    runs: Sequence[Removal]  # the old runs, the oldest first, and what is left of runs that were being removed before
    corpora: Sequence[Removal]  # prepared audio that no remaining plan names
    spared: Mapping[str, str]  # runs that are old and stay all the same, with the reason

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(removal.size for removal in (*self.runs, *self.corpora))


def plan_pruning(
    store: Store, keep: Keep, *, suite: str | None = None, keep_prepared: bool = False, now: datetime | None = None
) -> Pruning:
    """Find what is to be removed.

    The newest complete run of each suite stays in any case, and every run that is being worked on, or whose results a
    run reuses that stays, or of which a file cannot be read: it may be complete.

    Args:
        store: of which.
        keep: which runs of each suite stay.
        suite: the only suite whose runs may go; all where it is left out.
        keep_prepared: whether all prepared audio stays.
        now: the time, UTC.

    Raises:
        UsageError: the suite has no run; the message lists the suites that have.
    """
    now = now or datetime.now(UTC)
    # 1) The runs of each suite, the newest first.
    with Catalogue(store) as catalogue:
        # A record whose time Python does not have is damaged; its run stays.
        query = """
            SELECT suite, run_id, created_at, state FROM runs
            WHERE year(created_at) BETWEEN 1 AND 9999 ORDER BY created_at DESC, run_id DESC
        """
        runs = catalogue.query(query).rows
        unread = {run_of(file.name): file for file in catalogue.broken if file.may_come_back}
    suites: dict[str, list[tuple[str, datetime, str]]] = {}
    for name, *run in runs:
        suites.setdefault(name, []).append((run[0], run[1], run[2]))
    if suite is not None and suite not in suites:
        raise unknown("suite", suite, list(suites))
    # 2) Old runs go, but for some.
    files = _files(store)
    removals, spared = [], {}
    for name in suites if suite is None else [suite]:
        last = next((run_id for run_id, _, state in suites[name] if state == COMPLETE), None)
        for index, (run_id, created_at, state) in enumerate(suites[name]):
            if keep.keeps(index, created_at, now):
                continue
            if run_id == last:
                spared[run_id] = f"it is the last complete run of the suite {name}"
            elif run_id in unread:
                spared[run_id] = _unread(store, unread[run_id])
            elif (working := _working(store, run_id)) is not None:
                spared[run_id] = working
            else:
                removals.append(
                    replace(_removal(run_id, files[run_id]), suite=name, created_at=created_at, state=state)
                )
    # 3) One stays whose results are reused by one that stays; then another one may stay for its sake.
    reused = store.reused_runs()
    left = [] if suite is not None else _left_behind(store, files, now)
    while reusing := _reusing(reused, [*removals, *left]):
        spared |= {run_id: f"its results are reused by {other}" for run_id, other in reusing.items()}
        removals = [removal for removal in removals if removal.name not in reusing]
        left = [removal for removal in left if removal.name not in reusing]
    # 4) Prepared audio goes that only they name.
    removals.sort(key=lambda removal: (removal.created_at or now, removal.name))
    doomed = {removal.name for removal in (*removals, *left)}
    corpora = () if keep_prepared else _unnamed(store, [name for name in files if name not in doomed], now)
    return Pruning((*left, *removals), corpora, spared)


def prune(store: Store, pruning: Pruning) -> Pruning:
    """Remove what a pruning names and may still go, and return what was removed, and what was spared with the reason.

    Since it was planned, a run may have been completed, begun again or reused by another.

    Raises:
        StoreError: the store cannot be read or written.
    """
    removed: list[Removal] = []
    spared = dict(pruning.spared)
    for removal in reversed(pruning.runs):  # who reuses results goes before the run that made them, which is older
        try:
            with lease(store, removal.name):
                reason = _changed(store, removal) or _remove(store, removal)
        except StoreError as error:
            if holder(store, removal.name) is None:
                raise
            reason = str(error)
        if reason is not None:
            spared[removal.name] = reason
        else:
            remove_old_leases(store, removal.name)
            removed.insert(0, removal)
    wanted = _corpora_in_plans(store, {run_of(entry.name) for entry in store.backend.list("plans")})
    corpora = [removal for removal in pruning.corpora if wanted is not None and removal.name not in wanted]
    for removal in corpora:
        store.backend.remove(removal.files)
    return Pruning(removed, corpora, spared)


def _changed(store: Store, removal: Removal) -> str | None:
    try:
        record = store.find_run(removal.name)
    except StoreError as error:
        return str(error)
    if (record.created_at if record else None) != removal.created_at:
        return "it was begun anew meanwhile"
    if record is not None and removal.state != COMPLETE:
        with Catalogue(store, runs=[removal.name]) as catalogue:
            ((state,),) = catalogue.query("SELECT state FROM runs").rows
            unread = next((file for file in catalogue.broken if file.may_come_back), None)
        if state == COMPLETE:
            return "it was completed meanwhile"
        if unread is not None:
            return _unread(store, unread)
    return None


def _unread(store: Store, file: BrokenFile) -> str:
    return f"a file of it cannot be read, {store.backend.url(file.name)}: {file.reason}"


def _working(store: Store, run_id: str) -> str | None:
    # A sentence on who works on a run, or that this is unknown; None if nobody does.
    try:
        worker = holder(store, run_id)
    except StoreError as error:
        return str(error)
    return None if worker is None else f"{worker} works on it"


def _remove(store: Store, removal: Removal) -> str | None:
    # Remove a run. Where another one has come to reuse its results, leave it, and return this as the reason.
    record, plan, *rest = removal.files
    try:
        kept = store.backend.read(record) if removal.created_at else b""
    except OSError as error:
        return _unread(store, BrokenFile.refused(record, error))
    store.backend.remove([record])
    try:
        reusing = store.reused_runs().get(removal.name)
        reason = f"its results are reused by {min(reusing)}" if reusing else None
    except StoreError as error:
        reason = str(error)
    if reason is not None:
        if kept:
            store.backend.write(record, kept)
        return reason
    for names in ([plan], rest):
        store.backend.remove(names)
    return None


def _reusing(reused: Mapping[str, Collection[str]], removals: Iterable[Removal]) -> dict[str, str]:
    # Of the runs that are to go, those whose results a run reuses that stays, each with that run.
    going = {removal.name for removal in removals}
    found = {run_id: sorted(set(reused.get(run_id, ())) - going) for run_id in going}
    return {run_id: staying[0] for run_id, staying in found.items() if staying}


def _removal(run_id: str, entries: Sequence[Entry]) -> Removal:
    first = [f"runs/run_id={run_id}/run.parquet", f"plans/run_id={run_id}/plan.parquet"]
    rest = [entry.name for entry in entries if entry.name not in first]
    return Removal(run_id, (*first, *rest), sum(entry.size for entry in entries))


def _files(store: Store) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for folder in (*(table.name for table in TABLES.values() if table.keys), FOLDER, STATES, "logs"):
        for entry in store.backend.list(folder):
            log = _LOG.fullmatch(entry.name)
            run_id = log[1] if log else run_of(entry.name)
            if is_name(run_id):
                found.setdefault(run_id, []).append(entry)
    return found


def _left_behind(store: Store, files: Mapping[str, Sequence[Entry]], now: datetime) -> list[Removal]:
    # What killed prunings left: the files of runs without a record, where none of them is new.
    return [
        _removal(run_id, entries)
        for run_id, entries in files.items()
        if not any(entry.name.startswith("runs/") for entry in entries)
        and _old(entries, now)
        and _working(store, run_id) is None
    ]


def _old(entries: Iterable[Entry], now: datetime) -> bool:
    return max(entry.modified for entry in entries) < now.timestamp() - SETTLED


def _unnamed(store: Store, runs: Iterable[str], now: datetime) -> Sequence[Removal]:
    # The prepared corpora that no plan of these runs names, but those that are new.
    corpora: dict[str, list[Entry]] = {}
    for entry in store.backend.list("prepared"):
        corpora.setdefault(entry.name.split("/")[1], []).append(entry)
    wanted = _corpora_in_plans(store, runs) if corpora else set()
    if wanted is None:
        return ()
    return [
        Removal(corpus_id, [entry.name for entry in entries], sum(entry.size for entry in entries))
        for corpus_id, entries in sorted(corpora.items())
        if corpus_id not in wanted and _old(entries, now)
    ]


def _corpora_in_plans(store: Store, runs: Iterable[str]) -> set[str] | None:
    # The corpora that the plans of runs name; None if a plan cannot be read, so that nobody knows.
    wanted: set[str] = set()
    for run_id in runs:
        try:
            wanted |= {row.corpus_id for row in store.plan(run_id)}
        except StoreError:
            return None
        except UsageError:
            continue  # it has rows and no plan
    return wanted
