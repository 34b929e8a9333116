"""The synthetic corpus has the same sentences and samples on any machine, in any order."""

import itertools
import random
import threading
import time

import numpy as np
import pytest

from emtta_core.audio.waveform import SAMPLE_RATE
from emtta_core.corpora.espeak import speak
from emtta_core.corpora.synthetic import (
    Grammar,
    Split,
    Synthetic,
    languages,
    load_grammar,
    sentences_for_noise,
    split_of,
    voices_for_noise,
)
from emtta_core.demo.recipe import LANGUAGES, trained_voices
from emtta_core.errors import UsageError
from emtta_core.scoring import normalizer

_FUNCTION_WORDS_AT_MOST = 45


def test_each_demo_language_has_grammar() -> None:
    assert set(LANGUAGES) == set(languages())


@pytest.mark.parametrize("language", LANGUAGES)
def test_grammar_has_150_content_words(language: str) -> None:
    grammar = load_grammar(language)
    rng = random.Random(0)
    sentences = [grammar.sentence(rng, "train") for _ in range(2_000)]
    assert len(grammar.words()) >= 150 + _FUNCTION_WORDS_AT_MOST // 3
    assert {len(sentence.split()) for sentence in sentences} <= set(range(4, 10))
    assert len(set(sentences)) > 1_990


@pytest.mark.parametrize("language", LANGUAGES)
def test_normalizer_keeps_grammar_words(language: str) -> None:
    normalize = normalizer(language)
    assert [word for word in load_grammar(language).words() if normalize(word) != word] == []


def test_previous_word_predicts_little() -> None:
    """No frequent English content word is followed by the same word more than 55 % of the time."""
    rng = random.Random(0)
    followers: dict[str, list[str]] = {}
    for _ in range(5_000):
        words = load_grammar("en").sentence(rng, "train").split()
        for word, after in itertools.pairwise(words):
            followers.setdefault(word, []).append(after)
    frequent = {word: after for word, after in followers.items() if len(after) > 200}
    assert frequent
    function_words = {"there", "but", "how", "was"}
    for word, after in frequent.items():
        if word not in function_words:
            assert max(map(after.count, set(after))) <= 0.55 * len(after), word


def test_train_and_test_are_disjoint() -> None:
    rng = random.Random(0)
    grammar = load_grammar("en")
    test = {grammar.sentence(rng, "test") for _ in range(500)}
    train = {grammar.sentence(rng, "train") for _ in range(500)}
    assert not test & train
    assert {split_of(sentence) for sentence in test} == {"test"}


def test_sentence_ignores_earlier_speech() -> None:
    first = speak("the yellow river carried my pencil", "en-us+m3")
    speak("une autre phrase", "fr+f2", rate=200)
    again = speak("the yellow river carried my pencil", "en-us+m3")
    np.testing.assert_array_equal(first.waveform, again.waveform)
    assert first.phonemes == again.phonemes


def test_breathy_voice_is_reproducible() -> None:
    """espeak-ng seeds its generator with the current second, and these voices, some of them in the babble, use it."""
    voices = [f"en-us+{variant}" for variant in ("f2", "f3", "f5", "whisper")]
    before = [speak("every purple tiger stumbled", voice).waveform for voice in voices]
    time.sleep(1.1)
    for voice, waveform in zip(voices, before, strict=True):
        np.testing.assert_array_equal(speak("every purple tiger stumbled", voice).waveform, waveform)


def test_threads_do_not_interfere() -> None:
    sentences = ["the yellow river", "a broken violin", "my sister in berlin", "every purple tiger"]
    alone = [speak(sentence, "en-us").waveform for sentence in sentences]
    together: dict[int, np.ndarray] = {}

    def say(index: int) -> None:
        together[index] = speak(sentences[index], "en-us").waveform

    threads = [threading.Thread(target=say, args=(index,)) for index in range(len(sentences))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, expected in enumerate(alone):
        np.testing.assert_array_equal(together[index], expected)


def test_utterance_ignores_total() -> None:
    few = list(Synthetic(language="de", voices=("de", "de+f1"), utterances=3).read_all())
    many = list(Synthetic(language="de", voices=("de", "de+f1"), utterances=9).read_all())
    assert [(each.id, each.text, each.speaker) for each in many[:3]] == [
        (each.id, each.text, each.speaker) for each in few
    ]
    np.testing.assert_array_equal(few[1].read(), many[1].read())


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_fit_demo_window(language: str) -> None:
    corpus = Synthetic(language=language, voices=trained_voices(language), utterances=24)
    lengths = [len(utterance.read()) / SAMPLE_RATE for utterance in corpus.read_all()]
    assert min(lengths) > 0.5
    assert max(lengths) < 4.0


def test_voice_release_changes_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Synthetic().content_digest()
    assert Synthetic().content_digest() == before
    monkeypatch.setattr("emtta_core.corpora.espeak.version", lambda package: f"another {package}", raising=False)
    assert Synthetic().content_digest() != before


def test_noise_voices_depend_on_seed() -> None:
    first, second = voices_for_noise(2, seed=5), voices_for_noise(2, seed=5)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first[0], voices_for_noise(1, seed=6)[0])


def test_noise_voices_speak_no_test_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each voice speaks two sentences of the training split, so no noise contains what a model must recognise."""
    sentence, drawn = Grammar.sentence, []

    def record(grammar: Grammar, rng: random.Random, split: Split) -> str:
        drawn.append(sentence(grammar, rng, split))
        return drawn[-1]

    monkeypatch.setattr(Grammar, "sentence", record)
    spoken = [voice.text for seed in range(50) for voice in sentences_for_noise(8, seed)]
    assert spoken == [f"{first} {second}" for first, second in zip(drawn[::2], drawn[1::2], strict=True)]
    assert len(spoken) == 50 * 8
    assert {split_of(text) for text in drawn} == {"train"}


def test_unknown_voice_is_refused() -> None:
    utterance = next(Synthetic(voices=("en-atlantis",)).read_all())
    with pytest.raises(UsageError, match="en-atlantis"):
        utterance.read()
    with pytest.raises(UsageError, match=r"'xx'.*de, en, es"):
        next(Synthetic(language="xx", voices=("de",)).read_all())
