"""Reports show what was measured: correct sums, nothing hidden, and nothing shown too early.

The file is long because all reports are tested on the same few runs.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from store_factory import ERROR, begin_run, end_attempt, with_errors, write_shard

from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.scoring import normalizer
from emtta_core.scoring.wer import score
from emtta_core.store import Catalogue, CellKey, Store, reports
from emtta_core.store.result import Result

# Word errors of source and em-tok-b in two utterances of four words each, by domain.
ERRORS = {
    ("noise", "vacuum"): {"source": (2, 2), "em-tok-b": (1, 1)},
    ("noise", "babble"): {"source": (4, 4), "em-tok-b": (4, 0)},
    ("accent", "scotland"): {"source": (1, 0), "em-tok-b": (0, 0)},
}


def fill(store: Store, run_id: str = "run", created_at: datetime = datetime(2026, 11, 23, tzinfo=UTC)) -> None:
    """Write a complete run whose plan lists the methods in the wrong order."""
    cells = [(*where, method) for method in ("em-tok-b", "source") for where in ERRORS]
    begin_run(store, run_id, cells, created_at=created_at)
    for (group, domain), methods in ERRORS.items():
        for method, errors in methods.items():
            key = CellKey(run_id, domain, method)
            start = ERRORS[group, domain]["source"]
            states = {
                f"u{i}": [with_errors(first), with_errors(last)] if method != "source" else [with_errors(last)]
                for i, (first, last) in enumerate(zip(start, errors, strict=True))
            }
            write_shard(store, key, states)
            end_attempt(store, key, group=group)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    store = Store.open(tmp_path_factory.mktemp("complete"), create=True)
    fill(store)
    with Catalogue(store) as catalogue:
        catalogue.cache_rows()
        yield catalogue


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path, create=True)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Catalogue, Catalogue]]:
    """A catalogue of three runs of one suite, and one of only the second run, with its rows in memory."""
    store = Store.open(tmp_path_factory.mktemp("several"), create=True)
    for day, run_id in enumerate(("before", "run", "after"), 21):
        fill(store, run_id, datetime(2026, 11, day, tzinfo=UTC))
        update_statistics(store, run_id)
    with Catalogue(store) as every, Catalogue(store, runs=["run"]) as alone:
        alone.cache_rows()
        yield every, alone


@pytest.mark.parametrize("name", [name for name, found in reports().items() if not found.reads_store])
def test_run_report_needs_only_its_run(several: tuple[Catalogue, Catalogue], name: str) -> None:
    every, alone = (catalogue.report(name, "run") for catalogue in several)
    assert alone.columns == every.columns
    assert rounded(alone) == rounded(every)


def rounded(result: Result) -> list[list[object]]:
    """The rows, without the digits that depend on the order in which DuckDB's threads add numbers."""
    return [[round(value, 9) if isinstance(value, float) else value for value in row] for row in result.rows]


@pytest.mark.parametrize("name", ["history", "pairs"])
def test_store_report_needs_other_runs(several: tuple[Catalogue, Catalogue], name: str) -> None:
    every, alone = (catalogue.report(name, "run") for catalogue in several)
    assert alone.rows != every.rows


def test_leaderboard_sorts_methods_and_groups(complete: Catalogue) -> None:
    board = complete.report("leaderboard")
    assert board.columns == (
        *(
            "method",
            "group",
            "wer",
            "wer_low",
            "wer_high",
            "change",
            "ci_half_width",
            "p",
            "p_sign_flip",
            "change_percent",
        ),
        *("domains", "complete", "wins", "ties", "losses", "in_error"),
        *("substitution_rate", "deletion_rate", "insertion_rate", "sentence_error_rate"),
        *("over_100_rate", "insertion_run_rate", "loop_rate", "insertions_per_minute"),
        *("wer_seed_sd", "seeds", "reason_hidden"),
    )
    assert [row[:2] for row in board.rows] == [
        (method, group) for method in ("source", "em-tok-b") for group in ("noise", "accent", "all")
    ]


