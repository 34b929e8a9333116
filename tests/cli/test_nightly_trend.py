"""A night reports a trend over the last nights in its state, its message and its artifact."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Speech, SuiteFile
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import State

from emtta_core.pipeline.events import channel
from emtta_core.scoring import word_errors
from emtta_core.store import CellKey, Store
from flows.nightly import nightly

SURE: Mapping[str, Any] = {"alpha": 1e-9, "trend_nights": 5, "trend_threshold": 0.9}
"""No night is worse than the last, but two that are worse than three perfect ones make a trend."""


def night(path: Path, store: Path, **parameters: Any) -> State[Any]:
    with channel.listening(lambda _: None):
        return nightly(str(path), str(store), return_state=True, **parameters)


def comparison(state: State[Any]) -> str:
    """Return a night's artifact with the comparison and the trends."""
    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=chosen)
    return next(str(one.data) for one in found if one.key == "comparison-drift")


def perfect(store: Store, like: str, number: int) -> None:
    """Write a run before the run `like`, with the same plan, in which each hypothesis is the reference."""
    run_id, row = f"perfect-{number}", store.run(like)
    store.write_plan(run_id, store.plan(like))
    store.write_run(run_id, replace(row, created_at=row.created_at - timedelta(days=number)))
    for cell in store.plan(like):
        key = CellKey(run_id, cell.domain, cell.method)
        done = store.done(CellKey(like, cell.domain, cell.method), cell.cell_id)
        for shard, found in enumerate(done.values()):
            reference = found.hypothesis.reference
            count = word_errors(reference, reference, found.hypothesis.language)
            assert found.score is not None
            score = replace(found.score, hits=count.hits, substitutions=0, deletions=0, insertions=0)
            store.write_hypotheses(key, 1, shard, [replace(found.hypothesis, hypothesis=reference)])
            store.write_scores(key, 1, shard, [score])


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_trend_fails_only_first_night(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    path, location = suite_file(methods=("source",)), tmp_path / "store"
    # Its own suite name separates its events from those of other tests.
    path.write_text(path.read_text().replace('name = "tiny"', 'name = "drift"'))
    first = night(path, location)
    assert first.is_completed(), first.message
    assert "trend watch: too few, 1 of 10 nights with the same speech" in str(first.message)
    store = Store.open(location)
    (run,) = store.runs()
    for number in range(1, 4):
        perfect(store, run, number)

    worse = night(path, location, **SURE)
    assert (worse.name, worse.is_failed()) == ("Regressed", True)
    assert "0 worse and 0 better" in str(worse.message)
    assert "trend watch: source: getting worse, +" in str(worse.message)
    assert "## Trend" in comparison(worse)
    assert "source: getting worse" in comparison(worse)

    lasting = night(path, location, **SURE)
    assert lasting.is_completed(), lasting.message
    assert "trend watch: source: getting worse, +" in str(lasting.message)
    assert f"WARNING prefect.flow_runs {run}: trend watch" in (location / "logs" / f"{run}-3.log").read_text()
