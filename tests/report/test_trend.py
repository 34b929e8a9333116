"""The trend watch finds a rise from night to night that no single comparison sees."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import scipy.stats
from conftest import Command
from store_factory import begin_run, end_attempt, with_errors, write_shard

from emtta_core.errors import UsageError
from emtta_core.store import Catalogue, CellKey, Store
from emtta_core.trend import Trend, watch

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = 4


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path, create=True)


def night(store: Store, number: int, errors: int, *, of: int = 10, corpus: str = "corpus") -> str:
    """Write the run of a night with `errors` word errors in `of` utterances."""
    run_id, key = f"n{number:02d}", CellKey(f"n{number:02d}", "vacuum", "em-tok")
    begin_run(store, run_id, [("noise", "vacuum", "em-tok")], utterances=of, created_at=FIRST + timedelta(days=number))
    store.write_plan(run_id, [replace(row, corpus_id=corpus) for row in store.plan(run_id)])
    each = [min(WORDS, max(0, errors - WORDS * index)) for index in range(of)]
    write_shard(store, key, {f"u{index}": [with_errors(count)] for index, count in enumerate(each)})
    end_attempt(store, key, group="noise")
    return run_id


def nights(store: Store, errors: Sequence[int]) -> Trend:
    """The trend at the last of some nights."""
    for number, count in enumerate(errors):
        last = night(store, number, count)
    (found,) = watch(store, last).trends
    return found


def test_rise_is_worse(store: Store) -> None:
    errors = [10, 10, 11, 11, 11, 12, 12, 12, 13, 13, 14, 14]
    found = nights(store, errors)
    assert (found.state, found.nights, found.is_new) == ("worse", 12, True)
    wer = [100 * count / 40 for count in errors]
    theirs = scipy.stats.theilslopes(wer)
    assert found.drift == pytest.approx(theirs.slope * 11)
    assert found.z == pytest.approx(scipy.stats.norm.isf(scipy.stats.kendalltau(range(12), wer).pvalue / 2), abs=0.15)


@pytest.mark.parametrize(
    "errors", [[10] * 12, [14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9], [10, 12, 9, 11, 10, 12, 11, 9, 10, 12]]
)
def test_no_rise_is_no_trend(store: Store, errors: list[int]) -> None:
    assert nights(store, errors).state == "none"


def test_few_nights_are_reported(store: Store) -> None:
    found = nights(store, [10, 11, 12, 13])
    assert (found.state, found.nights, found.drift) == ("too few, 4 of 10", 4, None)
    assert watch(store, "n03").summary == "trend watch: too few, 4 of 10 nights with the same speech"


def test_alarm_is_new_once(store: Store) -> None:
    rise = list(range(1, 14))
    nights(store, rise)
    states = [(found.is_worse, found.is_new) for run in range(8, 13) for found in watch(store, f"n{run:02d}").trends]
    assert states == [(False, False), (True, True), (True, False), (True, False), (True, False)]


def test_other_speech_restarts_trend(store: Store) -> None:
    for number in range(12):
        night(store, number, number, corpus="old" if number < 6 else "new")
    (found,) = watch(store, "n11").trends
    assert (found.state, found.nights) == ("too few, 6 of 10", 6)


def test_options_set_nights_and_threshold(store: Store) -> None:
    nights(store, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 4, 5])
    assert [watch(store, "n15", nights=count).trends[0].nights for count in (5, 16, 30)] == [5, 16, 16]
    assert watch(store, "n15", threshold=2, nights=5).worse
    assert not watch(store, "n15", threshold=2, nights=5, min_effect=20).worse
    assert not watch(store, "n15", threshold=2, nights=5, min_effect="500%").worse


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"nights": 2}, "the trend is sought over 2 nights; give a number from 3 to 1000"),
        ({"threshold": float("nan")}, "the threshold of a trend is nan; give a number from 0, such as 3.8"),
        (
            {"min_effect": "2 points"},
            "the minimum effect is 2 points; it must be a number of WER points, such as 0.5, or a share",
        ),
    ],
)
def test_invalid_option_is_refused(store: Store, asked: dict[str, object], message: str) -> None:
    night(store, 0, 1)
    with pytest.raises(UsageError, match=message):
        watch(store, "n00", **asked)


def test_history_shows_trend(store: Store, emtta: Command, tmp_path: Path) -> None:
    nights(store, range(1, 13))
    with Catalogue(store) as catalogue:
        rows = catalogue.report("history").records
    assert [row["trend"] for row in rows] == [f"too few, {count} of 10" for count in range(1, 10)] + ["worse"] * 3
    assert [row["watched"] for row in rows] == list(range(1, 13))
    few = emtta("report", "history", "--store", tmp_path, "--param", "nights=2", "--format", "csv")
    assert [line.count("worse") for line in few.out.splitlines()[1:]] == [1, 1]
    refused = emtta("report", "history", "--store", tmp_path, "--param", "trend_z=much")
    assert (
        refused.code,
        "the parameter trend_z is 'much'; it must be a number from 0, such as 3.8" in refused.err,
    ) == (2, True)
