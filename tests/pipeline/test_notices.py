"""Notices that readers need with a run's figures are shown wherever the figures are."""

from pathlib import Path

import pytest
from conftest import Command
from store_factory import begin_run, with_errors, write_shard

from emtta_core.scoring import Rule
from emtta_core.store import CellKey, Store
from emtta_core.store.catalogue import Catalogue
from emtta_core.store.describe import notices_of
from emtta_core.suite import parse_suite

HEAD = 'name = "t"\nmethods = ["source"]\nmodel = { name = "demo" }\n'
DOMAIN = '[[domains]]\nname = "synthetic"\ngroup = "g"\ncorpus = { name = "%s", %s }\n'
SPOKEN = HEAD + DOMAIN % ("synthetic", 'language = "en"')
RECORDED = HEAD + DOMAIN % ("folder", 'path = "speech"')
NOTICE = "The speech is synthetic: these figures say how the methods compare here"


def written_notices(tmp_path: Path, suite: str, language: str = "en", rule: Rule = "whisper") -> tuple[str, ...]:
    """The notices of a run of `suite` with one utterance, scored in `language`."""
    store = Store.open(tmp_path / "store", create=True)
    toml = parse_suite(suite, origin="here").to_toml()
    begin_run(store, "r", [("g", "synthetic", "source")], suite_toml=toml, scorer=rule)
    write_shard(store, CellKey("r", "synthetic", "source"), {"a": [with_errors(1)]}, language=language, scorer=rule)
    with Catalogue(store) as catalogue:
        return notices_of(catalogue, "r")


def test_synthetic_speech_has_notice(tmp_path: Path) -> None:
    (sentence,) = written_notices(tmp_path / "a", SPOKEN)
    assert sentence.startswith(NOTICE)
    assert written_notices(tmp_path / "b", RECORDED) == ()


@pytest.mark.parametrize(
    ("language", "rule", "expected"),
    [("hi", "whisper", True), ("bn", "basic", True), ("hi", "marks", False), ("de", "whisper", False)],
)
def test_split_words_are_reported(tmp_path: Path, language: str, rule: Rule, expected: bool) -> None:
    found = written_notices(tmp_path, RECORDED, language, rule)
    assert [sentence.endswith('score them by "marks", as with emtta score.') for sentence in found] == [True] * expected


@pytest.mark.parametrize(("suite", "expected"), [(SPOKEN, True), pytest.param(RECORDED, False, marks=pytest.mark.slow)])
def test_every_report_shows_synthetic_notice(emtta: Command, tmp_path: Path, suite: str, expected: bool) -> None:
    store = Store.open(tmp_path / "store", create=True)
    toml = parse_suite(suite, origin="here").to_toml()
    begin_run(store, "r", [("g", "synthetic", "source")], suite_toml=toml)
    write_shard(store, CellKey("r", "synthetic", "source"), {"a": [with_errors(1)], "b": [with_errors(0)]})
    where = ("--store", tmp_path / "store")
    for words in (("report", "leaderboard"), ("report", "errors", "--format", "csv"), ("compare", "r", "r")):
        shown = emtta(*words, *where)
        assert (NOTICE in " ".join(shown.err.split()), NOTICE in shown.out) == (expected, False), words
    assert emtta("report", "html", "--run", "r", "--out", tmp_path / "r.html", *where).code == 0
    assert (NOTICE in (tmp_path / "r.html").read_text()) == expected
