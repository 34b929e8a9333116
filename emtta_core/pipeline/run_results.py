"""The figures of a run as one JSON document, `results.json`, whose schema is `docs/results.schema.json`.

The document depends only on the run, not on when it was made, so an unchanged one is not written again.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any, Literal

from emtta_core.store import Catalogue, Store
from emtta_core.store.describe import cautions_of, notices_of
from emtta_core.store.result import Result

log = logging.getLogger("emtta.pipeline")

Row = Mapping[str, Any]
"""A row of a view or report, by column; `sql/schema.md` describes the columns."""

View = Literal["domains", "groups"]
"""The views that have statistics."""

RESULTS: Literal["results.json"] = "results.json"
"""Suffix of the document's file name, in the store and in an export."""

FORMAT = 1
"""The version of the document's format; incremented by breaking changes."""

_RUN = (
    *("suite", "created_at", "state", "model", "model_revision", "model_digest", "algorithm_version", "plan_id"),
    *("git_commit", "host"),
)
_COUNTS = ("cells", "complete", "planned", "done", "in_error", "reused")
_WHERE = ("method", "group", "domain")
_FIGURES = (
    *("planned", "done", "in_error", "utterances", "pairs", "units", "drawn", "words", "errors"),
    *("wer", "wer_low", "wer_high", "confidence", "pooled_wer", "cer", "substitution_rate", "deletion_rate"),
    *("insertion_rate", "sentence_error_rate", "over_100_rate", "insertion_run_rate", "loop_rate"),
    *("insertions_per_minute", "seeds", "wer_by_seed", "wer_seed_sd", "source_wer", "change", "change_low"),
    *("change_high", "change_percent", "p", "p_sign_flip", "wins", "ties", "losses", "note", "reason_hidden"),
)
_PAIR = (
    *("group", "method", "baseline", "pairs", "wer", "baseline_wer", "change", "change_low", "change_high", "p"),
    *("p_sign_flip", "verdict", "wins", "ties", "losses", "confidence", "note"),
)

_SCORED = """
    SELECT any_value(planned.scorer), any_value(planned.counts_errors),
        coalesce(list_sort(list(DISTINCT normalizer) FILTER (normalizer IS NOT NULL)), [])
    FROM planned
    LEFT JOIN utterances USING (run_id, domain, method, cell_id)
    WHERE run_id = $run
"""

# The columns of `cells` or `groups`, followed by those of `statistics`: `wer_low` to `confidence` are NULL without
# statistics, and the change is then that over all utterances of the two cells.
_COMPARED = """
    SELECT
        figures.* EXCLUDE (change_percent),
        CASE
            WHEN tested.method IS NOT NULL THEN tested.change
            WHEN figures.method <> 'source' THEN figures.wer - figures.source_wer
        END AS change,
        CASE
            WHEN tested.method IS NOT NULL THEN tested.change_percent
            WHEN figures.method <> 'source' THEN figures.change_percent
        END AS change_percent,
        tested.* EXCLUDE (run_id, method, "group", domain, wer, source_wer, change, change_percent)
    FROM {view} AS figures
    LEFT JOIN statistics AS tested
        ON figures.run_id = tested.run_id
        AND figures.method = tested.method
        AND figures."group" = tested."group"
        AND tested.domain IS NOT DISTINCT FROM {domain}
        AND figures.wer IS NOT NULL
    WHERE figures.run_id = $run
    ORDER BY figures.position
"""


def compared(catalogue: Catalogue, run_id: str, view: View) -> Result:
    """The rows of a view for a run, in its order, each with its statistics: interval, change and test."""
    domain = "figures.domain" if view == "domains" else "NULL"
    return catalogue.query(_COMPARED.format(view=view, domain=domain), {"run": run_id})


def results_of(catalogue: Catalogue, run_id: str) -> dict[str, Any]:
    """The figures of a run by the catalogue's scorer, in the form of `docs/results.schema.json`.

    Raises:
        EmttaError: DuckDB fails a query.
    """
    (run,) = _plain(catalogue.query("FROM runs WHERE run_id = $run", {"run": run_id}))
    ((scorer, counts_errors, normalizers),) = catalogue.query(_SCORED, {"run": run_id}).rows
    pairs = 'FROM method_pairs WHERE run_id = $run ORDER BY "group" <> \'all\', "group", method, baseline'
    return {
        "format": FORMAT,
        "run": {"id": run_id, **_chosen(run, _RUN), "versions": _versions(run["versions"])},
        "scoring": {"scorer": scorer, "normalizers": normalizers, "errors": "delete" if counts_errors else "exclude"},
        "counts": _chosen(run, _COUNTS),
        "groups": _figures(catalogue, run_id, "groups"),
        "domains": _figures(catalogue, run_id, "domains"),
        "pairs": [_chosen(row, _PAIR) for row in _plain(catalogue.query(pairs, {"run": run_id}))],
        "notices": list(notices_of(catalogue, run_id)),
        "cautions": list(cautions_of(catalogue, run_id)),
    }


def results_text(catalogue: Catalogue, run_id: str) -> str:
    """The document of `results_of`, as text."""
    return json.dumps(results_of(catalogue, run_id), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def has_results(store: Store, run_id: str) -> bool:
    """Whether the results of a run are stored beside its log."""
    return store.backend.exists(f"logs/{run_id}.{RESULTS}")


def finalize_results(catalogue: Catalogue, run_id: str) -> None:
    """Write the results of a run beside its log unless they are up to date; errors are only logged."""
    store = catalogue.store
    try:
        catalogue.cache_rows()
        text = results_text(catalogue, run_id)
        catalogue.check_all_read()
        store.write_next_to_log(run_id, RESULTS, text)
    except Exception:
        command = store.command("export", run_id, "--format", "results-json", "--out", "DIR")
        log.warning(
            "the results.json of run %s could not be written; write it with: %s", run_id, command, exc_info=True
        )


def _figures(catalogue: Catalogue, run_id: str, view: View) -> list[dict[str, Any]]:
    where = _WHERE if view == "domains" else _WHERE[:2]
    return [_chosen(row, where) | _chosen(row, _FIGURES) for row in _plain(compared(catalogue, run_id, view))]


def _chosen(row: Row, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}


def _plain(found: Result) -> list[dict[str, Any]]:
    # The rows as JSON values, rounded: the last digits of a mean depend on the order in which threads summed it.
    rows: list[dict[str, Any]] = json.loads(found.json(), parse_float=lambda text: float(f"{float(text):.12g}"))
    return rows


def _versions(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):  # a damaged record
        return {}
