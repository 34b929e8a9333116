"""`emtta rerun` runs missing or failed cells, or repeats all, under the same run id, and announces it first."""

from pathlib import Path

import pytest
from conftest import CLEAN, Command, Speech, Stage, SuiteFile, tone

from emtta_core.pipeline.state import cell_states
from emtta_core.store import CellKey, Store
from emtta_core.store.lease import lease

pytestmark = pytest.mark.usefixtures("prefect_server")

NOISY = CLEAN.replace('"clean"', '"noisy"', 1) + 'corruption = { name = "noise", kind = "typing", snr_db = 5 }\n'


@pytest.fixture
def tmp_path(stage: Stage) -> Path:
    return stage.clear()


@pytest.fixture
def half(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, stage: Stage) -> Path:
    """A store with a run `mine` of two domains and two methods, of which one is finished."""
    store, path = tmp_path / "store", suite_file(CLEAN + NOISY)

    def make() -> None:
        assert emtta("run", path, "--run-id", "mine", "--store", store, "--only", "method=source").code == 0

    stage.restore(make)
    return store


def attempts(store: Path, domain: str, method: str) -> list[tuple[str, int, int, int]]:
    rows = Store.open(store).cells(CellKey("mine", domain, method))
    return [(row.state, row.done, row.reused, row.errors) for row in rows]


def test_dry_run_lists_work_and_reuse(emtta: Command, half: Path) -> None:
    outcome = emtta("rerun", "mine", "--store", half, "--dry-run")
    assert outcome.code == 0
    assert "would do 2 of 4 cells, 6 utterances" in outcome.err
    assert "it would reuse 6 finished utterances" in outcome.err
    assert emtta("status", "mine", "--store", half).code == 3


def test_selected_gaps_are_filled_once(emtta: Command, half: Path) -> None:
    outcome = emtta("rerun", "mine", "--store", half, "--domain", "noisy")
    assert outcome.code == 0
    states = {state.cell.name: state.state for state in cell_states(Store.open(half), "mine")}
    assert states == {
        "clean/source": "complete",
        "clean/em-tok-b": "missing",
        "noisy/source": "complete",
        "noisy/em-tok-b": "complete",
    }
    assert emtta("rerun", "mine", "--store", half, "--group", "clean").code == 0
    again = emtta("rerun", "mine", "--store", half)
    assert again.code == 0
    assert "nothing to do" in again.err
    assert attempts(half, "clean", "source") == [("complete", 3, 0, 0)]


def test_force_reproduces_results(emtta: Command, half: Path) -> None:
    before = emtta("report", "domains", "--run", "mine", "--store", half, "--format", "csv").out
    outcome = emtta("rerun", "mine", "--store", half, "--method", "source", "--domain", "clean", "--force")
    assert outcome.code == 0
    assert "would do 1 of 1 cell, 3 utterances" in outcome.err
    assert attempts(half, "clean", "source") == [("complete", 3, 0, 0), ("complete", 3, 0, 0)]
    assert attempts(half, "noisy", "source") == [("complete", 3, 0, 0)]
    assert emtta("report", "domains", "--run", "mine", "--store", half, "--format", "csv").out == before


def test_failed_selects_cells_and_errors(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    speech.add("silent", 0.0 * tone(0.5), "nothing")
    store = tmp_path / "store"
    assert emtta("run", suite_file(), "--run-id", "mine", "--store", store, "--only", "method=source").code == 0
    assert attempts(store, "clean", "source") == [("complete", 4, 0, 1)]
    dry = emtta("rerun", "mine", "--store", store, "--failed", "--dry-run")
    assert "would do 1 of 2 cells, 1 utterance" in dry.err
    assert emtta("rerun", "mine", "--store", store, "--failed").code == 3  # the other method is still missing
    assert attempts(store, "clean", "source") == [("complete", 4, 0, 1), ("complete", 1, 3, 1)]
    assert attempts(store, "clean", "em-tok-b") == []


def test_excess_errors_fail_and_retry(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    speech.add("silent", 0.0 * tone(0.5), "nothing")
    path, store = suite_file(methods=("source",)), tmp_path / "store"
    strict = path.read_text().replace("batch_size = 2", "batch_size = 2, fail_on_error = 0.2, retry_on_error = 1")
    path.write_text(strict)
    outcome = emtta("run", path, "--run-id", "mine", "--store", store)
    assert outcome.code == 3
    assert "1 of 4 utterances are in error, and fail_on_error is 0.2" in outcome.err
    assert attempts(store, "clean", "source") == [("failed", 4, 0, 1)]
    assert emtta("status", "mine", "--store", store).code == 3
    assert emtta("rerun", "mine", "--store", store).code == 3
    assert attempts(store, "clean", "source")[-1] == ("failed", 1, 3, 1)
    path.write_text(strict.replace("fail_on_error = 0.2", "fail_on_error = 1"))
    assert emtta("run", path, "--run-id", "mine", "--store", store).code == 0
    assert attempts(store, "clean", "source")[-1] == ("complete", 0, 4, 1)


def test_all_in_error_is_incomplete(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    for recording in speech.path.glob("*.wav"):
        recording.write_bytes(b"")
    store = tmp_path / "store"
    outcome = emtta("run", suite_file(methods=("source",)), "--run-id", "mine", "--store", store)
    assert outcome.code == 3
    assert "incomplete: clean/source: all 3 utterances are in error; the report `failures` gives" in outcome.err
    status = emtta("status", "mine", "--store", store)
    assert status.code == 3
    assert "mine (incomplete)" in status.out
    assert "incomplete" in emtta("list", "--store", store).out


def test_other_code_run_is_read_only(emtta: Command, half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emtta_core.pipeline.run.ALGORITHM_VERSION", -1)
    for arguments in (("--dry-run",), (), ("--force",)):
        outcome = emtta("rerun", "mine", "--store", half, *arguments)
        assert outcome.code == 2
        assert "the run 'mine' was planned by different code" in outcome.err
        assert "the algorithm's version: " in outcome.err
        assert "start a new run of its suite" in outcome.err
    assert attempts(half, "clean", "em-tok-b") == []
    assert attempts(half, "clean", "source") == [("complete", 3, 0, 0)]
    assert emtta("status", "mine", "--store", half).code == 3
    assert emtta("report", "domains", "--run", "mine", "--store", half).code == 0
    assert emtta("rerun", "mine", "--store", half, "--method", "source").code == 0  # nothing to do, so it succeeds


def test_concurrent_rerun_is_refused(emtta: Command, half: Path) -> None:
    with lease(Store.open(half), "mine"):
        outcome = emtta("rerun", "mine", "--store", half)
    assert outcome.code == 1
    assert "the run 'mine' is being worked on by process" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["other"], "unknown run 'other'; choose from: mine"),
        (["mine", "--domain", "AB"], "unknown domain 'AB'; choose from: clean, noisy"),
        (["mine", "--failed", "--force"], "give only one of them"),
        (["mine", "--devices", "cuda:9"], "there is no device 'cuda:9'"),
    ],
)
def test_bad_request_is_reported(emtta: Command, half: Path, arguments: list[str], message: str) -> None:
    outcome = emtta("rerun", *arguments, "--store", half)
    assert outcome.code == 2
    assert message in outcome.err


def test_missing_store_is_not_created(emtta: Command, tmp_path: Path) -> None:
    outcome = emtta("rerun", "mine", "--store", tmp_path / "typo")
    assert (outcome.code, "there is no store at" in outcome.err) == (1, True)
    assert not (tmp_path / "typo").exists()
