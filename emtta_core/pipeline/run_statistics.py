"""How sure the figures of a run are: computed when it ends, from the utterances that count, and stored beside them.

Each method has a row a domain and a row a group of which every domain is there. A row says of which facts it was
computed: where a method was evaluated further since, all is computed anew, and the view `statistics` leaves its rows
out until then.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from emtta_core.scoring.bootstrap import CONFIDENCE
from emtta_core.scoring.paired import Change, Sample
from emtta_core.scoring.significance import holm
from emtta_core.store import Catalogue, StatisticsRow, Store

log = logging.getLogger("emtta.pipeline")

SOURCE = "source"
"""The method with which each other is compared."""

Utterance = Mapping[str, Any]
"""A row of `_UTTERANCES`."""

_REVISIONS = "SELECT method, revision FROM revisions WHERE run_id = $run_id"
_STORED = "SELECT DISTINCT method, revision FROM raw.statistics WHERE run_id = $run_id"
_GROUPS = 'SELECT method, "group" FROM groups WHERE run_id = $run_id AND wer IS NOT NULL ORDER BY position'
_UTTERANCES = """
    SELECT method, cells."group", domain, utterance_id, speaker, utterances.words, utterances.errors, normalizer
    FROM utterances
    INNER JOIN cells USING (run_id, domain, method)
    WHERE run_id = $run_id AND utterances.error IS NULL AND cells.reason_hidden IS NULL
    ORDER BY cells.position, utterance_id
