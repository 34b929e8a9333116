"""A method's figure is the mean over its seeds, with their spread, everywhere it is shown."""

import io
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from rich.console import Console
from store_factory import begin_run, end_attempt, one_run, with_errors, write_shard

from emtta_core.compare import compare
from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.report import make_page
from emtta_core.store import Catalogue, CellKey, Store
from emtta_core.store.compaction import compact
from emtta_core.store.export import export
from emtta_core.store.integrity import check_store
from emtta_core.store.pruning import Keep, plan_pruning, prune
from emtta_core.store.snapshot import run_of

# Word errors in two utterances of four words each: by domain, and for em-tok also by seed.
SOURCE = {("noise", "vacuum"): (2, 2), ("noise", "babble"): (4, 4), ("accent", "scotland"): (1, 0)}
SAMPLED = {
    ("noise", "vacuum"): {0: (1, 1), 1: (2, 1), 5: (0, 0)},
    ("noise", "babble"): {0: (4, 3), 1: (4, 4), 5: (4, 2)},
    ("accent", "scotland"): {0: (1, 0), 1: (0, 0), 5: (1, 1)},
}
SEEDS = (0, 1, 5)


def fill(store: Store, run_id: str = "run", seeds: tuple[int, ...] = SEEDS, left_out: tuple[CellKey, ...] = ()) -> None:
    """Write a run without the cells in `left_out`."""
    cells = [cell for where in SOURCE for cell in ((*where, "source"), *((*where, "em-tok", seed) for seed in seeds))]
    begin_run(store, run_id, cells)
    for group, domain, method, *seed in cells:
        key = CellKey(run_id, domain, method, *seed)
        if key in left_out:
            continue
        before = SOURCE[group, domain]
        after = SAMPLED[group, domain][seed[0]] if seed else before
        states = {f"u{i}": [with_errors(n) for n in pair] for i, pair in enumerate(zip(before, after, strict=True))}
        write_shard(store, key, states, attempt=store.begin_attempt(key))
        end_attempt(store, key, group=group)