def test_group_has_mean_and_pooled_rate(complete: Catalogue) -> None:
    rows = {(row["method"], row["group"]): row for row in complete.report("leaderboard").records}
    assert rows["source", "noise"]["wer"] == pytest.approx((50 + 100) / 2)
    assert rows["source", "all"]["wer"] == pytest.approx((50 + 100 + 12.5) / 3)
    assert rows["em-tok-b", "all"]["wer"] == pytest.approx((25 + 50 + 0) / 3)
    pooled = """SELECT pooled_wer FROM groups WHERE method = 'em-tok-b' AND "group" = 'all'"""
    assert complete.query(pooled).rows == [(pytest.approx(100 * 6 / 24),)]
    assert rows["em-tok-b", "noise"]["change_percent"] == pytest.approx(100 * (37.5 - 75) / 75)
    assert rows["source", "noise"]["change_percent"] == 0
    assert all(row["reason_hidden"] is None and row["in_error"] == 0 for row in rows.values())


def test_pooled_rate_differs_from_mean(store: Store) -> None:
    begin_run(store, "run", [("noise", "a", "source"), ("noise", "b", "source")], utterances=1)
    write_shard(store, CellKey("run", "a", "source"), {"u": ["x"]}, reference="x")
    write_shard(store, CellKey("run", "b", "source"), {"u": ["x x x x"]}, reference="red green blue river")
    row = Catalogue(store).query("FROM groups ORDER BY position").records[0]
    assert row["wer"] == pytest.approx(50)
    assert row["pooled_wer"] == pytest.approx(80)


def test_incomplete_figure_is_hidden(store: Store) -> None:
    fill(store)
    plan = [(group, domain, "source") for group, domain in ERRORS] + [("noise", "typing", "source")]
    begin_run(store, "run", plan)
    write_shard(store, CellKey("run", "typing", "source"), {"a": [with_errors(0)]})
    rows = {row["group"]: row for row in Catalogue(store).report("leaderboard").records}
    for group in ("noise", "all"):
        assert (rows[group]["wer"], rows[group]["wer_low"], rows[group]["change_percent"]) == (None, None, None)
    assert rows["noise"]["reason_hidden"] == "1 of 3 domains incomplete: typing (1 of 2 utterances)"
    assert rows["accent"]["wer"] == 12.5
    assert rows["accent"]["reason_hidden"] is None

    write_shard(store, CellKey("run", "typing", "source"), {"b": [with_errors(0)]}, attempt=2)
    rows = {row["group"]: row for row in Catalogue(store).report("leaderboard").records}
    assert rows["noise"]["wer"] == pytest.approx(50)


def test_utterance_in_error_is_excluded(store: Store) -> None:
    begin_run(store, "run", [("noise", "babble", "source")], utterances=3)
    key = CellKey("run", "babble", "source")
    write_shard(store, key, {"a": [with_errors(2)], "b": None})
    write_shard(store, key, {"c": [with_errors(4)]}, shard=1, reference="…")
    catalogue = Catalogue(store)
    row = catalogue.report("leaderboard").records[0]
    assert (row["in_error"], row["wer"], row["reason_hidden"]) == (2, 50.0, None)
    failures = catalogue.report("failures").records
    assert [(row["what"], row["utterance_id"]) for row in failures[:2]] == [("utterance", "b"), ("utterance", "c")]
    (rate,) = failures[2:]
    assert (rate["what"], rate["wer_excluded"], rate["wer_deleted"]) == ("rate", 50.0, 75.0)
    assert failures[0]["error"] == ERROR
    assert "no words left" in failures[1]["error"]


def test_all_error_domain_is_hidden(store: Store) -> None:
    begin_run(store, "run", [("noise", "babble", "source")], utterances=1)
    write_shard(store, CellKey("run", "babble", "source"), {"a": None})
    row = Catalogue(store).report("leaderboard").records[0]
    assert row["wer"] is None
    assert row["reason_hidden"] == "1 of 1 domains incomplete: babble (no utterance without an error)"


