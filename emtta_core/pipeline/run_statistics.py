"""The confidence intervals and tests of a run, computed when it ends from the utterances that count, and stored.

Each method has one row per domain, compared with source. For each group whose domains are all evaluated, it has one
row per preceding method, source first, so each pair of methods has one. A row records the revision of the facts it was
computed from: once a method has been evaluated further, everything is recomputed, and until then the view `statistics`
leaves out its rows.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import combinations
from typing import Any

from emtta_core.scoring.bootstrap import CONFIDENCE
from emtta_core.scoring.paired import Change, Rate, Sample
from emtta_core.scoring.significance import holm
from emtta_core.store import Catalogue, StatisticsRow, Store

log = logging.getLogger("emtta.pipeline")

SOURCE = "source"
"""The method with which every other is compared."""

Utterance = Mapping[str, Any]
"""A row of `_UTTERANCES`."""

_REVISIONS = "SELECT method, revision FROM revisions WHERE run_id = $run_id"
_STORED = "SELECT DISTINCT method, revision FROM raw.statistics WHERE run_id = $run_id AND scorer = $scorer"
_GROUPS = 'SELECT method, "group" FROM groups WHERE run_id = $run_id AND wer IS NOT NULL ORDER BY position'
# An utterance's errors are averaged over the method's seeds, as the seed is a source of chance like the utterance.
_UTTERANCES = """
    SELECT
        method,
        domains."group",
        domain,
        utterance_id,
        any_value(speaker) AS speaker,
        any_value(utterances.words) AS words,
        avg(utterances.errors) AS errors,
        any_value(normalizer) AS normalizer
    FROM utterances
    INNER JOIN domains USING (run_id, domain, method)
    WHERE run_id = $run_id AND utterances.words > 0 AND domains.wer IS NOT NULL
    GROUP BY method, domains."group", domain, utterance_id, domains.position
    ORDER BY domains.position, utterance_id
