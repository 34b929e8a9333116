"""What a reader must know of a run's figures stands beside them, wherever they are shown."""

from pathlib import Path

import pytest
from conftest import Command
from store_factory import begin_run, heard, write_shard

from emtta_core.store import CellKey, Store
from emtta_core.store.notices import notices
from emtta_core.suite import parse_suite

HEAD = 'name = "t"\nmethods = ["source"]\nmodel = { name = "demo" }\n'
DOMAIN = '[[domains]]\nname = "synthetic"\ngroup = "g"\ncorpus = { name = "%s", %s }\n'
SPOKEN = HEAD + DOMAIN % ("synthetic", 'language = "en"')
RECORDED = HEAD + DOMAIN % ("folder", 'path = "speech"')
SAID = "The speech is synthetic: these figures say how the methods compare here"


def test_synthetic_speech_is_told_by_its_corpus_and_not_by_a_name() -> None:
    (sentence,) = notices(parse_suite(SPOKEN, origin="here").to_toml())
    assert sentence.startswith(SAID)
    assert notices(parse_suite(RECORDED, origin="here").to_toml()) == ()


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        (HEAD + DOMAIN % ("fleurs", 'language = "hi_in"'), True),
        (HEAD + DOMAIN % ("folder", 'path = "speech", language = "bn"'), True),
        ('normaliser = "marks"\n' + HEAD + DOMAIN % ("fleurs", 'language = "hi_in"'), False),
        (HEAD + DOMAIN % ("fleurs", 'language = "de_de"'), False),
    ],
)
def test_words_that_the_normaliser_cuts_are_told_of(suite: str, said: bool) -> None:
    found = notices(parse_suite(suite, origin="here").to_toml())
    assert [sentence.endswith('score them with normaliser = "marks".') for sentence in found] == [True] * said


@pytest.mark.parametrize(("suite", "said"), [(SPOKEN, True), (RECORDED, False)])
def test_reports_comparisons_and_the_page_say_that_speech_is_synthetic(
    emtta: Command, tmp_path: Path, suite: str, said: bool
) -> None:
    store = Store.open(tmp_path / "store", create=True)
    begin_run(store, "r", [("g", "synthetic", "source")], suite_toml=parse_suite(suite, origin="here").to_toml())
    write_shard(store, CellKey("r", "synthetic", "source"), {"a": [heard(1)], "b": [heard(0)]})
    where = ("--store", tmp_path / "store")
    for words in (("report", "leaderboard"), ("report", "errors", "--format", "csv"), ("compare", "r", "r")):
        shown = emtta(*words, *where)
        assert (SAID in " ".join(shown.err.split()), SAID in shown.out) == (said, False), words
    assert emtta("report", "html", "--run", "r", "--out", tmp_path / "r.html", *where).code == 0
    assert (SAID in (tmp_path / "r.html").read_text()) == said