def rates(seed: int, group: str | None = None) -> list[float]:
    """The WER of em-tok with one seed in each domain of a group, in percent."""
    return [100 * sum(own[seed]) / 8 for (of, _), own in SAMPLED.items() if group in (None, of)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(tmp_path_factory.mktemp("whole"), create=True)
    fill(store)
    update_statistics(store, "run")
    return store


@pytest.fixture(scope="module")
def catalogue(whole: Store) -> Iterator[Catalogue]:
    with Catalogue(whole) as catalogue:
        catalogue.cache_rows()
        yield catalogue


@pytest.fixture
def store(whole: Store, tmp_path: Path) -> Store:
    """A copy of `whole` that a test may change."""
    return copy_of(whole, tmp_path / "store")


@pytest.fixture(scope="module")
def both(whole: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A copy of `whole` with another run, `one`, which has a single seed."""
    store = copy_of(whole, tmp_path_factory.mktemp("both") / "store")
    fill(store, "one", seeds=(0,))
    return store


def copy_of(store: Store, folder: Path) -> Store:
    shutil.copytree(store.location, folder)
    return Store.open(folder)


def rows(store: Store, sql: str) -> list[tuple[object, ...]]:
    with Catalogue(store) as catalogue:
        return catalogue.query(sql).rows


def test_domain_wer_is_mean_over_seeds(catalogue: Catalogue) -> None:
    columns = "wer, wer_seed_sd, seeds, wer_by_seed, state"
    rows = catalogue.query(f"SELECT domain, {columns} FROM domains WHERE seeds > 0").rows
    found = {domain: rest for domain, *rest in rows}
    for (_, domain), by_seed in SAMPLED.items():
        wers = [100 * sum(by_seed[seed]) / 8 for seed in SEEDS]
        mean, spread = pytest.approx(statistics.mean(wers)), pytest.approx(statistics.stdev(wers))
        assert found[domain] == [mean, spread, 3, wers, "complete"]
    plain = catalogue.query("SELECT domain, wer, wer_seed_sd, seeds FROM domains WHERE seeds = 0 ORDER BY position")
    assert plain.rows == [("vacuum", 50.0, None, 0), ("babble", 100.0, None, 0), ("scotland", 12.5, None, 0)]
    assert catalogue.query("SELECT count(*), count(seed) FROM cells").rows == [(12, 9)]


@pytest.mark.parametrize(("group", "of"), [("noise", "noise"), ("accent", "accent"), ("all", None)])
def test_group_wer_is_mean_over_seeds(group: str, of: str | None, catalogue: Catalogue) -> None:
    means = [statistics.mean(rates(seed, of)) for seed in SEEDS]
    (found,) = (row for row in catalogue.report("seeds").records if row["group"] == group)
    board = {(row["method"], row["group"]): row for row in catalogue.report("leaderboard").records}
    assert (found["seeds"], found["wer_by_seed"]) == ([0, 1, 5], pytest.approx(means))
    assert (found["lowest"], found["highest"]) == (pytest.approx(min(means)), pytest.approx(max(means)))
    for row in (found, board["em-tok", group]):
        assert row["wer"] == pytest.approx(statistics.mean(means))
        assert row["wer_seed_sd"] == pytest.approx(statistics.stdev(means))


def test_every_report_has_method_once(catalogue: Catalogue) -> None:
    mean = pytest.approx(statistics.mean([statistics.mean(rates(seed)) for seed in SEEDS]))
    assert [row["all"] for row in catalogue.report("methods").records if row["method"] == "em-tok"] == [mean]
    assert [row["domain"] for row in catalogue.report("matrix").records] == ["vacuum", "babble", "scotland"]
    last = [row for row in catalogue.report("steps").records if row["method"] == "em-tok" and row["step"] == 1]
    assert [(row["wer"], row["domains"], row["planned"], row["utterances"]) for row in last] == [(mean, 3, 3, 18)]
    errors = {row["method"]: row for row in catalogue.report("groups").records if row["group"] == "all"}
    assert (errors["em-tok"]["lower"], errors["em-tok"]["equal"], errors["em-tok"]["higher"]) == (2, 1, 0)
    speed = {row["method"]: row["utterances"] for row in catalogue.report("speed").records}
    assert speed == {"source": 6, "em-tok": 18}


def test_source_errors_count_once_per_seed(catalogue: Catalogue) -> None:
    found = catalogue.report("errors", method="em-tok", domain="babble", limit=20).records
    assert sum(row["count"] for row in found) == sum(sum(errors) for errors in SAMPLED["noise", "babble"].values())
    assert sum(row["source_count"] for row in found) == 3 * sum(SOURCE["noise", "babble"])


def test_mean_needs_all_seeds(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "partial", create=True)
    fill(store, left_out=(CellKey("run", "vacuum", "em-tok", 1),))
    update_statistics(store, "run")
    query = "SELECT state, wer, wer_by_seed, reason_hidden FROM domains WHERE method = 'em-tok' AND domain = 'vacuum'"
    assert rows(store, query) == [("partial", None, None, "1 of 3 seeds incomplete")]
    hidden = "SELECT \"group\" FROM groups WHERE wer IS NULL AND method = 'em-tok' ORDER BY ALL"
    assert rows(store, hidden) == [("all",), ("noise",)]
    tested = "SELECT DISTINCT domain FROM statistics WHERE method = 'em-tok' AND domain IS NOT NULL ORDER BY ALL"
    assert rows(store, tested) == [("babble",), ("scotland",)]
    with Catalogue(store) as catalogue:
        (failure,) = catalogue.report("failures").records
    assert (failure["domain"], failure["method"], failure["seed"], failure["state"]) == (
        "vacuum",
        "em-tok",
        1,
        "missing",
    )


def test_statistics_use_mean_errors(catalogue: Catalogue) -> None:
    columns = "utterances, wer, change, wins, ties, losses"
    query = f"SELECT domain, {columns} FROM statistics WHERE method = 'em-tok' AND domain IS NOT NULL"
    found = {domain: rest for domain, *rest in catalogue.query(query).rows}
    for where, by_seed in SAMPLED.items():
        means = [statistics.mean(errors) for errors in zip(*by_seed.values(), strict=True)]
        added = [mean - source for mean, source in zip(means, SOURCE[where], strict=True)]
        wer, change = pytest.approx(100 * sum(means) / 8), pytest.approx(100 * sum(added) / 8)
        signs = [sum(one < 0 for one in added), sum(one == 0 for one in added), sum(one > 0 for one in added)]
        assert found[where[1]] == [2, wer, change, *signs]


FIGURES = "SELECT run_id, domain, method, wer, wer_by_seed, done FROM domains ORDER BY ALL"
UTTERANCES = "SELECT domain, method, seed, cell_id, utterance_id, attempt, errors FROM utterances ORDER BY ALL"


def test_packs_keep_seeds_apart(store: Store) -> None:
    key = CellKey("run", "vacuum", "em-tok", 1)
    figures, utterances = rows(store, FIGURES), rows(store, UTTERANCES)
    steps, done = rows(store, "SELECT * FROM steps ORDER BY ALL"), store.done(key, "vacuum.em-tok.1")
    assert compact(store, "run").needed
    assert (rows(store, FIGURES), rows(store, UTTERANCES)) == (figures, utterances)
    assert (rows(store, "SELECT * FROM steps ORDER BY ALL"), store.done(key, "vacuum.em-tok.1")) == (steps, done)
    assert len(store.cells(key)) == 1
    assert store.begin_attempt(key) == 2
    write_shard(store, key, {"u0": [with_errors(2), with_errors(3)]}, attempt=2)
    (changed,) = rows(store, "SELECT wer_by_seed FROM domains WHERE domain = 'vacuum' AND method = 'em-tok'")
    assert changed == ([25.0, 50.0, 0.0],)


@pytest.mark.parametrize("copied", [False, True])
def test_export_has_same_figures(copied: bool, whole: Store, catalogue: Catalogue, tmp_path: Path) -> None:
    export(whole, tmp_path / "x.duckdb", copy=copied)
    with duckdb.connect(str(tmp_path / "x.duckdb"), read_only=True) as connection:
        assert connection.execute(FIGURES).fetchall() == catalogue.query(FIGURES).rows


def test_pruning_leaves_no_seed_behind(store: Store) -> None:
    one_run(store, "the-newest")
    assert not check_store(store).faults
    prune(store, plan_pruning(store, Keep(newest=1)))
    tables = ("hypotheses", "scores", "steps", "cells", "plans", "statistics")
    left = {run_of(entry.name) for table in tables for entry in store.backend.list(table)}
    assert left == {"the-newest"}


def test_spread_needs_several_seeds(both: Store) -> None:
    def shown(report: str, run: str) -> str:
        screen = io.StringIO()
        Console(file=screen, width=400).print(catalogue.report(report, run).to_table())
        return screen.getvalue()

    with Catalogue(both) as catalogue:
        for report in ("leaderboard", "domains"):
            assert "(3 seeds)" in shown(report, "run")
            assert "seed" not in shown(report, "one")
        assert "seed" in shown("worsened", "run")
        assert "seed" not in shown("worsened", "one")


def test_page_shows_mean_over_seeds(both: Store) -> None:
    page = make_page(both, "run").html
    mean = statistics.mean([statistics.mean(rates(seed)) for seed in SEEDS])
    assert f"{mean:.2f}" in page
    assert "over seeds" in page
    assert "u0</span> seed 5" in page
    assert "seed" not in make_page(both, "one").html.partition("</style>")[2]


def test_comparison_uses_shared_seeds(store: Store) -> None:
    fill(store, "other", seeds=(1, 5))
    found = compare(store, "run", "other", methods=["em-tok"])
    assert found.notes[0] == "em-tok: compared over the seeds that both runs have (1, 5), without 0 of A"
    (vacuum,) = (change for change in found.changes if change.domain == "vacuum")
    assert (vacuum.wer_a, vacuum.wer_b, vacuum.ties) == (pytest.approx(100 * 3 / 16), pytest.approx(100 * 3 / 16), 2)