"""


def update_statistics(store: Store, run_id: str, scorer: str | None = None, catalogue: Catalogue | None = None) -> bool:
    """Compute and store the statistics of a run, unless those stored are up to date.

    Args:
        store: the run's store.
        run_id: the run.
        scorer: the scorer whose scores are used; by default the first of its suite.
        catalogue: a catalogue of the run by this scorer, if the caller has one open.

    Returns:
        Whether anything was computed.

    Raises:
        StoreError: the store cannot be read or written, or a file of the run, which the figures would lack, cannot be
            read.
        EmttaError: a DuckDB query fails.
    """
    scorer = scorer or store.run(run_id).scorers[0]
    with Catalogue(store, runs=[run_id], scorer=scorer) if catalogue is None else nullcontext(catalogue) as opened:

        def rows(sql: str, **more: str) -> list[tuple[Any, ...]]:
            return opened.query(sql, {"run_id": run_id, **more}).rows

        # The revisions are read before the facts: a change in between makes the figures stale, not wrong.
        revisions = dict(rows(_REVISIONS))
        stored = dict(rows(_STORED, scorer=scorer))
        if revisions and all(stored.get(method) == revision for method, revision in revisions.items()):
            return False
        utterances = opened.query(_UTTERANCES, {"run_id": run_id}).records
        groups: dict[str, list[str]] = {}
        for method, group in rows(_GROUPS):
            groups.setdefault(method, []).append(group)
        opened.check_all_read()
    found = [replace(row, scorer=scorer) for row in compute_statistics(utterances, groups, revisions)]
    if not found:
        return False
    store.write_statistics(run_id, scorer, found)
    return True


def compute_statistics(
    utterances: Sequence[Utterance], groups: Mapping[str, Sequence[str]], revisions: Mapping[str, str]
) -> Iterator[StatisticsRow]:
    """Yield the statistics of the methods of a run.

    Args:
        utterances: those without an error, in the plan's order: method, group, domain, utterance_id, speaker, words,
            errors (averaged over the method's seeds) and normalizer of each.
        groups: for each method, the groups whose domains are all evaluated; `all` for all domains.
        revisions: for each method, the revision of its facts.
    """
    by_method: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        by_method.setdefault(utterance["method"], []).append(utterance)
    group_of = {item["domain"]: item["group"] for item in utterances}
    # 1) each method alone, and each pair of methods, source first
    samples = {
        method: _sample(own, [(item["errors"], item["words"]) for item in own]) for method, own in by_method.items()
    }
    paired = {
        (a, b): _paired(a, by_method[a], b, by_method[b])
        for a, b in combinations(sorted(by_method, key=lambda method: method != SOURCE), 2)
    }
    # 2) in each domain, the methods against the source model
    for method, sample in samples.items():
        pair = paired.get((SOURCE, method))
        compared = pair.domains if pair else ()
        changes = _corrected([pair.change([name]) for name in compared] if pair else [])
        changes_by_domain = dict(zip(compared, changes, strict=True))
        for name in sample.domains:
            row = _row(method, group_of[name], name, revisions, sample.rate([name]))
            yield _compared(row, SOURCE, revisions, changes_by_domain[name]) if name in changes_by_domain else row
    # 3) in each group, each method against the preceding ones
    for group in dict.fromkeys(group for own in groups.values() for group in own):
        members = {
            method: [name for name in sample.domains if group in ("all", group_of[name])]
            for method, sample in samples.items()
            if group in groups.get(method, ())
        }
        differences = {
            (a, b): pair.change(members[b])
            for (a, b), pair in paired.items()
            if pair and members.get(a) and members.get(a) == members.get(b) and set(members[a]) <= set(pair.domains)
        }
        corrected = dict(zip(differences, _corrected(list(differences.values())), strict=True))
        for method, names in members.items():
            row = _row(method, group, None, revisions, samples[method].rate(names))
            if (SOURCE, method) not in differences:
                yield row
            for (a, b), change in differences.items():
                if b == method:
                    between = corrected[a, b]
                    row_between = _compared(row, a, revisions, change)
                    yield replace(row_between, p_between=between.p, p_sign_flip_between=between.p_sign_flip)


def _paired(a: str, utterances_a: Sequence[Utterance], b: str, utterances_b: Sequence[Utterance]) -> Sample | None:
    # The utterances that two methods share; None if there are none, or the two do not count the same words.
    known = {(item["domain"], item["utterance_id"]): item for item in utterances_a}
    pairs = []
    for utterance in utterances_b:
        other = known.get((utterance["domain"], utterance["utterance_id"]))
        if other is None:
            continue
        if (other["words"], other["normalizer"]) != (utterance["words"], utterance["normalizer"]):
            log.warning(
                "%s is not compared with %s: %s/%s was scored by %s over %s words and by %s over %s words",
                *(b, a, utterance["domain"], utterance["utterance_id"]),
                *(utterance["normalizer"], utterance["words"], other["normalizer"], other["words"]),
            )
            return None
        pairs.append((other, utterance))
    counts = [(before["errors"], after["errors"], after["words"]) for before, after in pairs]
    return _sample([after for _, after in pairs], counts) if pairs else None


def _row(method: str, group: str, domain: str | None, revisions: Mapping[str, str], rate: Rate) -> StatisticsRow:
    # The row of a method that is not compared with another.
    return StatisticsRow(
        method=method,
        group=group,
        domain=domain,
        revision=revisions[method],
        utterances=rate.utterances,
        units=rate.units,
        drawn=rate.drawn,
        note=rate.note,
        wer=rate.wer,
        wer_low=rate.low,
        wer_high=rate.high,
        confidence=CONFIDENCE,
    )


def _compared(row: StatisticsRow, baseline: str, revisions: Mapping[str, str], change: Change) -> StatisticsRow:
    return replace(
        row,
        baseline=baseline,
        baseline_revision=revisions[baseline],
        pairs=change.utterances,
        note=change.note,
        baseline_wer=change.wer_a,
        change=change.difference,
        change_low=change.low,
        change_high=change.high,
        p=change.p,
        p_sign_flip=change.p_sign_flip,
        wins=change.wins,
        ties=change.ties,
        losses=change.losses,
    )


def _corrected(changes: Sequence[Change]) -> list[Change]:
    # The changes, with both p-values corrected over them as one family.
    both = zip(*(holm([getattr(change, name) for change in changes]) for name in ("p", "p_sign_flip")), strict=True)
    return [replace(one, p=float(p), p_sign_flip=float(flip)) for one, (p, flip) in zip(changes, both, strict=True)]


def _sample(utterances: Sequence[Utterance], counts: Sequence[Sequence[float]]) -> Sample:
    return Sample(
        [item["domain"] for item in utterances],
        [item["utterance_id"] for item in utterances],
        [item["speaker"] for item in utterances],
        counts,
    )
