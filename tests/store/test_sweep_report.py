"""`report sweep` chooses settings on one group of domains, and shows only the chosen ones on the other groups."""

from pathlib import Path

import pytest
from store_factory import begin_run, end_attempt, with_errors, write_shard

from emtta_core.errors import UsageError
from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.store import Catalogue, CellKey, Store

ERRORS = {
    "source": {"noise": 4, "accent": 4, "language": 4},
    "em-tok-b+steps-5+learning_rate-0.001": {"noise": 3, "accent": 1, "language": 3},
    "em-tok-b+steps-10+learning_rate-1e-05": {"noise": 1, "accent": 2, "language": 3},
    "em-tok-b+steps-20+learning_rate-1e-05": {"noise": 1, "accent": 3, "language": 0},
    "mine+beam": {"noise": 0, "accent": 0, "language": 0},  # a name with a plus, but no sweep
}
GROUPS = ("noise", "accent", "language")


def fill(store: Store, done: tuple[str, ...] = tuple(ERRORS)) -> None:
    begin_run(store, "run", [(group, f"d-{group}", method) for group in GROUPS for method in ERRORS], utterances=6)
    for method in done:
        for group in GROUPS:
            key = CellKey("run", f"d-{group}", method)
            heads = {f"u{number}": [with_errors(ERRORS[method][group])] for number in range(6)}
            write_shard(store, key, heads)
            end_attempt(store, key, group=group)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path, create=True)


def rows(store: Store, **parameters: str) -> list[tuple[object, ...]]:
    with Catalogue(store) as catalogue:
        found = catalogue.report("sweep", "run", **parameters)
    names = ("sweep", "chosen_on", "group", "settings", "wer", "is_chosen")
    return [tuple(record[name] for name in names) for record in found.records]


def test_choice_is_shown_on_other_groups(store: Store) -> None:
    fill(store)
    update_statistics(store, "run")
    small, fast, long = "steps=5, learning_rate=0.001", "steps=10, learning_rate=1e-05", "steps=20, learning_rate=1e-05"
    assert rows(store, group="noise") == [
        ("em-tok-b", "noise", "noise", small, 75.0, False),
        ("em-tok-b", "noise", "noise", fast, 25.0, True),  # a tie goes to the first in the plan
        ("em-tok-b", "noise", "noise", long, 25.0, False),
        ("em-tok-b", "noise", "accent", fast, 50.0, True),
        ("em-tok-b", "noise", "language", fast, 75.0, True),
    ]
    chosen = {(row[1], row[3]) for row in rows(store) if row[5]}
    assert chosen == {("noise", fast), ("accent", small), ("language", long)}
    with Catalogue(store) as catalogue:
        first = catalogue.report("sweep", "run", group="noise").records[0]
    assert (first["wer_low"], first["wer_high"], first["change"]) == pytest.approx((75.0, 75.0, -25.0))


def test_incomplete_group_chooses_nothing(store: Store) -> None:
    fill(store, tuple(ERRORS)[:-2])
    found = rows(store, group="noise")
    assert [row[4] for row in found] == [75.0, 25.0, None]
    assert not any(row[5] for row in found)


def test_unknown_group_is_refused(store: Store) -> None:
    fill(store, ())
    with pytest.raises(UsageError, match=r"'noises'.*did you mean 'noise'"):
        rows(store, group="noises")
