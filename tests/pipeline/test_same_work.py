"""Cells of one run with the same work: one is computed, and the others reuse its results."""

from pathlib import Path

import pytest
from conftest import CLEAN, Command, Speech, SuiteFile

from emtta_core.pipeline.state import CellState, cell_states
from emtta_core.store import Catalogue, CellKey, Store

pytestmark = pytest.mark.usefixtures("prefect_server")

SAME, OTHER = "em-tok-b+steps-1", "em-tok-b+steps-2"


@pytest.fixture
def swept(suite_file: SuiteFile, speech: Speech) -> Path:
    """A suite with a method, a sweep that includes the method's own value, and two domains with one corpus."""
    path = suite_file(CLEAN + CLEAN.replace('"clean"', '"again"', 1))
    text = path.read_text()
    methods = '["em-tok-b", { name = "em-tok-b", sweep = { steps = [1, 2] } }]'
    path.write_text(text.replace("['source', 'em-tok-b']", methods))
    return path


def done_itself(store: Path, cell: CellState) -> int:
    """The number of utterances that the attempts at a cell did."""
    key = CellKey("mine", cell.cell.domain, cell.cell.method, cell.cell.seed)
    return sum(row.done for row in Store.open(store).cells(key))


def test_same_work_is_done_once(emtta: Command, swept: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    dry = emtta("run", swept, "--run-id", "mine", "--store", store, "--dry-run")
    assert "4 of the cells are the same work as others of this run, and reuse their results" in dry.err
    outcome = emtta("run", swept, "--run-id", "mine", "--store", store)
    assert outcome.code == 0, outcome.err
    states = cell_states(Store.open(store), "mine")
    assert len(states) == 6
    assert all(state.complete for state in states)
    assert sorted(done_itself(store, state) for state in states) == [0, 0, 0, 0, 3, 3]
    assert "Results of other runs" not in emtta("report", "leaderboard", "--run", "mine", "--store", store).err
    with Catalogue(Store.open(store)) as catalogue:
        rows = catalogue.query("SELECT DISTINCT method, utterance_id, hypothesis, entropy_after FROM utterances").rows
    texts = {method: sorted(row for name, *row in rows if name == method) for method in ("em-tok-b", SAME, OTHER)}
    assert texts["em-tok-b"] == texts[SAME] != texts[OTHER]


def test_each_cell_retries_errors(emtta: Command, swept: Path, speech: Speech, tmp_path: Path) -> None:
    store = tmp_path / "store"
    speech.add("absent", None, "one more sentence")
    outcome = emtta("run", swept, "--run-id", "mine", "--store", store)
    assert outcome.code == 0, outcome.err
    states = cell_states(Store.open(store), "mine")
    assert {(state.done, state.in_error) for state in states} == {(4, 1)}
    assert sorted(done_itself(store, state) for state in states) == [1, 1, 1, 1, 4, 4]


@pytest.mark.slow
def test_no_reuse_measures_each_cell(emtta: Command, swept: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    outcome = emtta("run", swept, "--run-id", "mine", "--store", store, "--no-reuse")
    assert outcome.code == 0, outcome.err
    assert [done_itself(store, state) for state in cell_states(Store.open(store), "mine")] == [3] * 6
