"""A corruption's cost is reported relative to the same speech without it, and to its cost for the source model."""

from dataclasses import replace
from pathlib import Path

import pytest
from store_factory import begin_run, with_errors, write_shard

from emtta_core.store import Catalogue, CellKey, PreparedRow, Store

ERRORS = {"clean": {"source": 1, "em-tok-b": 1}, "rain": {"source": 3, "em-tok-b": 2}, "wales": {"source": 2}}


def prepared(index: int, corruption: str | None, text: str = "red green blue river") -> PreparedRow:
    return PreparedRow(
        utterance_id=f"u{index}",
        audio=None,
        text=text,
        language="en",
        speaker="s",
        seconds=1.0,
        corruption=corruption,
        snr_db=5.0 if corruption else None,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store", create=True)
    cells = [("g", domain, method) for domain, methods in ERRORS.items() for method in methods]
    begin_run(store, "run", cells)
    for domain, methods in ERRORS.items():
        corruption = None if domain == "clean" else "noise"
        text = "other words" if domain == "wales" else "red green blue river"
        store.write_prepared(f"corpus-{domain}", 0, [prepared(index, corruption, text) for index in range(2)])
        for method, errors in methods.items():
            write_shard(
                store, CellKey("run", domain, method), {"u0": [with_errors(errors)], "u1": [with_errors(errors)]}
            )
    return store


def test_degradation_is_relative_to_clean(store: Store) -> None:
    rows = {(row["domain"], row["method"]): row for row in Catalogue(store).report("robustness").records}
    assert ("clean", "source") not in rows
    source, adapted = rows["rain", "source"], rows["rain", "em-tok-b"]
    assert (source["clean"], source["wer"], source["clean_wer"], source["werd"], source["nwerd"]) == (
        *("clean", 75.0, 25.0, 50.0),
        1.0,
    )
    assert (adapted["werd"], adapted["source_werd"], adapted["nwerd"]) == (25.0, 50.0, 0.5)
    assert [row["method"] for row in Catalogue(store).report("robustness", method="em-tok-b").records] == ["em-tok-b"]
    assert Catalogue(store).report("robustness", method="em-tok-b").records[0]["nwerd"] == 0.5


def test_degradation_needs_clean_domain(store: Store) -> None:
    rows = {(row["domain"], row["method"]): row for row in Catalogue(store).report("robustness").records}
    found = rows["wales", "source"]
    assert (found["clean"], found["werd"], found["nwerd"]) == (None, None, None)
    assert found["reason_hidden"] == "the run has no domain of the same utterances without a corruption"


def test_incomplete_clean_hides_degradation(store: Store) -> None:
    plan = store.plan("run")
    store.write_plan("run", [replace(row, utterances=3) if row.domain == "clean" else row for row in plan])
    rows = {(row["domain"], row["method"]): row for row in Catalogue(store).report("robustness").records}
    found = rows["rain", "source"]
    assert (found["werd"], found["reason_hidden"]) == (None, "clean is partial")
