"""The duration of a run is estimated from how long the same work took before, per utterance."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import CLEAN, Command, Speech, SuiteFile
from store_factory import begin_run, end_attempt, with_errors, write_shard

from emtta_core.pipeline.plan import Cell
from emtta_core.pipeline.state import forecast
from emtta_core.store import CellKey, Store
from emtta_core.suite import Suite, parse_suite

DOMAINS = "\n".join(
    f'[[domains]]\nname = "{name}"\ngroup = "g"\ncorpus = {{ name = "synthetic", language = "en" }}' for name in "ab"
)


def suite_of(options: str = "", methods: str = '["source", "em-tok"]', model: str = 'name = "demo"') -> Suite:
    return parse_suite(
        f'name = "test"\nmethods = {methods}\nmodel = {{ {model} }}\n{options}\n{DOMAINS}', origin="here"
    )


def ran(store: Store, run_id: str, suite: Suite, seconds: Mapping[tuple[str, str], float], day: int = 1) -> None:
    """Write a run with two utterances per cell (domain, method), each taking the given seconds."""
    begin_run(
        store,
        run_id,
        [("g", domain, method) for domain, method in seconds],
        created_at=datetime(2026, 11, day, tzinfo=UTC),
        suite_toml=suite.to_toml(),
    )
    for (domain, method), each in seconds.items():
        key = CellKey(run_id, domain, method)
        store.begin_attempt(key)
        write_shard(store, key, {"u": [with_errors(1)], "v": [with_errors(0)]}, seconds=each)
        end_attempt(store, key, group="g")


def cells(*names: str, utterances: int = 10) -> dict[Cell, int]:
    found = [name.split("/") for name in names]
    return {Cell(domain, "g", method, "id", "corpus", "recipe", utterances): utterances for domain, method in found}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


def test_new_domain_uses_mean_pace(store: Store) -> None:
    ran(store, "before", suite_of(), {("a", "em-tok"): 2.0, ("b", "em-tok"): 4.0, ("a", "source"): 0.5})
    found = forecast(store, suite_of(), cells("a/em-tok", "b/em-tok", "a/source"))
    assert found.seconds == pytest.approx(10 * (2.0 + 4.0 + 0.5))
    assert forecast(store, suite_of(), cells("new/em-tok")).seconds == pytest.approx(10 * 3.0)
    assert found.unknown == ()
    assert (found.paces["em-tok"].run_id, found.paces["em-tok"].device) == ("before", "cpu")


def test_newest_run_of_same_method_counts(store: Store) -> None:
    ran(store, "old", suite_of(), {("a", "em-tok"): 9.0, ("a", "source"): 1.0}, day=1)
    ran(store, "new", suite_of(), {("a", "em-tok"): 2.0}, day=2)
    found = forecast(store, suite_of(), cells("a/em-tok", "a/source"))
    assert {name: pace.run_id for name, pace in found.paces.items()} == {"em-tok": "new", "source": "old"}
    assert found.seconds == pytest.approx(10 * (2.0 + 1.0))


@pytest.mark.parametrize(
    ("other", "the_same_work"),
    [
        (suite_of("adaptation = { learning_rate = 0.01 }\nseeds = [5]"), True),
        (suite_of("adaptation = { steps = 3 }"), False),
        (suite_of("adaptation = { candidates = 4 }"), False),
        (suite_of(model='name = "demo", precision = "float64"'), False),
        (suite_of(model='name = "openai/whisper-base"'), False),
    ],
)
def test_only_same_work_predicts(store: Store, other: Suite, the_same_work: bool) -> None:
    ran(store, "before", other, {("a", "em-tok"): 2.0})
    found = forecast(store, suite_of(), cells("a/em-tok"))
    assert (found.unknown == ()) is the_same_work
    assert found.seconds == pytest.approx(20.0 if the_same_work else 0.0)


def test_renamed_method_is_recognised(store: Store) -> None:
    mine = suite_of(methods='[{ name = "mine", base = "em-tok", adaptation = { learning_rate = 0.01 } }]')
    ran(store, "before", mine, {("a", "mine"): 2.0})
    assert forecast(store, suite_of(), cells("a/em-tok")).seconds == pytest.approx(20.0)


def test_unreadable_record_is_ignored(store: Store) -> None:
    ran(store, "before", suite_of(), {("a", "em-tok"): 2.0}, day=1)
    begin_run(store, "of-another-release", [("g", "a", "em-tok")], suite_toml="name = 1")
    assert forecast(store, suite_of(), cells("a/em-tok")).paces["em-tok"].run_id == "before"


def test_no_store_means_no_forecast() -> None:
    assert forecast(None, suite_of(), cells("a/em-tok", "a/source")).unknown == ("em-tok", "source")


def test_dry_run_forecasts_from_earlier_run(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str
) -> None:
    path, store = suite_file(CLEAN), tmp_path / "store"
    before = emtta("run", path, "--store", store, "--dry-run")
    assert "no earlier run shows how long source, em-tok-b will take; one with --limit 20 would" in before.err
    assert emtta("run", path, "--store", store, "--limit", 1, "--only", "method=source", "--run-id", "few").code == 0
    after = emtta("run", path, "--store", store, "--dry-run")
    assert "adaptation: about 0:0" in after.err
    assert "with one worker, at the pace of few (cpu)" in after.err
    assert "no earlier run shows how long em-tok-b will take" in after.err
    assert "one worker" in emtta("rerun", "few", "--store", store, "--force", "--method", "source", "--dry-run").err
