"""No utterance is lost, repeated, or counted twice, however often a cell is started."""

import logging
import random

import pytest
from store_factory import begin_run, end_attempt, with_errors, write_shard

from emtta_core.store import Catalogue, CellKey, Store

KEY = CellKey("run", "babble", "em-tok")
CELL = "babble.em-tok"


@pytest.fixture
def store(usual_location: str) -> Store:
    store = Store.open(usual_location, create=True)
    begin_run(store, "run", [("noise", "babble", "em-tok")], utterances=12)
    return store


def counted(store: Store) -> dict[str, tuple[int, str | None]]:
    """By utterance, the attempt that counts and its hypothesis; checks that the store and SQL agree."""
    done = {name: (row.hypothesis.attempt, row.hypothesis.hypothesis) for name, row in store.done(KEY, CELL).items()}
    with Catalogue(store) as catalogue:
        rows = catalogue.query("SELECT utterance_id, attempt, hypothesis FROM utterances").rows
    assert {name: (attempt, hypothesis) for name, attempt, hypothesis in rows} == done
    assert len(rows) == len(done)
    return done


def cell(store: Store) -> dict[str, object]:
    with Catalogue(store) as catalogue:
        (record,) = catalogue.query("SELECT * FROM cells").records
    return record


def test_successive_attempts_add_up(store: Store) -> None:
    write_shard(store, KEY, {f"u{i}": [with_errors(1)] for i in range(5)}, attempt=1)
    assert set(store.done(KEY, CELL)) == {f"u{i}" for i in range(5)}
    assert (cell(store)["state"], cell(store)["done"], cell(store)["wer"]) == ("partial", 5, 25.0)
    write_shard(store, KEY, {f"u{i}": [with_errors(2)] for i in range(5, 12)}, attempt=2)
    end_attempt(store, KEY, group="noise", attempt=2)
    assert {name: attempt for name, (attempt, _) in counted(store).items()} == {
        f"u{i}": 1 if i < 5 else 2 for i in range(12)
    }
    assert (cell(store)["state"], cell(store)["done"], cell(store)["errors"]) == ("complete", 12, 5 + 14)


def test_newer_attempt_supersedes_older(store: Store) -> None:
    write_shard(store, KEY, {"a": [with_errors(2)]}, attempt=1)
    write_shard(store, KEY, {"a": [with_errors(1)]}, attempt=2)
    assert counted(store) == {"a": (2, with_errors(1))}


def test_failed_attempt_removes_nothing(store: Store) -> None:
    write_shard(store, KEY, {f"u{i}": [with_errors(1)] for i in range(12)}, attempt=1)
    end_attempt(store, KEY, group="noise", attempt=1)
    write_shard(store, KEY, {"u0": None}, attempt=2)
    end_attempt(store, KEY, group="noise", attempt=2, error="out of memory")
    assert {attempt for attempt, _ in counted(store).values()} == {1}
    assert (cell(store)["state"], cell(store)["in_error"], cell(store)["error"]) == ("complete", 0, None)
    assert cell(store)["attempts"] == 2


def test_kill_keeps_cell_complete(store: Store) -> None:
    write_shard(store, KEY, {f"u{i}": [with_errors(1)] if i else None for i in range(12)}, attempt=1)
    end_attempt(store, KEY, group="noise", attempt=1)
    before = cell(store)
    assert (before["state"], before["in_error"], before["wer"]) == ("complete", 1, 25.0)
    end_attempt(store, KEY, group="noise", attempt=2, error="ended by SIGKILL", reached_end=False)
    write_shard(store, KEY, {"u0": None}, attempt=3)
    end_attempt(store, KEY, group="noise", attempt=3, error="ended by SIGKILL", reached_end=False)
    after = cell(store)
    assert {name: after[name] for name in ("state", "done", "in_error", "wer", "error")} == {
        name: before[name] for name in ("state", "done", "in_error", "wer", "error")
    }
    assert after["attempts"] == 3


def test_newest_finished_attempt_decides(store: Store) -> None:
    write_shard(store, KEY, {f"u{i}": [with_errors(1)] if i else None for i in range(12)}, attempt=1)
    end_attempt(store, KEY, group="noise", attempt=1)
    end_attempt(store, KEY, group="noise", attempt=2, error="1 of 12 utterances are in error")  # the limit was lowered
    assert (cell(store)["state"], cell(store)["error"]) == ("failed", "1 of 12 utterances are in error")
    end_attempt(store, KEY, group="noise", attempt=3, error="ended by SIGKILL", reached_end=False)
    assert (cell(store)["state"], cell(store)["error"]) == ("failed", "ended by SIGKILL")
    end_attempt(store, KEY, group="noise", attempt=4)  # the limit was raised
    assert (cell(store)["state"], cell(store)["error"]) == ("complete", None)


