"""A run's statistics describe its current results, never older ones, and cannot harm the results."""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import Command, Speech, SuiteFile
from store_factory import REFERENCE, begin_run, end_attempt, with_errors, write_shard

from emtta_core.compare import compare
from emtta_core.errors import StoreError
from emtta_core.pipeline.rescoring import finalize_figures
from emtta_core.pipeline.run_statistics import compute_statistics, update_statistics
from emtta_core.scoring.bootstrap import rate_interval
from emtta_core.scoring.significance import change_interval, holm, mean_p, sign_flip_p
from emtta_core.store import Catalogue, CellKey, Store
from emtta_core.store.compaction import compact
from emtta_core.store.describe import verdicts_of
from emtta_core.store.pruning import Keep, plan_pruning, prune

WORDS = len(REFERENCE.split())
COUNT = 20
CELLS = [("noise", "rain"), ("noise", "vacuum"), ("accent", "wales")]
METHODS = {"source": 0.5, "em-tok-b": 0.3, "greedy-em": 0.45}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


def errors_of(method: str, domain: str) -> list[int]:
    generator = np.random.default_rng(sum(map(ord, method + domain)))
    return [int(value) for value in generator.binomial(WORDS, METHODS[method], COUNT)]


def fill(store: Store, run_id: str = "run", methods: tuple[str, ...] = tuple(METHODS)) -> None:
    """Write a complete run."""
    cells = [(*cell, method) for cell in CELLS for method in methods]
    begin_run(store, run_id, cells, utterances=COUNT)
    for group, domain, method in cells:
        texts = {f"u{index:02d}": [with_errors(errors)] for index, errors in enumerate(errors_of(method, domain))}
        write_shard(store, CellKey(run_id, domain, method), texts)
        end_attempt(store, CellKey(run_id, domain, method), group=group)


Rows = dict[tuple[str, str | None], dict[str, object]]


