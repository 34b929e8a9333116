"""The demo model: a real Whisper under 12 MB that recognises its trained voices, on clean synthetic speech."""

from importlib.resources import as_file, files

import pytest
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

from emtta_core.demo.card import CARD_FILE, measure
from emtta_core.demo.recipe import LANGUAGES
from emtta_core.model import load_model

DEMO = files("emtta_core.model") / "demo"
WER_AT_MOST = {"en": 2.0}
WER_AT_MOST_ELSEWHERE = 5.0


def test_transformers_loads_it_as_whisper() -> None:
    with as_file(DEMO) as folder:
        model = WhisperForConditionalGeneration.from_pretrained(folder)
        tokenizer = WhisperTokenizer.from_pretrained(folder)
        extractor = WhisperFeatureExtractor.from_pretrained(folder)
        assert (folder / "model.safetensors").stat().st_size < 12e6
    assert len(tokenizer) == model.config.vocab_size
    assert extractor.nb_max_frames == 2 * model.config.max_source_positions
    assert set(model.generation_config.lang_to_id) == {f"<|{language}|>" for language in LANGUAGES}


def test_unseen_sentences_are_transcribed() -> None:
    with as_file(DEMO) as folder:
        rows = list(measure(folder, utterances=20, new_voices=False))
    assert [row.language for row in rows] == list(LANGUAGES)
    for row in rows:
        assert row.wer <= WER_AT_MOST.get(row.language, WER_AT_MOST_ELSEWHERE), row


def test_card_shows_synthetic_wer() -> None:
    card = (DEMO / CARD_FILE).read_text(encoding="utf-8")
    assert "**synthetic**" in card
    for language in LANGUAGES:
        assert f"| {language} | trained |" in card


@pytest.mark.parametrize("language", LANGUAGES)
def test_model_knows_its_languages(language: str) -> None:
    assert language in load_model("demo").languages