def test_interrupted_cell_is_not_failed(store: Store) -> None:
    stopped = {"error": "asked to stop", "state": "interrupted", "reached_end": False}
    end_attempt(store, KEY, group="noise", attempt=1, error="the device went away")
    end_attempt(store, KEY, group="noise", attempt=2, **stopped)
    assert (cell(store)["state"], cell(store)["error"]) == ("missing", "asked to stop")
    write_shard(store, KEY, {"u0": [with_errors(1)]}, attempt=2)
    assert (cell(store)["state"], cell(store)["error"]) == ("partial", "asked to stop")
    write_shard(store, KEY, {f"u{i}": None for i in range(12)}, attempt=3)
    end_attempt(store, KEY, group="noise", attempt=3, error="11 of 12 utterances are in error")
    end_attempt(store, KEY, group="noise", attempt=4, **stopped)
    assert (cell(store)["state"], cell(store)["error"]) == ("failed", "asked to stop")  # still too many in error


def test_failed_cell_shows_reason(store: Store) -> None:
    write_shard(store, KEY, {"u0": [with_errors(1)]}, attempt=1)
    end_attempt(store, KEY, group="noise", attempt=1, error="the device went away")
    assert (cell(store)["state"], cell(store)["done"]) == ("failed", 1)
    assert cell(store)["error"] == "the device went away"


def test_success_supersedes_error(store: Store) -> None:
    write_shard(store, KEY, {"a": None, "b": None, "c": [with_errors(1)]}, attempt=1)
    write_shard(store, KEY, {"a": [with_errors(0)], "b": None, "c": None}, attempt=2)
    assert counted(store) == {"a": (2, with_errors(0)), "b": (2, None), "c": (1, with_errors(1))}


def test_scored_utterance_beats_unscored(store: Store) -> None:
    write_shard(store, KEY, {"a": [with_errors(1)]}, attempt=1, reference="red green blue river")
    write_shard(store, KEY, {"a": [with_errors(1)], "b": [with_errors(1)]}, attempt=2, reference="…")
    assert {name: attempt for name, (attempt, _) in counted(store).items()} == {"a": 1, "b": 2}
    assert (cell(store)["done"], cell(store)["in_error"], cell(store)["words"]) == (2, 1, 4)


def test_other_identity_does_not_count(store: Store) -> None:
    write_shard(store, KEY, {"a": [with_errors(1)], "b": [with_errors(1)]}, attempt=1)
    write_shard(store, KEY, {"a": [with_errors(4)], "z": [with_errors(4)]}, attempt=2, cell_id="stale")
    assert counted(store) == {"a": (1, with_errors(1)), "b": (1, with_errors(1))}
    assert set(store.done(KEY, "stale")) == {"a", "z"}


def test_unscored_hypotheses_are_not_done(store: Store) -> None:
    write_shard(store, KEY, {"a": [with_errors(1)], "b": None}, attempt=1, scored=False)
    assert set(counted(store)) == {"b"}
    write_shard(store, KEY, {"a": [with_errors(2)]}, attempt=2)
    assert counted(store)["a"] == (2, with_errors(2))


@pytest.mark.parametrize("table", ["hypotheses", "scores"])
@pytest.mark.parametrize("keep", [0, 3, 200])
def test_only_truncated_file_is_redone(table: str, keep: int, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    write_shard(store, KEY, {"a": [with_errors(1)]}, shard=0)
    write_shard(store, KEY, {"b": [with_errors(1)]}, shard=1)
    name = f"{table}/{KEY.folder}/001-00001.parquet"
    store.backend.write(name, store.backend.read(name)[:keep])
    with caplog.at_level(logging.WARNING, logger="emtta.store"):
        assert set(store.done(KEY, CELL)) == {"a"}
    assert store.backend.url(name) in caplog.text
    assert set(counted(store)) == {"a"}
    write_shard(store, KEY, {"b": [with_errors(0)]}, attempt=store.begin_attempt(KEY))
    assert counted(store) == {"a": (1, with_errors(1)), "b": (2, with_errors(0))}


@pytest.mark.parametrize("seed", range(6))
def test_store_and_sql_agree(seed: int, store: Store) -> None:
    rng = random.Random(seed)
    for attempt in range(1, 6):
        names = rng.sample("abcdefgh", rng.randint(1, 6))
        half = len(names) // 2
        for shard, part in enumerate((names[:half], names[half:])):
            write_shard(
                store,
                KEY,
                {name: rng.choice([None, [with_errors(rng.randint(0, 4))]]) for name in part},
                attempt=attempt,
                shard=shard,
                cell_id=rng.choice([CELL, CELL, "stale"]),
                reference=rng.choice(["red green blue river", "red green blue river", "…"]),
                scored=rng.random() < 0.7,
            )
    counted(store)
