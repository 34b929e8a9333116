"""Two runs are compared utterance by utterance, only on the same speech, and tested against chance."""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from conftest import Command
from store_factory import REFERENCE, begin_run, end_attempt, with_errors, write_shard

from emtta_core.compare import ALL, Change, Comparison, compare
from emtta_core.errors import UsageError
from emtta_core.scoring.paired import ALPHA
from emtta_core.scoring.significance import MIN_EFFECT, holm
from emtta_core.store import Catalogue, CellKey, Store
from emtta_core.suite.file import SHIPPED
from flows.cli.runs import compare as compare_command
from flows.cli.schedule import schedule as schedule_command

WORDS = len(REFERENCE.split())
Errors = Mapping[str, Sequence[int | None]]
"""By domain, the word errors of its utterances; None for one in error."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


def write_run(store: Store, run_id: str, domains: Errors, *, methods: Sequence[str] = ("em-tok-b",)) -> None:
    """Write a complete run."""
    cells = [("noise", domain, method) for domain in domains for method in methods]
    begin_run(store, run_id, cells, utterances=len(next(iter(domains.values()))))
    for group, domain, method in cells:
        texts = {
            f"u{index:03d}": None if errors is None else [with_errors(errors)]
            for index, errors in enumerate(domains[domain])
        }
        write_shard(store, CellKey(run_id, domain, method), texts)
        end_attempt(store, CellKey(run_id, domain, method), group=group)


def change(comparison: Comparison, domain: str, method: str = "em-tok-b") -> Change:
    (found,) = (item for item in comparison.changes if (item.domain, item.method) == (domain, method))
    return found


def drawn(seed: int, count: int, mean: float) -> list[int]:
    return [int(value) for value in np.random.default_rng(seed).binomial(WORDS, mean, count)]


def test_figures_match_utterances(store: Store) -> None:
    a, b = (
        {"vacuum": drawn(1, 60, 0.2), "rain": drawn(2, 60, 0.3)},
        {"vacuum": drawn(3, 60, 0.5), "rain": drawn(4, 60, 0.3)},
    )
    write_run(store, "first", a)
    write_run(store, "second", b)
    found = compare(store, "first", "second")
    assert [item.domain for item in found.changes] == ["vacuum", "rain", ALL]
    p_values = []
    for name in ("vacuum", "rain"):
        item = change(found, name)
        assert item.wer_a == pytest.approx(100 * sum(a[name]) / (60 * WORDS))
        assert item.wer_b == pytest.approx(100 * sum(b[name]) / (60 * WORDS))
        assert item.difference == pytest.approx(item.wer_b - item.wer_a)
        assert item.low < item.difference < item.high
        added = np.array(b[name]) - np.array(a[name])
        assert (item.wins, item.ties, item.losses) == (sum(added < 0), sum(added == 0), sum(added > 0))
        theirs = scipy.stats.permutation_test(
            (added,), lambda values, axis: values.sum(axis=axis), permutation_type="samples", vectorized=True
        )
        p_values.append(theirs.pvalue)
        interval = scipy.stats.bootstrap((added / WORDS * 100,), np.mean, method="percentile").confidence_interval
        assert (item.low, item.high) == pytest.approx(tuple(interval), abs=1.0)
    for name, p in zip(("vacuum", "rain"), holm(p_values), strict=True):
        assert change(found, name).p == pytest.approx(p, abs=0.05)
    mean = change(found, ALL)
    assert mean.wer_a == pytest.approx(np.mean([change(found, name).wer_a for name in a]))
    assert mean.wer_b == pytest.approx(np.mean([change(found, name).wer_b for name in a]))
    assert mean.utterances == 120
    assert [(item.domain, item.verdict) for item in found.changes] == [
        ("vacuum", "worse"),
        ("rain", "not distinguishable"),
        (ALL, "worse"),
    ]
    assert [item.domain for item in found.regressions] == ["vacuum", ALL]


def test_identical_runs_are_unchanged(store: Store) -> None:
    errors = {"vacuum": drawn(1, 40, 0.2)}
    write_run(store, "first", errors)
    write_run(store, "second", errors)
    for item in compare(store, "first", "second").changes:
        assert (item.difference, item.low, item.high, item.p) == (0, 0, 0, 1)
        assert (item.wins, item.ties, item.losses, item.verdict) == (0, 40, 0, "unchanged")


def test_swapped_runs_swap_verdict(store: Store) -> None:
    write_run(store, "first", {"vacuum": drawn(1, 50, 0.2)})
    write_run(store, "second", {"vacuum": drawn(2, 50, 0.6)})
    there, back = compare(store, "first", "second"), compare(store, "second", "first")
    for one, other in zip(there.changes, back.changes, strict=True):
        assert (one.verdict, other.verdict) == ("worse", "better")
        assert one.difference == -other.difference
        assert one.p == other.p
        assert (one.wins, one.losses) == (other.losses, other.wins)


def test_negligible_change_is_too_small(store: Store) -> None:
    write_run(store, "first", {"vacuum": [1] * 30})
    write_run(store, "second", {"vacuum": [2] * 30})
    assert change(compare(store, "first", "second", min_effect=24.9), "vacuum").verdict == "worse"
    found = change(compare(store, "first", "second", min_effect=25), "vacuum")
    assert (found.difference, found.verdict) == (25, "too small")
    assert found.p < 0.001


def test_min_effect_may_be_relative(store: Store) -> None:
    write_run(store, "first", {"vacuum": [1] * 30})
    write_run(store, "second", {"vacuum": [2] * 30})  # 25 points above 25 %
    found = compare(store, "first", "second", min_effect="99%")
    assert change(found, "vacuum").verdict == "worse"
    assert found.summary.endswith("(p ≤ 0.05, over 99 % of the baseline's WER)")
    assert found.as_dict()["min_effect"] == "99%"
    assert change(compare(store, "first", "second", min_effect="100%"), "vacuum").verdict == "too small"


def test_methods_are_corrected_together(store: Store) -> None:
    errors = {name: drawn(index, 40, 0.3) for index, name in enumerate(("vacuum", "rain"))}
    methods = ("em-tok", "em-tok-b", "em-seq")
    write_run(store, "first", errors, methods=methods)
    write_run(store, "second", errors | {"rain": drawn(9, 40, 0.4)}, methods=methods)
    single = compare(store, "first", "second", methods=["em-tok"], domains=["rain"])
    alone, together = compare(store, "first", "second", methods=["em-tok"]), compare(store, "first", "second")
    p = change(single, "rain", "em-tok").p
    assert 0 < p < 1 / 6
    # Holm's correction multiplies the smallest p by the number of tests: of 2 domains, and then with 3 methods each.
    assert change(alone, "rain", "em-tok").p == pytest.approx(2 * p)
    assert change(together, "rain", "em-tok").p == pytest.approx(6 * p)
    assert change(together, ALL, "em-tok").p == pytest.approx(3 * change(alone, ALL, "em-tok").p)


def test_chance_is_not_regression(store: Store) -> None:
    write_run(store, "first", {"vacuum": [1, 1, 1, 1]})
    write_run(store, "second", {"vacuum": [2, 2, 2, 2]})  # 4 utterances: 2 of 16 ways to flip signs are as extreme
    found = change(compare(store, "first", "second"), "vacuum")
    assert (found.p, found.verdict) == (0.125, "not distinguishable")
    assert change(compare(store, "first", "second", alpha=0.2), "vacuum").verdict == "worse"


def test_shared_utterances_count_once(store: Store) -> None:
    # The same 20 utterances under eight noises, all with the same change, tell no more than one domain.
    errors_a, errors_b = drawn(1, 20, 0.3), drawn(2, 20, 0.4)
    domains = [f"noise{index}" for index in range(8)]
    write_run(store, "first", dict.fromkeys(domains, errors_a))
    write_run(store, "second", dict.fromkeys(domains, errors_b))
    found = compare(store, "first", "second")
    one, mean = change(found, "noise0"), change(found, ALL)
    assert (mean.low, mean.high) == pytest.approx((one.low, one.high))
    alone = compare(store, "first", "second", domains=["noise0"])
    assert mean.p == pytest.approx(change(alone, "noise0").p)


def test_utterance_in_error_is_left_out(store: Store) -> None:
    write_run(store, "first", {"vacuum": [1, 1, None, 1]})
    write_run(store, "second", {"vacuum": [1, None, None, 1]})
    found = compare(store, "first", "second")
    assert change(found, "vacuum").utterances == 2
    assert found.notes == (
        "vacuum/em-tok-b: 2 utterances are left out because they are in error or not done: 1 in A, 2 in B",
        "all, vacuum: 1 speaker: the interval does not reflect how speakers differ",
    )


def test_incomplete_mean_is_hidden(store: Store) -> None:
    write_run(store, "first", {"vacuum": [1, 1], "rain": [1, 1]})
    begin_run(store, "second", [("noise", "vacuum", "em-tok-b"), ("noise", "rain", "em-tok-b")])
    write_shard(store, CellKey("second", "vacuum", "em-tok-b"), {"u000": [with_errors(1)], "u001": [with_errors(1)]})
    write_shard(store, CellKey("second", "rain", "em-tok-b"), {"u000": [with_errors(1)]})
    found = compare(store, "first", "second")
    assert [item.domain for item in found.changes] == ["vacuum", "rain"]
    assert change(found, "rain").utterances == 1
    assert (
        "em-tok-b: the mean over all domains is hidden because these cells are incomplete: rain in second"
        in found.notes
    )
    assert [item.domain for item in compare(store, "first", "second", domains=["vacuum"]).changes] == ["vacuum", ALL]


def rewrite(store: Store, run_id: str, *, corpus: str | None = None, **changed: object) -> None:
    """Change the record of a run, and its corpora."""
    store.write_run(run_id, replace(store.run(run_id), **changed))
    if corpus is not None:
        store.write_plan(run_id, [replace(row, corpus_id=corpus) for row in store.plan(run_id)])


def test_other_speech_is_refused(store: Store) -> None:
    demo = (SHIPPED / "smoke.toml").read_text().replace('"BA"', '"vacuum"')
    for run_id in ("first", "second"):
        write_run(store, run_id, {"vacuum": [1, 1]})
    rewrite(store, "first", suite_toml=demo)
    rewrite(store, "second", suite_toml=demo.replace("snr_db = 7", "snr_db = 0"), corpus="other")
    with pytest.raises(UsageError, match="the speech differs in vacuum") as refusal:
        compare(store, "first", "second")
    assert "domains.vacuum.corruption.snr_db: 7.0 in A, 0.0 in B" in str(refusal.value)
    rewrite(store, "second", suite_toml=demo)
    with pytest.raises(UsageError, match="the content of a corpus"):
        compare(store, "first", "second")


def test_other_normalizer_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(store, "first", {"vacuum": [1, 1]})
    monkeypatch.setattr("store_factory.LANGUAGE", "de")  # scored by another normalizer
    write_run(store, "second", {"vacuum": [1, 1]})
    with pytest.raises(UsageError, match=r"was scored by .*english.* in A, and by .*basic.* in B"):
        compare(store, "first", "second")


def test_other_differences_are_noted(store: Store) -> None:
    demo = (SHIPPED / "smoke.toml").read_text()
    for run_id in ("first", "second"):
        write_run(store, run_id, {"vacuum": [1, 1]})
    rewrite(store, "first", suite_toml=demo, versions='{"torch": "2.11"}')
    other = demo.replace("steps = 5", "steps = 2")
    rewrite(store, "second", suite_toml=other, model_digest="e", algorithm_version=2, versions='{"torch": "2.12"}')
    differences = [str(item) for item in compare(store, "first", "second").differences]
    assert differences == [
        "adaptation.steps: 5 in A, 2 in B",
        "the model's weights: d in A, e in B",
        "the algorithm's version: 1 in A, 2 in B",
        "torch: 2.11 in A, 2.12 in B",
    ]


def test_disjoint_runs_are_refused(store: Store) -> None:
    write_run(store, "first", {"vacuum": [1, 1]})
    write_run(store, "second", {"rain": [1, 1]})
    with pytest.raises(
        UsageError, match="no domain and method in common: first has vacuum with em-tok-b; second has r"
    ):
        compare(store, "first", "second")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"methods": ["mbr"]}, "unknown method of both runs 'mbr'; choose from: em-tok-b, source"),
        ({"domains": ["sun"]}, "unknown domain of both runs 'sun'; choose from: vacuum"),
        ({"alpha": 5.0}, "alpha is 5; it must be between 0 and 1"),
        ({"min_effect": -1.0}, "the minimum effect is -1; it must be a number of WER points, such as 0.5, or a share"),
        ({"min_effect": float("nan")}, "the minimum effect is nan"),
        (
            {"min_effect": "few"},
            "the minimum effect is few; it must be a number of WER points, such as 0.5, or a share",
        ),
    ],
)
def test_invalid_request_is_refused(store: Store, asked: dict[str, object], message: str) -> None:
    for run_id in ("first", "second"):
        write_run(store, run_id, {"vacuum": [1, 1]}, methods=("source", "em-tok-b"))
    with pytest.raises(UsageError) as refusal:
        compare(store, "first", "second", **asked)
    assert message in str(refusal.value)


def test_enough_speakers_are_resampled(store: Store) -> None:
    write_run(store, "first", {"vacuum": [1] * 30})
    write_run(store, "second", {"vacuum": [2] * 30})
    assert change(compare(store, "first", "second"), "vacuum").drawn == "utterances"  # all are of the same speaker
    write_speakers = {"first": 1, "second": 2}
    for run_id, errors in write_speakers.items():
        key = CellKey(run_id, "rain", "em-tok-b")
        begin_run(store, run_id, [("noise", "rain", "em-tok-b")], utterances=30)
        for speaker in range(15):
            texts = {f"{speaker}-{index}": [with_errors(errors)] for index in range(2)}
            write_shard(store, key, texts, shard=speaker, speaker=f"s{speaker}")
        end_attempt(store, key, group="noise")
    found = change(compare(store, "first", "second"), "rain")
    assert (found.drawn, found.utterances) == ("speakers", 30)
    assert found.p == pytest.approx(2 / 2**15, abs=2e-4)


def test_commands_share_default_thresholds() -> None:
    for command in (compare_command, schedule_command):
        defaults = inspect.signature(command).parameters
        assert (defaults["alpha"].default, defaults["min_effect"].default) == (ALPHA, str(MIN_EFFECT))


def two_runs(store: Store) -> None:
    write_run(store, "first", {"vacuum": drawn(1, 50, 0.2)}, methods=("source", "em-tok-b"))
    write_run(store, "second", {"vacuum": drawn(2, 50, 0.6)}, methods=("source", "em-tok-b"))


def test_regression_exits_3_on_request(store: Store, emtta: Command) -> None:
    two_runs(store)
    where = ("--store", store.location)
    assert emtta("compare", "first", "second", *where).code == 0
    worse = emtta("compare", "first", "second", "--fail-on-regression", *where)
    assert (worse.code, "second against first: 4 worse and 0 better of 4 figures" in worse.err) == (3, True), worse.err
    assert emtta("compare", "second", "first", "--fail-on-regression", *where).code == 0
    unknown = emtta("compare", "first", "third", *where)
    assert (unknown.code, "unknown run 'third'" in unknown.err) == (2, True), unknown.err
    loose = emtta("compare", "first", "second", "--fail-on-regression", "--min-effect", 90, *where)
    assert loose.code == 0


def test_command_writes_every_format(store: Store, emtta: Command) -> None:
    two_runs(store)
    where = ("compare", "first", "second", "--method", "source", "--store", store.location)
    table = emtta(*where)
    assert "vacuum" in table.out
    assert "worse" in table.out
    assert "em-tok-b" not in table.out
    assert "second against first: 2 worse and 0 better of 2 figures" in table.err
    data = json.loads(emtta(*where, "--format", "json").out)
    assert [item["domain"] for item in data["regressions"]] == ["vacuum", "all"]
    assert data["changes"][0]["difference"] == pytest.approx(data["changes"][0]["wer_b"] - data["changes"][0]["wer_a"])
    markdown = emtta(*where, "--format", "markdown").out
    assert markdown.startswith("# second (B) against first (A)\n")
    assert "| source | vacuum | worse | +39.00 ± " in markdown


def test_pairs_default_to_previous_run(store: Store) -> None:
    for day, run_id in enumerate(("first", "second", "third"), 1):
        begin_run(store, run_id, [("noise", "vacuum", "em-tok-b")], created_at=datetime(2026, 11, day, tzinfo=UTC))
        write_shard(store, CellKey(run_id, "vacuum", "em-tok-b"), {"u0": [with_errors(day)], "u1": [with_errors(0)]})
    assert pairs(store, "third") == [(2, 3), (0, 0)]
    assert pairs(store, "third", baseline="first") == [(1, 3), (0, 0)]
    assert pairs(store, "second") == [(1, 2), (0, 0)]
    assert pairs(store, "first") == []


def pairs(store: Store, run_id: str, **given: str) -> list[tuple[object, object]]:
    with Catalogue(store) as catalogue:
        return [(row["errors_a"], row["errors_b"]) for row in catalogue.report("pairs", run_id, **given).records]