def test_no_source_means_no_change(store: Store) -> None:
    begin_run(store, "run", [("noise", "babble", "em-tok"), ("noise", "babble", "my-own")], utterances=1)
    for method in ("em-tok", "my-own"):
        write_shard(store, CellKey("run", "babble", method), {"a": [with_errors(1)]})
    rows = Catalogue(store).report("leaderboard").records
    assert [(row["method"], row["wer"], row["change_percent"]) for row in rows[::2]] == [
        ("em-tok", 25.0, None),
        ("my-own", 25.0, None),
    ]


def test_methods_report_has_column_per_group(complete: Catalogue) -> None:
    wide = complete.report("methods")
    assert wide.columns == ("method", "noise", "accent", "all", "change_percent"), "in the order of the plan"
    assert [row[0] for row in wide.rows] == ["source", "em-tok-b"]
    assert wide.rows[1] == pytest.approx(("em-tok-b", 37.5, 0.0, 25.0, 100 * (25 - 162.5 / 3) / (162.5 / 3)))


def test_domains_filter_by_group(complete: Catalogue) -> None:
    rows = complete.report("domains").records
    assert [(row["domain"], row["method"], row["wer"]) for row in rows] == [
        (domain, method, 12.5 * sum(errors))
        for (_, domain), methods in ERRORS.items()
        for method, errors in methods.items()
    ]
    narrow = complete.report("domains", group="noise", method="em-tok-b").records
    assert [(row["domain"], row["change_percent"]) for row in narrow] == [("vacuum", -50.0), ("babble", -50.0)]


def test_failures_explain_gaps(store: Store) -> None:
    cells = [("noise", domain, "source") for domain in ("done", "failed", "partial", "missing")]
    begin_run(store, "run", cells)
    for domain, texts in {"done": "ab", "failed": "a", "partial": "a"}.items():
        write_shard(store, CellKey("run", domain, "source"), {name: [with_errors(1)] for name in texts})
    failed = CellKey("run", "failed", "source")
    end_attempt(store, failed, group="noise", attempt=2, error="no such device: cuda:9")  # the first was killed
    rows = Catalogue(store).report("failures").records
    assert [
        (row["domain"], row["state"], row["done"], row["planned"], row["attempt"], row["error"]) for row in rows
    ] == [
        ("failed", "failed", 1, 2, 2, "no such device: cuda:9"),
        ("partial", "partial", 1, 2, None, None),
        ("missing", "missing", 0, 2, None, None),
    ]


def test_history_uses_previous_night(store: Store) -> None:
    nights: dict[str, dict[str, int | None]] = {  # word errors of the single utterance, by method; None: not done
        "first": {"source": 2, "em-tok": 1},
        "second": {"source": 3},
        "third": {"source": None, "em-tok": 2},
        "fourth": {"source": 1, "em-tok": 4},
    }
    for day, (run_id, methods) in enumerate(nights.items(), 1):
        cells = [("noise", "vacuum", method) for method in methods]
        begin_run(store, run_id, cells, utterances=1, created_at=datetime(2026, 11, day, tzinfo=UTC))
        for method, errors in methods.items():
            if errors is not None:
                write_shard(store, CellKey(run_id, "vacuum", method), {"u": [with_errors(errors)]})
    rows = Catalogue(store).report("history").records
    assert {(row["run_id"], row["method"]): row["since_last"] for row in rows} == {
        ("first", "source"): None,
        ("first", "em-tok"): None,
        ("second", "source"): 25.0,
        ("third", "source"): None,
        ("third", "em-tok"): None,  # the second night lacks this method, and the first is not the previous one
        ("fourth", "source"): None,  # the third has no figure
        ("fourth", "em-tok"): 50.0,
    }


