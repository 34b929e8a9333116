"""No work is repeated: a run reuses the results of the same work in other runs of its store, down to the utterance."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from bench import Bench
from conftest import CLEAN, Command, Speech, Stage, SuiteFile, tone

from emtta_core.pipeline.reuse import Reuse, expected
from emtta_core.pipeline.run import load_run, plan_run, record
from emtta_core.pipeline.state import cell_states
from emtta_core.store import Catalogue, CellKey, Store
from emtta_core.store.compaction import compact
from emtta_core.store.export import export
from emtta_core.store.pruning import Keep, plan_pruning, prune
from emtta_core.suite import load_suite

pytestmark = pytest.mark.usefixtures("prefect_server")

RESULT = "* EXCLUDE (run_id, cell_id, attempt)"


@pytest.fixture
def tmp_path(stage: Stage) -> Path:
    return stage.clear()


@pytest.fixture
def store(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, stage: Stage) -> Path:
    """A store with the complete run `first`, whose only method is source."""
    location, path = tmp_path / "store", suite_file(methods=("source",))

    def make() -> None:
        assert emtta("run", path, "--run-id", "first", "--store", location).code == 0

    stage.restore(make)
    return location


def evaluated(path: Path, store: Path, method: str = "source", limit: int | None = None) -> None:
    """Evaluate a method of a suite as the run `run`, without a flow and without reuse."""
    Bench(load_suite(str(path), limit=limit), store).evaluate(method)


def reusing(path: Path, store: Store, run_id: str) -> None:
    """Record a run, and link the whole cells that it reuses, as a flow does first."""
    planned = plan_run(load_suite(str(path)), load_run(store, "first").plan.model_digest, run_id)
    record(planned, store)
    reuse = Reuse(store, planned, planned.cells)
    reuse.link(reuse.of_cells())


def attempts(store: Path, run_id: str, method: str) -> list[tuple[int, int]]:
    """For each attempt at a cell, how many utterances it did itself, and how many it reused."""
    return [(row.done, row.reused) for row in Store.open(store).cells(CellKey(run_id, "clean", method))]


def rows(store: Path, sql: str) -> list[tuple[object, ...]]:
    with Catalogue(Store.open(store)) as catalogue:
        return catalogue.query(sql).rows


def reused(store: Path, run_id: str) -> dict[str, int]:
    return {state.cell.method: state.reused for state in cell_states(Store.open(store), run_id)}


def test_added_method_runs_only_its_cells(emtta: Command, suite_file: SuiteFile, store: Path) -> None:
    both = suite_file()
    dry = emtta("run", both, "--run-id", "second", "--store", store, "--dry-run")
    assert "would do 1 of 2 cells, 3 utterances" in dry.err
    assert "3 of them are results of other runs: first" in dry.err
    outcome = emtta("run", both, "--run-id", "second", "--store", store)
    assert outcome.code == 0, outcome.err
    assert (attempts(store, "second", "source"), attempts(store, "second", "em-tok-b")) == ([], [(3, 0)])
    assert "3 reused" in emtta("status", "second", "--store", store).out
    for report in ("coverage", "leaderboard"):
        shown = emtta("report", report, "--run", "second", "--store", store)
        assert "Results of other runs that did the same work are reused: 3 of first" in shown.err
    made, taken = (
        rows(store, f"SELECT {RESULT} FROM utterances WHERE run_id = '{run}' AND method = 'source' ORDER BY ALL")
        for run in ("first", "second")
    )
    assert made == taken
    steps = "SELECT count(*) FROM steps WHERE run_id = 'second' GROUP BY method ORDER BY method DESC"
    assert rows(store, steps) == [(3,), (6,)]


def test_fully_reused_run_is_complete(emtta: Command, suite_file: SuiteFile, store: Path) -> None:
    outcome = emtta("run", suite_file(methods=("source",)), "--run-id", "again", "--store", store)
    assert outcome.code == 0, outcome.err
    assert attempts(store, "again", "source") == []
    assert emtta("status", "again", "--store", store).code == 0
    compared = emtta("compare", "first", "again", "--store", store)
    assert compared.code == 0, compared.err


def test_raised_limit_runs_only_new(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    location, path = tmp_path / "store", suite_file(methods=("source",))
    evaluated(path, location, limit=2)
    dry = emtta("run", path, "--run-id", "three", "--store", location, "--dry-run")
    assert "with the same audio are reused; this is known once it is prepared" in dry.err
    assert emtta("run", path, "--run-id", "three", "--store", location).code == 0
    assert attempts(location, "three", "source") == [(1, 2)]
    assert reused(location, "three") == {"source": 2}


def test_only_changed_utterances_run(emtta: Command, suite_file: SuiteFile, speech: Speech, store: Path) -> None:
    speech.add("new", tone(0.7, 330), "another sentence")
    manifest = speech.path / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("seven small boats", "seven big boats"))
    assert emtta("run", suite_file(methods=("source",)), "--run-id", "more", "--store", store).code == 0
    assert attempts(store, "more", "source") == [(2, 2)]
    references = "SELECT reference FROM utterances WHERE run_id = 'more' AND utterance_id = 'good0'"
    assert rows(store, references) == [("seven big boats",)]


@pytest.mark.slow
def test_reused_rows_show_added_column(emtta: Command, suite_file: SuiteFile, speech: Speech, store: Path) -> None:
    manifest = speech.path / "manifest.csv"
    head, *lines = manifest.read_text().splitlines()
    labelled = [
        f"{head},accent",
        *(f"{line},{accent}" for line, accent in zip(lines, ("north", "south", ""), strict=True)),
    ]
    manifest.write_text("\n".join(labelled) + "\n")
    path = suite_file(methods=("source",))
    assert emtta("run", path, "--run-id", "second", "--store", store).code == 0
    reusing(path, Store.open(store), "third")
    for run_id in ("second", "third"):
        assert (attempts(store, run_id, "source"), reused(store, run_id)) == ([], {"source": 3})
    query = "SELECT metadata ->> 'accent' FROM utterances WHERE run_id = '{}' ORDER BY utterance_id"
    shown = {run_id: rows(store, query.format(run_id)) for run_id in ("first", "second", "third")}
    labels = [("north",), ("south",), (None,)]
    assert shown == {"first": [(None,)] * 3} | dict.fromkeys(("second", "third"), labels)
    assert emtta("run", path, "--run-id", "fresh", "--store", store, "--no-reuse").code == 0
    compact(Store.open(store), "fresh")
    assert rows(store, query.format("fresh")) == shown["second"]
    assert ("south",) in rows(store, "SELECT metadata ->> 'accent' FROM prepared")
    sliced = emtta("sql", query.format("fresh"), "--store", store, "--format", "csv")
    assert "north" in sliced.out, sliced.err


def test_reused_result_links_to_origin(suite_file: SuiteFile, store: Path) -> None:
    opened, path = Store.open(store), suite_file(methods=("source",))
    for run_id in ("second", "third"):
        reusing(path, opened, run_id)
    assert {source for source, _ in opened.links("third")} == {"first"}


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("batch_size = 2", "batch_size = 3", True),
        ("batch_size = 2", 'batch_size = 2, trace = "metrics"', True),
        ('name = "clean"', 'name = "other"', True),
        ("steps = 1", "steps = 2", True),  # an option that the method source does not use
        ("runtime", 'scorers = ["basic"]\nruntime', True),
        ("runtime", 'precision = "bf16"\nruntime', False),
        ("batch_size = 2", "batch_size = 2, reuse = false", False),
    ],
)
def test_only_same_work_is_reused(suite_file: SuiteFile, store: Path, old: str, new: str, same: bool) -> None:
    path = suite_file(methods=("source",))
    text = path.read_text()
    if "precision" in new:
        old, new = "model = { ", 'model = { precision = "bf16", '
    assert old in text
    path.write_text(text.replace(old, new, 1))
    opened = Store.open(store)
    other = plan_run(load_suite(str(path)), load_run(opened, "first").plan.model_digest, "other")
    assert [state.done for state in expected(other, opened).states] == [3 if same else 0]


def test_poorer_trace_is_not_reused(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    location, path = tmp_path / "store", suite_file(methods=("source",))
    full = path.read_text()
    path.write_text(full.replace("batch_size = 2", 'batch_size = 2, trace = "none"'))
    evaluated(path, location)
    path.write_text(full)
    assert emtta("run", path, "--run-id", "full", "--store", location).code == 0
    assert attempts(location, "full", "source") == [(3, 0)]


def test_errors_are_not_reused(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    speech.add("silent", 0.0 * tone(0.5), "nothing")
    location, path = tmp_path / "store", suite_file(methods=("source",))
    evaluated(path, location)
    assert emtta("run", path, "--run-id", "second", "--store", location).code == 0
    assert attempts(location, "second", "source") == [(1, 3)]


def test_no_reuse_measures_everything(emtta: Command, suite_file: SuiteFile, store: Path) -> None:
    path = suite_file(methods=("source",))
    outcome = emtta("run", path, "--run-id", "fresh", "--store", store, "--no-reuse")
    assert outcome.code == 0, outcome.err
    assert attempts(store, "fresh", "source") == [(3, 0)]
    assert emtta("rerun", "fresh", "--store", store).code == 0
    assert reused(store, "fresh") == {"source": 0}
    refused = emtta("run", path, "--run-id", "first", "--store", store, "--no-reuse")
    assert refused.code == 2
    assert "run first was started without --no-reuse; to measure everything again in a new run, add" in refused.err


@pytest.mark.parametrize("again", ["run", pytest.param("rerun", marks=pytest.mark.slow)])
def test_resumed_run_reuses_other_results(emtta: Command, suite_file: SuiteFile, store: Path, again: str) -> None:
    both = suite_file()
    evaluated(both, store, "em-tok-b")
    words = ("run", both, "--run-id", "run") if again == "run" else ("rerun", "run")
    dry = emtta(*words, "--store", store, "--dry-run")
    assert "would do 0 of 2 cells, 0 utterances" in dry.err
    assert "3 of them are results of other runs: first" in dry.err
    outcome = emtta(*words, "--store", store)
    assert outcome.code == 0, outcome.err
    assert reused(store, "run") == {"source": 3, "em-tok-b": 0}


@pytest.mark.slow
def test_resume_keeps_no_reuse(emtta: Command, suite_file: SuiteFile, store: Path) -> None:
    both = suite_file()
    emtta("run", both, "--run-id", "fresh", "--only", "method=em-tok-b", "--store", store, "--no-reuse")
    assert "would do 1 of 2 cells" in emtta("run", both, "--run-id", "fresh", "--store", store, "--dry-run").err
    outcome = emtta("run", both, "--run-id", "fresh", "--store", store)
    assert outcome.code == 0, outcome.err
    assert attempts(store, "fresh", "source") == [(3, 0)]


@pytest.mark.slow
def test_force_remeasures_reused_results(emtta: Command, suite_file: SuiteFile, store: Path) -> None:
    assert emtta("run", suite_file(methods=("source",)), "--run-id", "second", "--store", store).code == 0
    outcome = emtta("rerun", "second", "--force", "--store", store)
    assert (outcome.code, "run second: 1 cell to do, 3 utterances" in outcome.err) == (0, True), outcome.err
    assert attempts(store, "second", "source") == [(3, 0)]
    assert reused(store, "second") == {"source": 0}


def test_reused_run_is_not_pruned(emtta: Command, suite_file: SuiteFile, store: Path) -> None:
    opened, path = Store.open(store), suite_file(methods=("source",))
    reusing(path, opened, "second")
    pruning = plan_pruning(opened, Keep(newest=1))
    assert (list(pruning.runs), pruning.spared) == ([], {"first": "its results are reused by second"})
    evaluated(path, store)
    both = prune(opened, plan_pruning(opened, Keep(newest=1)))
    assert [removal.name for removal in both.runs] == ["first", "second"]
    assert emtta("report", "leaderboard", "--run", "run", "--store", store).code == 0


def test_run_reused_during_prune_is_kept(suite_file: SuiteFile, store: Path) -> None:
    opened = Store.open(store)
    path = suite_file(methods=("source",))
    evaluated(path, store)
    decided = plan_pruning(opened, Keep(newest=1))
    assert [removal.name for removal in decided.runs] == ["first"]
    planned = plan_run(load_suite(str(path)), load_run(opened, "first").plan.model_digest, "second")
    record(planned, opened)
    reuse = Reuse(opened, planned, planned.cells)
    found = reuse.of_cells()
    reuse.link(
        {cell: {one: replace(two, source_run="first") for one, two in made.items()} for cell, made in found.items()}
    )
    done = prune(opened, decided)
    assert (list(done.runs), done.spared["first"]) == ([], "its results are reused by second")
    assert [state.done for state in cell_states(opened, "second")] == [3]


def test_no_links_to_run_being_pruned(suite_file: SuiteFile, store: Path) -> None:
    opened = Store.open(store)
    path = suite_file(methods=("source",))
    planned = plan_run(load_suite(str(path)), load_run(opened, "first").plan.model_digest, "second")
    record(planned, opened)
    reuse = Reuse(opened, planned, planned.cells)
    found = reuse.of_cells()
    opened.backend.remove(["runs/run_id=first/run.parquet"])
    reuse.link(found)
    assert opened.links("second") == []


@pytest.mark.slow
def test_compaction_and_export_keep_reuse(emtta: Command, suite_file: SuiteFile, store: Path, tmp_path: Path) -> None:
    assert emtta("run", suite_file(), "--run-id", "second", "--store", store).code == 0
    opened = Store.open(store)
    query = "SELECT run_id, method, wer, reused FROM cells ORDER BY ALL"
    before, texts = rows(store, query), rows(store, "SELECT * FROM utterances ORDER BY ALL")
    for run_id in ("first", "second"):
        compact(opened, run_id)
        assert (rows(store, query), rows(store, "SELECT * FROM utterances ORDER BY ALL")) == (before, texts)
    assert emtta("rerun", "second", "--store", store).err.count("nothing to do") == 1
    for copy in (False, True):
        file = tmp_path / f"copy-{copy}.duckdb"
        export(opened, file, run_ids=["second"], copy=copy)
        import duckdb

        with duckdb.connect(str(file), read_only=True) as connection:
            assert connection.sql("SELECT method, done, reused FROM cells ORDER BY method DESC").fetchall() == [
                ("source", 3, 3),
                ("em-tok-b", 3, 0),
            ]


@pytest.mark.slow
def test_suggested_rerun_redoes_changes(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    speech.add("unscorable", tone(0.5, 300), "uh")
    speech.add("absent", None, "one more sentence")
    location, path = tmp_path / "store", suite_file(methods=("source",))
    path.write_text(path.read_text().replace("retries = 1", "retries = 1, fail_on_error = 0"))
    outcome = emtta("run", path, "--run-id", "mine", "--store", location)
    suggested = re.search(r"finish them with: emtta (rerun mine.*)", outcome.err)
    assert outcome.code == 3
    assert suggested, outcome.err
    results = "SELECT reference, error IS NULL FROM utterances WHERE utterance_id NOT LIKE 'good%' ORDER BY ALL"
    assert rows(location, results) == [("one more sentence", False), ("uh", False)]
    manifest = speech.path / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",uh", ",a hat"))
    (speech.path / "absent.wav").write_bytes((speech.path / "good0.wav").read_bytes())
    again = emtta(*shlex.split(suggested[1]))
    assert again.code == 0, again.err
    assert "domain clean is planned again with its current audio and transcripts" in again.err
    assert attempts(location, "mine", "source")[-1] == (2, 3)
    assert rows(location, results) == [("a hat", True), ("one more sentence", True)]
    failures = emtta("report", "failures", "--run", "mine", "--store", location, "--format", "csv").out
    assert failures.count("\n") == 1, "only its header"
    assert "Results of other runs" not in emtta("report", "leaderboard", "--run", "mine", "--store", location).err


def test_rerun_failed_redoes_fixed_path(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    away = CLEAN.replace('"clean"', '"away"', 1).replace('"speech"', '"away"')
    location = tmp_path / "store"
    failed = emtta("run", suite_file(CLEAN + away, ("source",)), "--run-id", "mine", "--store", location)
    assert (failed.code, "domain away cannot be prepared" in failed.err) == (3, True), failed.err
    speech.path.rename(tmp_path / "moved")
    (tmp_path / "away").symlink_to(tmp_path / "moved")
    outcome = emtta("rerun", "mine", "--failed", "--store", location)
    assert outcome.code == 0, outcome.err
    assert emtta("status", "mine", "--store", location).code == 0


@pytest.mark.slow
def test_rerun_failed_redoes_recording(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    speech.add("absent", None, "one more sentence")
    location, path = tmp_path / "store", suite_file(methods=("source",))
    assert emtta("run", path, "--run-id", "mine", "--store", location).code == 0
    (speech.path / "absent.wav").write_bytes((speech.path / "good0.wav").read_bytes())
    outcome = emtta("rerun", "mine", "--failed", "--store", location)
    assert outcome.code == 0, outcome.err
    assert attempts(location, "mine", "source")[-1] == (1, 3)


def test_failed_preparation_is_retried(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emtta_core.errors import AudioError
    from emtta_core.pipeline import preparation

    location, path = tmp_path / "store", suite_file(methods=("source",))
    encode = preparation.encode_flac

    def missing_library(_waveform: object) -> bytes:
        raise AudioError("a codec is missing")

    monkeypatch.setattr(preparation, "encode_flac", missing_library)
    failed = emtta("run", path, "--run-id", "mine", "--store", location)
    assert (failed.code, "all 3 utterances are in error" in failed.err) == (3, True), failed.err
    monkeypatch.setattr(preparation, "encode_flac", encode)
    outcome = emtta("rerun", "mine", "--store", location)
    assert outcome.code == 0, outcome.err