"""


def settle_statistics(store: Store, run_id: str) -> None:
    """See that the statistics of a run are there and those of its present facts; what goes wrong is logged alone."""
    try:
        update_statistics(store, run_id)
    except Exception:
        log.warning("the statistics of run %s could not be computed; its results are all there", run_id, exc_info=True)


def update_statistics(store: Store, run_id: str) -> bool:
    """Compute and store the statistics of a run, unless they are there and those of its present facts.

    Returns:
        Whether there was something to compute.

    Raises:
        StoreError: the store cannot be read or written, or a file of the run cannot, which the figures would lack.
        EmttaError: DuckDB fails a query.
    """
    with Catalogue(store, run_id=run_id) as catalogue:

        def rows(sql: str) -> list[tuple[Any, ...]]:
            return catalogue.query(sql, {"run_id": run_id}).rows

        revisions = dict(
            rows(_REVISIONS)
        )  # before the facts: what changes meanwhile makes the figures stale, not wrong
        stored = dict(rows(_STORED))
        if revisions and all(stored.get(method) == revision for method, revision in revisions.items()):
            return False
        utterances = catalogue.query(_UTTERANCES, {"run_id": run_id}).records
        groups: dict[str, list[str]] = {}
        for method, group in rows(_GROUPS):
            groups.setdefault(method, []).append(group)
        catalogue.check_all_read()
    found = list(compute_statistics(utterances, groups, revisions))
    if not found:
        return False
    store.write_statistics(run_id, found)
    return True


def compute_statistics(
    utterances: Sequence[Utterance], groups: Mapping[str, Sequence[str]], revisions: Mapping[str, str]
) -> Iterator[StatisticsRow]:
    """Yield the statistics of the methods of a run.

    Args:
        utterances: those without an error, in the plan's order: method, group, domain, utterance_id, speaker, words,
            errors and normalizer of each.
        groups: of each method, the groups of which every domain is there; `all` for all domains.
        revisions: of each method, the state of the facts.
    """
    by_method: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        by_method.setdefault(utterance["method"], []).append(utterance)
    source = {(item["domain"], item["utterance_id"]): item for item in by_method.get(SOURCE, ())}
    for method, own in by_method.items():
        pairs = [] if method == SOURCE else _pairs(method, own, source)
        with_source = set(groups.get(method, ())) & set(groups.get(SOURCE, ()))
        yield from _Method(method, revisions[method], own, pairs).rows(groups.get(method, ()), with_source)


def _pairs(
    method: str, own: Sequence[Utterance], source: Mapping[tuple[str, str], Utterance]
) -> list[tuple[Utterance, Utterance]]:
    # The utterances of a method beside those of source; none where the two do not count the same words.
    pairs = []
    for utterance in own:
        other = source.get((utterance["domain"], utterance["utterance_id"]))
        if other is None:
            continue
        if (other["words"], other["normalizer"]) != (utterance["words"], utterance["normalizer"]):
            log.warning(
                "%s is not compared with %s: %s/%s was scored by %s over %s words and by %s over %s words",
                *(method, SOURCE, utterance["domain"], utterance["utterance_id"]),
                *(utterance["normalizer"], utterance["words"], other["normalizer"], other["words"]),
            )
            return []
        pairs.append((other, utterance))
    return pairs


@dataclass(slots=True)
class _Method:
    """A method of a run, and its utterances beside those of source."""

    method: str
    revision: str
    own: Sequence[Utterance]
    pairs: Sequence[tuple[Utterance, Utterance]]
    alone: Sample = field(init=False)
    paired: Sample | None = field(init=False)

    def __post_init__(self) -> None:
        self.alone = _sample(self.own, [(item["errors"], item["words"]) for item in self.own])
        counts = [(before["errors"], after["errors"], after["words"]) for before, after in self.pairs]
        self.paired = _sample([after for _, after in self.pairs], counts) if self.pairs else None

    def rows(self, groups: Sequence[str], with_source: set[str]) -> Iterator[StatisticsRow]:
        # A row a domain, and a row for each of the groups; those not `with_source` without a change.
        group_of = {item["domain"]: item["group"] for item in self.own}
        compared = self.paired.domains if self.paired is not None else ()
        single = {name: self._change([name]) for name in compared}
        corrected = dict(zip(single, _corrected(list(single.values())), strict=True))
        for name in self.alone.domains:
            yield self._row(group_of[name], name, [name], corrected.get(name))
        for group in groups:
            members = [name for name in self.alone.domains if group in ("all", group_of[name])]
            whole = group in with_source and set(members) <= set(compared)
            yield self._row(group, None, members, self._change(members) if whole else None)

    def _change(self, domains: Sequence[str]) -> Change:
        assert self.paired is not None
        return self.paired.change(domains)

    def _row(self, group: str, domain: str | None, members: Sequence[str], change: Change | None) -> StatisticsRow:
        rate = self.alone.rate(members)
        source_wer = rate.wer if self.method == SOURCE else None
        return StatisticsRow(
            method=self.method,
            group=group,
            domain=domain,
            revision=self.revision,
            utterances=rate.utterances,
            pairs=change.utterances if change else None,
            units=rate.units,
            drawn=rate.drawn,
            note=change.note if change else rate.note,
            wer=rate.wer,
            wer_low=rate.low,
            wer_high=rate.high,
            source_wer=change.wer_a if change else source_wer,
            change=change.difference if change else None,
            change_low=change.low if change else None,
            change_high=change.high if change else None,
            p=change.p if change else None,
            p_sign_flip=change.p_sign_flip if change else None,
            wins=change.wins if change else None,
            ties=change.ties if change else None,
            losses=change.losses if change else None,
            confidence=CONFIDENCE,
        )


def _corrected(changes: Sequence[Change]) -> list[Change]:
    # Changes with both p corrected over them as a family.
    both = zip(*(holm([getattr(change, name) for change in changes]) for name in ("p", "p_sign_flip")), strict=True)
    return [replace(one, p=float(p), p_sign_flip=float(flip)) for one, (p, flip) in zip(changes, both, strict=True)]


def _sample(utterances: Sequence[Utterance], counts: Sequence[Sequence[float]]) -> Sample:
    return Sample(
        [item["domain"] for item in utterances],
        [item["utterance_id"] for item in utterances],
        [item["speaker"] for item in utterances],
        counts,
    )