def shown(store: Store, run_id: str = "run") -> Rows:
    """The rows of the view by method and domain, or by method and `GROUP*` for a group."""
    with Catalogue(store) as catalogue:
        rows = catalogue.query("FROM statistics WHERE run_id = $run", {"run": run_id}).records
    return {(row["method"], row["domain"] or f"{row['group']}*"): row for row in rows}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a complete run and its statistics."""
    store = Store.open(tmp_path_factory.mktemp("whole"), create=True)
    fill(store)
    assert update_statistics(store, "run")
    return store


@pytest.fixture(scope="module")
def rows(whole: Store) -> Rows:
    """The rows of the view for `whole`."""
    return shown(whole)


@pytest.fixture
def computed(whole: Store, tmp_path: Path) -> Store:
    """A copy of `whole` that a test may change."""
    shutil.copytree(whole.location, tmp_path / "computed")
    return Store.open(tmp_path / "computed")


def column(method: str, *domains: str) -> np.ndarray:
    return np.array([errors_of(method, domain) for domain in domains], dtype=np.float64).T


def test_domains_and_groups_have_statistics(rows: Rows) -> None:
    assert len(rows) == len(METHODS) * (len(CELLS) + 3)
    words = np.full((COUNT, 1), float(WORDS))
    row, ours, theirs = rows["em-tok-b", "rain"], column("em-tok-b", "rain"), column("source", "rain")
    assert (row["utterances"], row["pairs"], row["units"], row["drawn"]) == (COUNT, COUNT, COUNT, "utterances")
    assert row["wer"] == pytest.approx(100 * ours.mean() / WORDS)
    assert (row["wer_low"], row["wer_high"]) == pytest.approx(rate_interval(ours, words))
    assert (row["change_low"], row["change_high"]) == pytest.approx(change_interval(ours - theirs, words))
    assert row["change"] == pytest.approx(row["wer"] - row["source_wer"])
    assert row["change_percent"] == pytest.approx(100 * row["change"] / row["source_wer"])
    added = (ours - theirs)[:, 0]
    assert (row["wins"], row["ties"], row["losses"]) == (sum(added < 0), sum(added == 0), sum(added > 0))
    changes = [column("em-tok-b", name) - column("source", name) for _, name in CELLS]
    for name, p_values in (
        ("p", [mean_p(change, words) for change in changes]),
        ("p_sign_flip", [sign_flip_p(change[:, 0]) for change in changes]),
    ):
        assert [rows["em-tok-b", domain][name] for _, domain in CELLS] == pytest.approx(list(holm(p_values)))


def test_group_mean_resamples_jointly(whole: Store, rows: Rows) -> None:
    ours, theirs = column("em-tok-b", "rain", "vacuum"), column("source", "rain", "vacuum")
    words, row = np.full((COUNT, 2), float(WORDS)), rows["em-tok-b", "noise*"]
    assert (row["utterances"], row["units"]) == (2 * COUNT, COUNT)
    assert (row["wer_low"], row["wer_high"]) == pytest.approx(rate_interval(ours, words))
    assert (row["change_low"], row["change_high"]) == pytest.approx(change_interval(ours - theirs, words))
    assert row["p"] == pytest.approx(mean_p(ours - theirs, words))
    assert row["p_sign_flip"] == pytest.approx(sign_flip_p((ours - theirs).sum(axis=1)), abs=0.01)
    everything = rows["em-tok-b", "all*"]
    with Catalogue(whole) as catalogue:
        wer = catalogue.query("""SELECT wer FROM groups WHERE method = 'em-tok-b' AND "group" = 'all'""").rows
    assert [(everything["wer"],)] == [(pytest.approx(wer[0][0]),)]


def test_each_pair_of_methods_is_tested(whole: Store) -> None:
    with Catalogue(whole) as catalogue:
        pairs = catalogue.query("""FROM method_pairs WHERE "group" = 'noise' ORDER BY baseline, method""").records
        shown = catalogue.report("between", group="noise", method="em-tok-b").records
    assert [(row["baseline"], row["method"]) for row in pairs] == [
        ("em-tok-b", "greedy-em"),
        ("source", "em-tok-b"),
        ("source", "greedy-em"),
    ]
    words, domains = np.full((COUNT, 2), float(WORDS)), ("rain", "vacuum")
    added = [column(row["method"], *domains) - column(row["baseline"], *domains) for row in pairs]
    assert [row["p"] for row in pairs] == pytest.approx(list(holm([mean_p(one, words) for one in added])))
    flips = [sign_flip_p(one.sum(axis=1)) for one in added]
    assert [row["p_sign_flip"] for row in pairs] == pytest.approx(list(holm(flips)), abs=0.01)
    for row, one in zip(pairs, added, strict=True):
        assert (row["change_low"], row["change_high"]) == pytest.approx(change_interval(one, words))
        assert row["wer"] - row["baseline_wer"] == pytest.approx(row["change"])
    assert {(row["baseline"], row["method"]) for row in shown} == {("em-tok-b", "greedy-em"), ("source", "em-tok-b")}


def best(store: Store, errors: Mapping[str, Sequence[int]]) -> str:
    """The verdict on a run of one domain with these errors by method."""
    begin_run(store, "run", [("noise", "rain", method) for method in errors], utterances=20)
    for method, counts in errors.items():
        key = CellKey("run", "rain", method)
        write_shard(store, key, {f"u{index:02d}": [with_errors(count)] for index, count in enumerate(counts)})
        end_attempt(store, key, group="noise")
    update_statistics(store, "run")
    with Catalogue(store) as catalogue:
        (said, whole) = verdicts_of(catalogue, "run")
    assert said.removeprefix("all: ") == whole.removeprefix("noise: ")
    return said.removeprefix("all: ")


MANY, SOME, FEWER = [3, 2, 4, 3] * 5, [2, 1, 2, 1] * 5, [2, 0, 2, 1] * 5


def test_best_is_better_than_every_other(store: Store) -> None:
    assert best(store, {"source": MANY, "em-tok": SOME, "em-tok-b": FEWER}) == "best: em-tok-b"


def test_chance_difference_makes_no_best(store: Store) -> None:
    found = best(store, {"source": MANY, "em-tok": [*SOME[:-1], 2], "em-tok-b": SOME, "mbr": [*SOME[:-2], 1, 2]})
    assert found == "lowest WER: em-tok-b; not distinguishable from mbr, em-tok"


def test_reports_name_best(store: Store, emtta: Command) -> None:
    best(store, {"source": MANY, "em-tok": SOME, "em-tok-b": FEWER})
    board = emtta("report", "leaderboard", "--store", store.location).err
    assert "all: best: em-tok-b\nnoise: best: em-tok-b\n" in board
    assert "1 speaker: the interval does not reflect how speakers differ (all (mean), noise (mean), rain)" in board
    table = emtta("report", "between", "--store", store.location, "--format", "csv").out.splitlines()
    assert [line.split(",")[:4] for line in table[1:]] == [
        ["all", "em-tok", "source", "better"],
        ["all", "em-tok-b", "source", "better"],
        ["all", "em-tok-b", "em-tok", "better"],
    ]


def test_untested_method_is_not_best(store: Store) -> None:
    best(store, {"source": MANY, "em-tok": SOME})
    shutil.rmtree(Path(store.location) / "statistics")
    with Catalogue(store) as catalogue:
        assert verdicts_of(catalogue, None)[0] == "all: lowest WER: em-tok; not tested against source"


def test_later_attempt_hides_pairs(computed: Store) -> None:
    write_shard(computed, CellKey("run", "rain", "em-tok-b"), {"u00": [with_errors(0)]}, attempt=2)
    with Catalogue(computed) as catalogue:
        pairs = catalogue.query("SELECT DISTINCT baseline, method FROM method_pairs").rows
    assert pairs == [("source", "greedy-em")]


def test_source_has_no_change(rows: Rows) -> None:
    row = rows["source", "all*"]
    assert row["wer_low"] < row["wer"] == row["source_wer"] < row["wer_high"]
    names = ("pairs", "change", "change_low", "change_high", "change_percent", "p", "wins", "ties", "losses")
    assert [row[name] for name in names] == [None] * len(names)


def test_no_source_means_intervals_only(store: Store) -> None:
    fill(store, methods=("em-tok-b",))
    update_statistics(store, "run")
    row = shown(store)["em-tok-b", "all*"]
    assert row["wer_low"] is not None
    assert (row["source_wer"], row["change"], row["p"], row["pairs"]) == (None, None, None, None)


def test_current_statistics_are_kept(computed: Store) -> None:
    assert not update_statistics(computed, "run")


def test_later_attempt_hides_statistics(computed: Store, rows: Rows) -> None:
    same = {"u00": [with_errors(errors_of("em-tok-b", "rain")[0])]}
    write_shard(computed, CellKey("run", "rain", "em-tok-b"), same, attempt=2)
    assert {method for method, _ in shown(computed)} == {"source", "greedy-em"}, "the same words, transcribed again"
    write_shard(computed, CellKey("run", "rain", "source"), {"u00": [with_errors(4)]}, attempt=2)
    assert shown(computed) == {}, "each method is compared with source"
    assert update_statistics(computed, "run")
    after = shown(computed)
    assert after.keys() == rows.keys()
    assert after["source", "rain"]["wer"] != rows["source", "rain"]["wer"]


def test_incomplete_group_is_hidden(store: Store) -> None:
    fill(store)
    plan = [(*cell, method) for cell in [*CELLS, ("noise", "typing")] for method in METHODS]
    begin_run(store, "run", plan, utterances=COUNT)
    write_shard(
        store, CellKey("run", "typing", "source"), {f"u{index:02d}": [with_errors(1)] for index in range(COUNT)}
    )
    write_shard(store, CellKey("run", "typing", "em-tok-b"), {"u00": [with_errors(0)], "u01": None})
    update_statistics(store, "run")
    rows = shown(store)
    assert ("source", "noise*") in rows
    assert {key for key in rows if key[0] == "em-tok-b"} == {
        ("em-tok-b", name) for name in ("rain", "vacuum", "wales", "typing", "accent*")
    }
    partial = rows["em-tok-b", "typing"]
    assert (partial["utterances"], partial["pairs"], partial["wer_low"]) == (1, 1, None)


def test_utterance_in_error_is_in_no_pair(store: Store) -> None:
    begin_run(store, "run", [("noise", "rain", "source"), ("noise", "rain", "em-tok-b")], utterances=COUNT)
    texts = {f"u{index:02d}": [with_errors(2)] for index in range(COUNT)}
    write_shard(store, CellKey("run", "rain", "source"), texts | {"u00": None})
    write_shard(store, CellKey("run", "rain", "em-tok-b"), texts | {"u01": None, "u02": None})
    update_statistics(store, "run")
    row = shown(store)["em-tok-b", "rain"]
    assert (row["utterances"], row["pairs"], row["ties"]) == (COUNT - 2, COUNT - 3, COUNT - 3)


@pytest.mark.parametrize("report", ["leaderboard", "domains"])
def test_change_is_over_shared_utterances(store: Store, report: str) -> None:
    begin_run(store, "run", [("noise", "rain", "source"), ("noise", "rain", "em-tok-b")], utterances=COUNT)
    texts = {f"u{index:02d}": [with_errors(2)] for index in range(COUNT)}
    write_shard(store, CellKey("run", "rain", "source"), texts | {"u00": None, "u01": [with_errors(4)]})
    write_shard(store, CellKey("run", "rain", "em-tok-b"), texts | {"u00": [with_errors(4)], "u01": [with_errors(0)]})
    end_attempt(store, CellKey("run", "rain", "source"), group="noise")
    end_attempt(store, CellKey("run", "rain", "em-tok-b"), group="noise")
    update_statistics(store, "run")
    with Catalogue(store) as catalogue:
        row = next(row for row in catalogue.report(report).records if row["method"] == "em-tok-b")
    assert row["change"] == pytest.approx(-100 * 4 / (WORDS * (COUNT - 1)))
    assert row["change_percent"] == pytest.approx(-100 * 4 / (2 * (COUNT - 2) + 4))


def test_other_normalizer_is_not_compared(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_run(store, "run", [("noise", "rain", "source"), ("noise", "rain", "em-tok-b")], utterances=COUNT)
    texts = {f"u{index:02d}": [with_errors(2)] for index in range(COUNT)}
    write_shard(store, CellKey("run", "rain", "source"), texts)
    monkeypatch.setattr("store_factory.LANGUAGE", "de")
    write_shard(store, CellKey("run", "rain", "em-tok-b"), texts)
    with caplog.at_level(logging.WARNING, logger="emtta.pipeline"):
        update_statistics(store, "run")
    assert "em-tok-b is not compared with source: rain/u00 was scored by" in caplog.text
    assert shown(store)["em-tok-b", "rain"]["change"] is None


def test_comparison_agrees_with_single_run(computed: Store, rows: Rows) -> None:
    for run_id, method in (("a", "source"), ("b", "em-tok-b")):
        begin_run(computed, run_id, [(*cell, "em-tok-b") for cell in CELLS], utterances=COUNT)
        for _, domain in CELLS:
            texts = {f"u{index:02d}": [with_errors(errors)] for index, errors in enumerate(errors_of(method, domain))}
            write_shard(computed, CellKey(run_id, domain, "em-tok-b"), texts)
    for change in compare(computed, "a", "b").changes:
        row = rows["em-tok-b", f"{change.domain}*" if change.domain == "all" else change.domain]
        assert (change.low, change.high, change.p) == pytest.approx((row["change_low"], row["change_high"], row["p"]))
        assert (change.wins, change.ties, change.losses) == (row["wins"], row["ties"], row["losses"])


def test_idle_run_has_no_statistics(store: Store) -> None:
    assert shown(store) == {}
    begin_run(store, "run", [("noise", "rain", "source")])
    assert not update_statistics(store, "run")
    assert shown(store) == {}


def test_statistics_last_until_pruning(computed: Store, rows: Rows) -> None:
    compact(computed, "run")
    assert shown(computed) == rows
    assert not update_statistics(computed, "run")
    fill(computed, "sunday")  # same time, but a later name
    pruning = plan_pruning(computed, Keep(newest=1))
    assert [removal.name for removal in pruning.runs] == ["run"]
    prune(computed, pruning)
    assert not list(computed.backend.list("statistics/run_id=run"))


def test_reports_work_without_statistics(computed: Store) -> None:
    shutil.rmtree(Path(computed.location) / "statistics")
    with Catalogue(computed) as catalogue:
        row = catalogue.report("leaderboard").records[0]
    assert row["wer"] is not None
    assert (row["wer_low"], row["change"], row["p"]) == (None, None, None)


def test_failure_is_only_logged(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)

    def full(*arguments: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Store, "write_statistics", full)
    with caplog.at_level(logging.WARNING, logger="emtta.pipeline"):
        finalize_figures(store, "run")
    again = f"emtta rerun run --store {store.location}"
    assert f"the statistics of run run by whisper could not be computed; compute them with: {again}" in caplog.text
    assert "the disk is full" in caplog.text


@pytest.mark.parametrize("at", ["list", "write_statistics"])
def test_transient_error_leaves_no_gap(
    at: str, store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    owner = type(store.backend) if at == "list" else Store
    done, faults = getattr(owner, at), [StoreError("the network drive is gone")]

    def once(*arguments: object) -> object:
        if faults:
            raise faults.pop()
        return done(*arguments)

    monkeypatch.setattr(owner, at, once)
    finalize_figures(store, "run")
    assert not faults
    assert "could not be computed" not in caplog.text
    assert store.backend.list("statistics/run_id=run")


def test_rerun_computes_missing_statistics(
    emtta: Command, speech: Speech, suite_file: SuiteFile, tmp_path: Path, prefect_server: str
) -> None:
    location = tmp_path / "results"
    assert emtta("run", suite_file(), "--store", location, "--run-id", "mine").code == 0
    store = Store.open(location)
    assert ("em-tok-b", "all*") in shown(store, "mine"), "the end of a run computes them"
    shutil.rmtree(location / "statistics")
    assert emtta("rerun", "mine", "--store", location).code == 0
    assert ("em-tok-b", "all*") in shown(store, "mine")


@pytest.mark.slow
@pytest.mark.parametrize(("methods", "count", "seconds"), [(6, 12, 8), (5, 300, 60)])
def test_cost_stays_bounded(methods: int, count: int, seconds: float) -> None:
    generator, names = np.random.default_rng(0), ("source", *"abcde")[:methods]
    utterances = [
        {
            "method": method,
            "group": f"g{domain % 3}",
            "domain": f"d{domain}",
            "utterance_id": f"{domain}-{index}",
            "speaker": "",
            "words": 10,
            "errors": int(generator.binomial(10, 0.2)),
            "normalizer": "any",
        }
        for method in names
        for domain in range(23)
        for index in range(count)
    ]
    groups = dict.fromkeys(names, ("g0", "g1", "g2", "all"))
    start = time.process_time()
    rows = list(compute_statistics(utterances, groups, dict.fromkeys(names, "")))
    assert len(rows) == methods * 23 + 4 * (1 + methods * (methods - 1) // 2)
    assert time.process_time() - start < seconds