def test_steps_go_from_source_to_final(complete: Catalogue) -> None:
    rows = {(row["method"], row["step"]): row for row in complete.report("steps").records}
    board = {(row["method"], row["group"]): row for row in complete.report("leaderboard").records}
    assert set(rows) == {("source", 0), ("em-tok-b", 0), ("em-tok-b", 1)}
    assert rows["em-tok-b", 0]["wer"] == pytest.approx(board["source", "all"]["wer"])
    assert rows["em-tok-b", 1]["wer"] == pytest.approx(board["em-tok-b", "all"]["wer"])
    assert rows["em-tok-b", 1]["pooled_wer"] == pytest.approx(100 * 6 / 24)
    assert rows["em-tok-b", 1]["change_percent"] == pytest.approx(board["em-tok-b", "all"]["change_percent"])
    assert rows["em-tok-b", 0]["change_percent"] == 0
    assert (rows["em-tok-b", 0]["entropy"], rows["em-tok-b", 1]["entropy"]) == pytest.approx((1.0, 0.9))
    assert rows["em-tok-b", 1]["utterances"] == 6
    noise = {row["step"]: row for row in complete.report("steps", group="noise").records if row["method"] != "source"}
    assert noise[1]["wer"] == pytest.approx(37.5)


def test_incomplete_step_is_hidden(store: Store) -> None:
    domains = ("a", "b", "c", "d")
    begin_run(store, "run", [("noise", domain, "em-tok") for domain in domains])
    for domain in ("a", "b"):
        states = {"x": [with_errors(2), with_errors(1)], "y": [with_errors(2), with_errors(1)]}
        write_shard(store, CellKey("run", domain, "em-tok"), states)
    write_shard(store, CellKey("run", "c", "em-tok"), {"x": [with_errors(4), with_errors(4)], "y": [with_errors(4)]})
    (first, last) = Catalogue(store).report("steps").records
    assert (first["domains"], first["planned"]) == (3, 4)
    assert first["reason_hidden"] == "1 of 4 domains incomplete: d (0 of 2 utterances)"
    assert last["reason_hidden"] == "2 of 4 domains incomplete: c (1 of 2 utterances), d (0 of 2 utterances)"
    for row in (first, last):
        assert [row[name] for name in ("entropy", "wer", "pooled_wer", "change_percent")] == [None] * 4
    write_shard(store, CellKey("run", "c", "em-tok"), {"y": [with_errors(4), with_errors(4)]}, attempt=2)
    write_shard(store, CellKey("run", "d", "em-tok"), {"x": [with_errors(0), with_errors(0)], "y": None})
    (first, last) = Catalogue(store).report("steps").records
    assert (last["domains"], last["planned"], last["reason_hidden"]) == (4, 4, None)
    assert (first["wer"], last["wer"]) == (50.0, 37.5)


def test_no_figure_mixes_normalizers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_run(store, "run", [("noise", "a", "source"), ("noise", "b", "source")])
    write_shard(store, CellKey("run", "a", "source"), {"x": [with_errors(0)], "y": [with_errors(0)]})
    write_shard(store, CellKey("run", "b", "source"), {"x": [with_errors(0)]})
    monkeypatch.setattr("store_factory.score", lambda *given: score(*given) | {"normalizer": "whisper-english/9"})
    write_shard(store, CellKey("run", "b", "source"), {"y": [with_errors(0)]}, attempt=2)
    catalogue = Catalogue(store)
    whole, mixed = catalogue.query("FROM cells ORDER BY position").records
    scored_by = f"scored by {normalizer('en').name}, whisper-english/9"
    assert (whole["wer"], whole["cer"], whole["reason_hidden"]) == (0, 0, None)
    assert (mixed["state"], mixed["wer"], mixed["cer"], mixed["reason_hidden"]) == ("complete", None, None, scored_by)
    for row in (*catalogue.report("leaderboard").records, *catalogue.report("steps").records):
        assert (row["wer"], row["reason_hidden"]) == (None, f"1 of 2 domains incomplete: b ({scored_by})")


