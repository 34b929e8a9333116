"""What a word error rate consists of: kinds of errors, hallucinations, silence, utterances in error, and slices."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Command
from store_factory import REFERENCE, begin_run, with_errors, write_shard

from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.report import make_page
from emtta_core.report.facts import NO_VALUE
from emtta_core.scoring.paired import Sample
from emtta_core.store import Catalogue, CellKey, RescoreRow, Store, reports

INSERTED = "red green blue river a b c d e"
"""`REFERENCE` with five more words, in a row."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


def one_cell(store: Store, texts: Sequence[str], *, domain: str = "babble", **more: str) -> None:
    key = CellKey("run", domain, "source")
    write_shard(store, key, {f"u{number}": [text] for number, text in enumerate(texts)}, **more)  # type: ignore[arg-type]


def board(store: Store) -> dict[str, dict[str, object]]:
    with Catalogue(store) as catalogue:
        return {row["group"]: row for row in catalogue.report("leaderboard").records}


def test_error_kinds_sum_to_wer(store: Store) -> None:
    begin_run(store, "run", [("noise", "babble", "source")], utterances=4)
    one_cell(store, [with_errors(1), "red green", INSERTED, REFERENCE])
    row = board(store)["all"]
    kinds = [row[f"{kind}_rate"] for kind in ("substitution", "deletion", "insertion")]
    assert kinds == [100 / 16, 200 / 16, 500 / 16]
    assert row["wer"] == sum(kinds)  # type: ignore[arg-type]
    assert (row["sentence_error_rate"], row["over_100_rate"], row["insertion_run_rate"]) == (75.0, 25.0, 25.0)


def test_loops_are_counted(store: Store) -> None:
    begin_run(store, "run", [("noise", "babble", "source")], utterances=2)
    one_cell(store, [with_errors(0)])
    write_shard(store, CellKey("run", "babble", "source"), {"u9": ["na " * 40]}, shard=1, flags=("collapsed",))
    assert (board(store)["all"]["loop_rate"], board(store)["all"]["over_100_rate"]) == (50.0, 50.0)


def test_steps_have_kinds(store: Store) -> None:
    begin_run(store, "run", [("noise", "babble", "em-tok")], utterances=1)
    write_shard(store, CellKey("run", "babble", "em-tok"), {"u": [INSERTED, "red", with_errors(1)]})
    with Catalogue(store) as catalogue:
        rows = catalogue.query("SELECT substitutions, deletions, insertions, errors FROM steps ORDER BY step").rows
    assert rows == [(0, 0, 5, 5), (0, 3, 0, 3), (1, 0, 0, 1)]


def test_silence_counts_insertions_per_minute(store: Store) -> None:
    cells = [("noise", "babble", "source"), ("silence", "room", "source")]
    begin_run(store, "run", cells, utterances=2)
    one_cell(store, [with_errors(1), with_errors(1)])
    key = CellKey("run", "room", "source")
    write_shard(store, key, {"u0": ["thank you"], "u1": [""]}, reference="", audio_seconds=30.0)
    found = board(store)
    assert (found["silence"]["wer"], found["silence"]["insertions_per_minute"]) == (None, 2.0)
    assert found["silence"]["reason_hidden"] is None
    assert (found["all"]["wer"], found["all"]["insertions_per_minute"]) == (25.0, 2.0)
    with Catalogue(store) as catalogue:
        edits = catalogue.query("SELECT kind, hypothesis FROM edits WHERE domain = 'room'").rows
    assert edits == [("insertion", "thank"), ("insertion", "you")]
    assert update_statistics(store, "run")


def test_silence_in_domain_keeps_wer(store: Store) -> None:
    begin_run(store, "run", [("noise", "babble", "source")], utterances=2)
    key = CellKey("run", "babble", "source")
    write_shard(store, key, {"a": [with_errors(1)]})
    write_shard(store, key, {"b": ["thanks for watching"]}, shard=1, reference="", audio_seconds=60.0)
    row = board(store)["all"]
    assert (row["wer"], row["insertions_per_minute"]) == (25.0, 3.0)


@pytest.mark.parametrize(("errors", "wer", "sentences"), [("exclude", 25.0, 100.0), ("delete", 62.5, 100.0)])
def test_suite_decides_how_errors_count(store: Store, errors: str, wer: float, sentences: float) -> None:
    begin_run(store, "run", [("noise", "babble", "source")], errors=errors)
    write_shard(store, CellKey("run", "babble", "source"), {"a": [with_errors(1)], "b": None})
    row = board(store)["all"]
    assert (row["wer"], row["sentence_error_rate"], row["in_error"]) == (wer, sentences, 1)
    with Catalogue(store) as catalogue:
        (rate,) = (row for row in catalogue.report("failures").records if row["what"] == "rate")
    assert (rate["wer_excluded"], rate["wer_deleted"]) == (25.0, 62.5)


