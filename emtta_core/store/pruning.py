"""Prune a store: remove old runs, and prepared audio that no plan names any more.

A run's record is removed first, then its plan, then its rows. Without a record it is no longer a run, so readers never
see one that is half removed. What a killed pruning leaves behind has no record, and the next pruning removes it.

A run whose results a remaining run reuses is kept. A process that reuses results writes the link before it looks for
the record of their run, and pruning removes the record before it looks for links, so one of the two sees the other.
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

MIN_AGE = 86_400.0
"""Age in seconds after which rows without a record, or prepared audio without a plan, are not work in progress."""

_KEEP = re.compile(r"(?P<number>[0-9]{1,6})(?P<unit>[hdw]?)", re.ASCII)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_LOG = re.compile(r"logs/([^/]+)\.(?:log|html|results\.json)")


@dataclass(frozen=True, slots=True)
class Keep:
    """Which runs of a suite to keep."""

    newest: int = 0  # this many of the newest runs
    younger: timedelta = timedelta(0)  # or the runs begun within this time

    @classmethod
    def parse(cls, text: str) -> "Keep":
        """Parse `30d`, `12h`, `4w` or a number of runs; raises UsageError for anything else."""
        match = _KEEP.fullmatch(text)
        if match is None or int(match["number"]) == 0:
            raise UsageError(
                f"--keep {text!r} is neither a number of runs per suite nor an age; "
                "write a number such as 30, or an age in hours, days or weeks such as 12h, 30d or 8w; at least 1"
            )
        number = int(match["number"])
        return cls(younger=number * _UNITS[match["unit"]]) if match["unit"] else cls(newest=number)

    def keeps(self, index: int, created_at: datetime, now: datetime) -> bool:
        """Whether a run is kept, given its index among the runs of its suite, 0 for the newest."""
        return index < self.newest or now - created_at < self.younger


@dataclass(frozen=True, slots=True)
class Removal:
    """Files to remove together."""

    name: str  # the id of a run or a corpus
    files: Sequence[str]  # its files, in the order of removal
    size: int  # their size in bytes
    suite: str | None = None  # the run's suite; None if its record is already gone, and for a corpus
    created_at: datetime | None = None  # when the run was begun
    state: str | None = None  # the run's state, `complete` or `incomplete`


@dataclass(frozen=True, slots=True)
class Pruning:
    """What to remove from a store."""

    runs: Sequence[Removal]  # the old runs, oldest first, and remains of earlier, interrupted removals
    corpora: Sequence[Removal]  # prepared audio that no remaining plan names
    spared: Mapping[str, str]  # old runs that are kept all the same, with the reason

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(removal.size for removal in (*self.runs, *self.corpora))


def plan_pruning(
    store: Store, keep: Keep, *, suite: str | None = None, keep_prepared: bool = False, now: datetime | None = None
) -> Pruning:
    """Find what to remove.

    Always kept are the newest complete run of each suite, and every run that is being worked on, whose results are
    reused by a run that is kept, or that has an unreadable file, as it may be complete.

    Args:
        store: the store.
        keep: which runs of each suite to keep.
        suite: the suite whose runs may be removed; by default all.
        keep_prepared: whether to keep all prepared audio.
        now: the time, UTC; by default the current time.

    Raises:
        UsageError: the suite has no runs; the message lists the suites that have.
    """
    now = now or datetime.now(UTC)
    # 1) The runs of each suite, newest first.
    with Catalogue(store) as catalogue:
        # A record whose time Python cannot represent is damaged; its run is kept.
        query = """
            SELECT suite, run_id, created_at, state FROM runs
            WHERE year(created_at) BETWEEN 1 AND 9999 ORDER BY created_at DESC, run_id DESC
        """
        runs = catalogue.query(query).rows
        unread = {run_of(file.name): file for file in catalogue.broken if file.may_be_temporary}
    suites: dict[str, list[tuple[str, datetime, str]]] = {}
    for name, *run in runs:
        suites.setdefault(name, []).append((run[0], run[1], run[2]))
    if suite is not None and suite not in suites:
        raise unknown("suite", suite, list(suites))
    # 2) Old runs are removed, with exceptions.
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
    # 3) A run whose results a kept run reuses is kept, which may in turn keep further runs.
    reused = store.reused_runs()
    leftovers = [] if suite is not None else _leftovers(store, files, now)
    while reusing := _reusing(reused, [*removals, *leftovers]):
        spared |= {run_id: f"its results are reused by {other}" for run_id, other in reusing.items()}
        removals = [removal for removal in removals if removal.name not in reusing]
        leftovers = [removal for removal in leftovers if removal.name not in reusing]
    # 4) Prepared audio that only removed runs name is removed.
    removals.sort(key=lambda removal: (removal.created_at or now, removal.name))
    removed = {removal.name for removal in (*removals, *leftovers)}
    corpora = () if keep_prepared else _unnamed(store, [name for name in files if name not in removed], now)
    return Pruning((*leftovers, *removals), corpora, spared)


def prune(store: Store, pruning: Pruning) -> Pruning:
    """Remove what a pruning names, if that is still allowed; return what was removed, and what was spared and why.

    Since the pruning was planned, a run may have been completed, begun again or reused by another.

    Raises:
        StoreError: the store cannot be read or written.
    """
    removed: list[Removal] = []
    spared = dict(pruning.spared)
    for removal in reversed(pruning.runs):  # newest first, so a run goes before the older runs whose results it reuses
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
    used = _corpora_in_plans(store, {run_of(entry.name) for entry in store.backend.list("plans")})
    corpora = [removal for removal in pruning.corpora if used is not None and removal.name not in used]
    for removal in corpora:
        store.backend.remove(removal.files)
    return Pruning(removed, corpora, spared)


def _changed(store: Store, removal: Removal) -> str | None:
    try:
        record = store.find_run(removal.name)
    except StoreError as error:
        return str(error)
    if (record.created_at if record else None) != removal.created_at:
        return "it was begun again meanwhile"
    if record is not None and removal.state != COMPLETE:
        with Catalogue(store, runs=[removal.name]) as catalogue:
            ((state,),) = catalogue.query("SELECT state FROM runs").rows
            unread = next((file for file in catalogue.broken if file.may_be_temporary), None)
        if state == COMPLETE:
            return "it was completed meanwhile"
        if unread is not None:
            return _unread(store, unread)
    return None


def _unread(store: Store, file: BrokenFile) -> str:
    return f"one of its files cannot be read, {store.backend.url(file.name)}: {file.reason}"


def _working(store: Store, run_id: str) -> str | None:
    # A sentence on who is working on a run, or that this is unknown; None if nobody is.
    try:
        worker = holder(store, run_id)
    except StoreError as error:
        return str(error)
    return None if worker is None else f"{worker} is working on it"


def _remove(store: Store, removal: Removal) -> str | None:
    # Remove a run. If another run has started to reuse its results, keep it and return the reason.
    record, plan, *rest = removal.files
    try:
        content = store.backend.read(record) if removal.created_at else b""
    except OSError as error:
        return _unread(store, BrokenFile.refused(record, error))
    store.backend.remove([record])
    try:
        reusing = store.reused_runs().get(removal.name)
        reason = f"its results are reused by {min(reusing)}" if reusing else None
    except StoreError as error:
        reason = str(error)
    if reason is not None:
        if content:
            store.backend.write(record, content)
        return reason
    for names in ([plan], rest):
        store.backend.remove(names)
    return None


def _reusing(reused: Mapping[str, Collection[str]], removals: Iterable[Removal]) -> dict[str, str]:
    # The runs to remove whose results a kept run reuses, each with that run.
    names = {removal.name for removal in removals}
    users = {run_id: sorted(set(reused.get(run_id, ())) - names) for run_id in names}
    return {run_id: kept[0] for run_id, kept in users.items() if kept}


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


def _leftovers(store: Store, files: Mapping[str, Sequence[Entry]], now: datetime) -> list[Removal]:
    # Remains of killed prunings: the files of runs without a record, if none of them is new.
    return [
        _removal(run_id, entries)
        for run_id, entries in files.items()
        if not any(entry.name.startswith("runs/") for entry in entries)
        and _old(entries, now)
        and _working(store, run_id) is None
    ]


def _old(entries: Iterable[Entry], now: datetime) -> bool:
    return max(entry.modified for entry in entries) < now.timestamp() - MIN_AGE


def _unnamed(store: Store, runs: Iterable[str], now: datetime) -> Sequence[Removal]:
    # The prepared corpora that no plan of these runs names, except new ones.
    corpora: dict[str, list[Entry]] = {}
    for entry in store.backend.list("prepared"):
        corpora.setdefault(entry.name.split("/")[1], []).append(entry)
    used = _corpora_in_plans(store, runs) if corpora else set()
    if used is None:
        return ()
    return [
        Removal(corpus_id, [entry.name for entry in entries], sum(entry.size for entry in entries))
        for corpus_id, entries in sorted(corpora.items())
        if corpus_id not in used and _old(entries, now)
    ]


def _corpora_in_plans(store: Store, runs: Iterable[str]) -> set[str] | None:
    # The corpora that the plans of runs name; None if a plan cannot be read, so that this is unknown.
    used: set[str] = set()
    for run_id in runs:
        try:
            used |= {row.corpus_id for row in store.plan(run_id)}
        except StoreError:
            return None
        except UsageError:
            continue  # it has rows and no plan
    return used
