"""The demo's domains are hard enough to show what adaptation does, but not hopeless."""

import pytest

from emtta_core.adaptation import Adapter
from emtta_core.audio.files import read_audio
from emtta_core.demo.recipe import LANGUAGES, trained_voices
from emtta_core.model import SpeechModel, load_model
from emtta_core.pipeline.plan import corpus_id
from emtta_core.pipeline.preparation import prepare_domain
from emtta_core.scoring import word_errors
from emtta_core.store import Store
from emtta_core.suite import Domain, load_suite

DEMO = load_suite("demo")
USUAL = ("GS", "Scotland", "German", "Polish")
"""A domain of each group, and the last; `-m slow` tries the others."""


@pytest.fixture(scope="module")
def model() -> SpeechModel:
    return load_model("demo")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(str(tmp_path_factory.mktemp("demo") / "store"), create=True)


@pytest.mark.parametrize(
    "domain",
    [pytest.param(domain, marks=() if domain.name in USUAL else pytest.mark.slow) for domain in DEMO.domains],
    ids=lambda domain: domain.name,
)
def test_source_wer_is_8_to_60_percent(domain: Domain, model: SpeechModel, store: Store) -> None:
    corpus = prepare_domain(domain, corpus_id(domain, DEMO.limit), store).corpus
    rows = list(store.read_prepared(corpus))
    results = Adapter(model, method="source").transcribe(
        [read_audio(row.audio.bytes) for row in rows],
        language=[row.language for row in rows],
        utterance_ids=[row.utterance_id for row in rows],
    )
    scores = [word_errors(row.text, result.hypothesis, row.language) for row, result in zip(rows, results, strict=True)]
    wer = 100 * sum(score.errors for score in scores) / sum(score.words for score in scores)
    assert 8 <= wer <= 60


def test_each_group_has_unseen_sound() -> None:
    trained = {voice for language in LANGUAGES for voice in trained_voices(language)}
    for domain in DEMO.domains:
        if domain.group == "noise":
            assert domain.corruption is not None
            assert set(domain.corpus.voices) <= trained
        else:
            assert not set(domain.corpus.voices) & trained, domain.name