@pytest.fixture
def sliced(store: Store) -> Store:
    """Two methods on twelve utterances of six speakers, with gender and age as metadata."""
    begin_run(store, "run", [("noise", "babble", method) for method in ("source", "em-tok")], utterances=12)
    for method in ("source", "em-tok"):
        for number in range(12):
            states = [with_errors(number % 4), with_errors(number % 3)]
            write_shard(
                store,
                CellKey("run", "babble", method),
                {f"u{number:02d}": states[: 1 if method == "source" else 2]},
                shard=number,
                speaker=f"s{number % 6}",
                metadata=json.dumps({"gender": "fm"[number % 2], "age": 20 + number} if number else {"age": 20}),
                audio_seconds=1.0 + number,
            )
    return store


def test_slices_by_metadata(emtta: Command, sliced: Store) -> None:
    outcome = emtta("report", "slices", "--param", "by=gender", "--format", "json", "--store", sliced.location)
    rows = {(row["slice"], row["method"]): row for row in json.loads(outcome.out)}
    assert [key[0] for key in rows] == ["f", "f", "m", "m", "unknown", "unknown"]
    males = [number for number in range(12) if number % 2]
    assert rows["m", "source"]["wer"] == pytest.approx(100 * sum(n % 4 for n in males) / (4 * len(males)))
    counts = [(number % 4, number % 3, 4) for number in males]
    speakers = [f"s{number % 6}" for number in males]
    change = Sample(["all"] * 6, [f"u{number:02d}" for number in males], speakers, counts).change(["all"])
    assert rows["m", "em-tok"]["change"] == pytest.approx(change.difference)
    assert rows["m", "em-tok"]["ci_half_width"] == pytest.approx((change.high - change.low) / 2)  # type: ignore[operator]
    assert rows["m", "em-tok"]["p"] == pytest.approx(3 * change.p), "corrected over three slices"


@pytest.mark.parametrize("by", ["duration", "age"])
def test_numeric_metadata_is_cut_into_quarters(sliced: Store, by: str) -> None:
    with Catalogue(sliced) as catalogue:
        rows = catalogue.report("slices", by=by, method="source").records
    assert [row["utterances"] for row in rows] == [3, 3, 3, 3]
    low = 1 if by == "duration" else 20
    assert [row["slice"] for row in rows] == [f"{low + 3 * i} to {low + 3 * i + 2}" for i in range(4)]


def test_unknown_slice_is_named(emtta: Command, sliced: Store) -> None:
    outcome = emtta("report", "slices", "--param", "by=accent", "--store", sliced.location)
    assert outcome.code == 2
    assert "unknown property of the utterances, 'accent'; choose from: age, domain, duration, gender" in outcome.err


def test_page_shows_kinds_and_slices(sliced: Store) -> None:
    html = make_page(sliced, "run").html
    for text in ("Errors by kind", "By gender", "By duration", "By age", "sentences wrong"):
        assert text in html


def test_page_slices_keep_methods_apart(store: Store) -> None:
    begin_run(store, "run", [("noise", "babble", method) for method in ("source", "em-tok")], utterances=2)
    for method, genders in (("source", "fm"), ("em-tok", "m")):
        for gender in genders:
            states = [with_errors(2), with_errors(1)][: 1 if method == "source" else 2]
            key = CellKey("run", "babble", method)
            write_shard(store, key, {gender: states}, shard="fm".index(gender), metadata=f'{{"gender": "{gender}"}}')
    rows = re.findall(r'<tr><th scope="row">([fm])</th>(.*?)</tr>', make_page(store, "run").html, re.DOTALL)
    cells = {name: re.findall(r"<td[^>]*>([^<]*)", row) for name, row in rows}
    assert cells == {"f": ["1", "50.00", NO_VALUE], "m": ["1", "50.00", "25.00"]}


@pytest.mark.slow
def test_every_report_handles_silence(store: Store) -> None:
    begin_run(store, "run", [("silence", "room", method) for method in ("source", "em-tok")], utterances=2)
    for method, states in (("source", ["thank you"]), ("em-tok", ["thank you", "thanks"])):
        key = CellKey("run", "room", method)
        write_shard(store, key, {"u0": states, "u1": [""] * len(states)}, reference="", audio_seconds=30.0)
    update_statistics(store, "run")
    with Catalogue(store) as catalogue:
        for name in reports():
            catalogue.report(name)
    text = make_page(store, "run").html
    assert not re.search(r">\s*nan\b", text)
    assert text.count("thank you") == 1, "what source transcribed in silence"


def test_page_shows_texts_of_missing_scorer(store: Store) -> None:
    begin_run(store, "run", [("noise", "babble", "em-tok")], utterances=1)
    write_shard(store, CellKey("run", "babble", "em-tok"), {"u": [with_errors(2), with_errors(1)]})
    plan = [replace(row, scorer="gone:normalize") for row in store.plan("run")]
    store.write_plan("run", plan)
    with Catalogue(store) as catalogue:
        (score,) = catalogue.query("SELECT * EXCLUDE (seed, run_id) FROM raw.scores").records
    store.write_rescores("run", 1, 0, [RescoreRow(**score | {"scorer": "gone:normalize", "scoring": 1})])
    assert "wrong wrong" in make_page(store, "run").html