def test_languages_may_differ_in_normalizer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_run(store, "run", [("noise", "a", "source")])
    key = CellKey("run", "a", "source")
    write_shard(store, key, {"x": [with_errors(0)]})
    monkeypatch.setattr("store_factory.LANGUAGE", "de")
    write_shard(store, key, {"y": [with_errors(1)]}, shard=1)
    assert Catalogue(store).report("domains").records[0]["wer"] == 12.5


def test_no_mean_mixes_releases(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [("noise", domain, method) for domain in "ab" for method in ("source", "em-tok")]
    begin_run(store, "run", cells, utterances=1)
    begin_run(store, "other", cells[:1], utterances=1)
    for run_id, domain, method in (("run", "a", "source"), ("run", "a", "em-tok"), ("other", "a", "source")):
        write_shard(store, CellKey(run_id, domain, method), {"x": [with_errors(1)]})
    write_shard(store, CellKey("run", "b", "source"), {"x": [with_errors(1)]})
    assert {row["wer"] for row in Catalogue(store).query("FROM cells").records} == {25.0, None}
    monkeypatch.setattr("store_factory.score", lambda *given: score(*given) | {"normalizer": "whisper-basic/9"})
    write_shard(store, CellKey("run", "b", "em-tok"), {"x": [with_errors(1)]})
    catalogue = Catalogue(store)
    release = normalizer("en").name.partition("/")[2]
    reason = f"the run was scored by the releases {release} and 9 of the normalizer; score it again with emtta score"
    rows = catalogue.query("FROM cells WHERE run_id = 'run'").records
    assert {(row["wer"], row["change_percent"], row["reason_hidden"]) for row in rows} == {(None, None, reason)}
    groups = catalogue.query("FROM groups WHERE run_id = 'run'").records
    assert {row["method"] for row in groups} == {"source", "em-tok"}
    for row in groups:
        assert (row["wer"], row["pooled_wer"], row["change_percent"]) == (None, None, None)
        assert row["reason_hidden"] == f"2 of 2 domains incomplete: a ({reason}), b ({reason})"
    assert [row["wer"] for row in catalogue.query("FROM cells WHERE run_id = 'other'").records] == [25.0]


def test_flags_count_cut_and_collapsed(store: Store) -> None:
    begin_run(store, "run", [("noise", "a", "source")])
    key = CellKey("run", "a", "source")
    write_shard(store, key, {"x": [with_errors(0)], "y": None})
    write_shard(store, key, {"z": [with_errors(4)]}, shard=1, flags=("truncated", "collapsed"))
    write_shard(store, key, {"w": [with_errors(1)], "v": [with_errors(1)]}, shard=2, flags=("truncated", "gated"))
    (row,) = Catalogue(store).report("flags").records
    assert (row["gated"], row["reverted"]) == (2, 0)
    assert (row["language"], row["method"], row["hypotheses"]) == ("en", "source", 4)
    assert (row["truncated"], row["truncated_percent"]) == (3, 75.0)
    assert (row["collapsed"], row["collapsed_percent"]) == (1, 25.0)


@pytest.mark.parametrize(
    ("suite", "corpus", "corruption", "expected"),
    [
        ("calls", "folder", ', corruption = { name = "noise", kind = "babble" }', None),
        ("calls", "librispeech", ', corruption = { name = "noise-file", kind = "babble" }', "LS-C"),
        ("calls", "librispeech", "", None),
        ("calls", "mls", "", "MLS"),
        ("calls", "synthetic", "", None),
        ("demo", "synthetic", "", "LS-C"),
    ],
)
def test_paper_figures_match_suite(
    suite: str, corpus: str, corruption: str, expected: str | None, store: Store
) -> None:
    toml = f'domains = [{{ name = "BA", group = "noise", corpus = {{ limit = 3, name = "{corpus}" }}{corruption} }}]'
    begin_run(store, "run", [("noise", "BA", "source")], suite_toml=f'name = "{suite}"\n{toml}\n')
    store.write_run("run", replace(store.run("run"), suite=suite))
    write_shard(store, CellKey("run", "BA", "source"), {"a": [with_errors(1)], "b": [with_errors(1)]})
    rows = Catalogue(store).report("paper").records
    (ours,) = [row for row in rows if row["wer"] is not None]
    assert (ours["suite"], ours["group"], ours["wer"]) == (expected, "noise", 25.0)
    assert (ours["paper_wer"] is not None) == (expected is not None)


def test_coverage_counts_planned_and_done(store: Store) -> None:
    begin_run(store, "run", [("noise", "a", "source"), ("noise", "b", "source")])
    write_shard(store, CellKey("run", "a", "source"), {"x": [with_errors(0)], "y": None})
    rows = Catalogue(store).report("coverage").records
    assert [row["group"] for row in rows] == ["noise", "all"]
    for row in rows:
        assert (row["domains"], row["complete"], row["planned"], row["done"], row["in_error"]) == (2, 1, 4, 2, 1)
        assert row["done_percent"] == 50


def test_default_run_is_newest(store: Store) -> None:
    fill(store, "z-old", datetime(2026, 1, 1, tzinfo=UTC))
    begin_run(store, "a-new", [("noise", "vacuum", "source")], created_at=datetime(2026, 1, 2, tzinfo=UTC))
    catalogue = Catalogue(store)
    assert [row["reason_hidden"] for row in catalogue.report("leaderboard").records] == [
        "1 of 1 domains incomplete: vacuum (0 of 2 utterances)"
    ] * 2
    assert len(catalogue.report("leaderboard", "z-old").rows) == 6
    assert [(row["run_id"], row["state"]) for row in catalogue.report("runs").records] == [
        ("a-new", "incomplete"),
        ("z-old", "complete"),
    ]


def test_sql_methods_match_registry(complete: Catalogue) -> None:
    from emtta_core.adaptation.methods import METHODS

    listed = [row[0] for row in complete.query("SELECT method FROM methods ORDER BY rank").rows]
    assert listed == list(METHODS)


def test_promised_reports_exist() -> None:
    promised = {
        *("coverage", "domains", "errors", "failures", "flags", "groups", "history", "leaderboard"),
        *("matrix", "methods", "oracle", "pairs", "paper", "robustness", "runs", "seeds", "speed", "steps"),
        *("sweep", "worsened"),
    }
    assert promised <= set(reports())


@pytest.mark.parametrize("name", reports())
def test_partial_run_keeps_columns(name: str, partial: Catalogue, complete: Catalogue) -> None:
    found = partial.report(name)
    assert found.columns == complete.report(name).columns
    silent = {"between", "forgetting", "languages", "pairs", "paper", "robustness", "seeds", "stream", "sweep"}
    assert found.rows or name in silent, "only these reports are empty for this run"
    for form in (found.markdown, found.csv, found.json):
        assert form()


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    """A run with complete, partial, failed and missing cells, and an utterance in error."""
    store = Store.open(tmp_path_factory.mktemp("partial"), create=True)
    cells = [(*where, method) for where in ERRORS for method in ("source", "em-tok-b")]
    begin_run(store, "run", cells)
    write_shard(store, CellKey("run", "vacuum", "source"), {"u0": [with_errors(2)], "u1": [with_errors(2)]})
    write_shard(store, CellKey("run", "vacuum", "em-tok-b"), {"u0": [with_errors(2), with_errors(3)]})
    write_shard(store, CellKey("run", "babble", "source"), {"u0": None, "u1": [with_errors(1)]})
    end_attempt(store, CellKey("run", "babble", "em-tok-b"), group="noise", error="out of memory")
    with Catalogue(store) as catalogue:
        catalogue.cache_rows()
        yield catalogue
