"""The reports on streams: WER by position, and how much of the first speech is forgotten."""

from pathlib import Path

import pytest
from conftest import Command
from store_factory import begin_run, end_attempt, with_errors, write_shard

from emtta_core.report.page import make_page
from emtta_core.store import Catalogue, CellKey, Store

COUNT = 6
ERRORS = {
    "source": {"clean": 1, "loud": 3, "again": 1},
    "em-tok-b": {"clean": 1, "loud": 2, "again": 2},
    "episodic": {"clean": 0, "loud": 0, "again": 0},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A run whose stream passes through three domains, the last with the same speech as the first."""
    made = Store.open(tmp_path, create=True)
    cells = [(domain, domain, method) for domain in ERRORS["source"] for method in ERRORS]
    begin_run(made, "run", cells, utterances=COUNT, corpora={"again": "corpus-clean"})
    for method, domains in ERRORS.items():
        for domain_index, (domain, errors) in enumerate(domains.items()):
            key = CellKey("run", domain, method)
            for index in range(COUNT):
                streamed = method == "em-tok-b"
                worse = streamed and (domain, index) == ("loud", COUNT - 1)
                texts = {f"u{index}": [with_errors(1), with_errors(errors + worse)]}
                position = COUNT * domain_index + index if streamed else None
                flags = ("reset",) if streamed and (domain, index) == ("loud", 0) else ()
                write_shard(made, key, texts, shard=index, position=position, flags=flags)
            end_attempt(made, key, group=domain)
    return made


def test_wer_is_shown_by_position(store: Store) -> None:
    with Catalogue(store) as catalogue:
        rows = catalogue.report("stream", "run", window="4").records
        whole = catalogue.report("stream", "run", window="100").records
    names = ("method", "first", "last", "utterances", "wer", "change", "resets", "domains")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("em-tok-b", 0, 3, 4, 25.0, 0.0, 0, "clean"),
        ("em-tok-b", 4, 7, 4, 37.5, -12.5, 1, "clean, loud"),
        ("em-tok-b", 8, 11, 4, 56.25, -18.75, 0, "loud"),
        ("em-tok-b", 12, 15, 4, 50.0, 25.0, 0, "again"),
        ("em-tok-b", 16, 17, 2, 50.0, 25.0, 0, "again"),
    ]
    (row,) = whole
    assert row["wer_low"] < row["wer"] < row["wer_high"]
    assert row["domains"] == "again, clean, loud"


def test_forgetting_compares_same_speech(store: Store) -> None:
    with Catalogue(store) as catalogue:
        (row,) = catalogue.report("forgetting", "run").records
    assert (row["method"], row["domain"], row["again"]) == ("em-tok-b", "clean", "again")
    assert (row["wer"], row["wer_again"], row["change"]) == (25.0, 50.0, 25.0)
    assert (row["ci_half_width"], row["utterances"], row["between"]) == (0.0, COUNT, COUNT)
    assert row["p"] < 0.05


def test_page_shows_streams_only_if_any(store: Store) -> None:
    html = make_page(store, "run").html
    assert '<table class="sortable" id="streams"' in html
    assert "again, clean, loud" in html
    assert 'id="forgetting"' in html
    begin_run(store, "usual", [("clean", "clean", "source")])
    assert "Streams" not in make_page(store, "usual").html


@pytest.mark.parametrize(
    ("name", "why"), [("stream", "adapts along a stream"), ("forgetting", "revisits the speech of a domain")]
)
def test_report_without_streams_says_why(emtta: Command, tmp_path: Path, name: str, why: str) -> None:
    begin_run(Store.open(tmp_path / "plain", create=True), "run", [("noise", "babble", "source")])
    outcome = emtta("report", name, "--store", tmp_path / "plain")
    assert outcome.code == 0
    assert why in outcome.err
