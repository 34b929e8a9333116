# ruff: noqa: RUF001  (texts in many scripts)
"""Errors are counted on words normalized as in Whisper's evaluation, and sum to the edit distance."""

import unicodedata
from importlib.metadata import version

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emtta_core.scoring import (
    Edits,
    EmptyReferenceError,
    Rule,
    normalizer,
    step_errors,
    unified,
    word_errors,
)
from emtta_core.scoring.normalizer import MARKED

WORDS = st.lists(st.sampled_from(["red", "green", "blue", "river"]), max_size=7).map(" ".join)


def edit_distance(a: str, b: str) -> int:
    """The edit distance over words, by the textbook recurrence."""
    left, right = a.split(), b.split()
    row = list(range(len(right) + 1))
    for i, word in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(right, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


@given(WORDS.filter(bool), WORDS)
def test_errors_are_edit_distance(reference: str, hypothesis: str) -> None:
    found = word_errors(reference, hypothesis, "de")
    assert found.errors == edit_distance(reference, hypothesis)
    assert found.words == len(reference.split()) == found.hits + found.substitutions + found.deletions
    assert found.hits + found.substitutions + found.insertions == len(hypothesis.split())


def test_english_has_own_normalizer() -> None:
    assert word_errors("It's twenty-five colours!", "it is 25 colors", "en").errors == 0
    assert word_errors("twenty-five", "25", "de").errors == 2
    assert word_errors("Grün, ja!", "grün ja", "de").errors == 0
    assert normalizer("en").name.startswith("whisper-english/")
    assert normalizer("pl").name.startswith("whisper-basic/")


@pytest.mark.parametrize(
    ("language", "reference", "hypothesis", "words"),
    [
        ("zh", "今天天气好。", "今天天汽好", 5),
        ("ja", "あさごはん", "あさごばん", 5),
        ("th", "มานี", "มานา", 3),
        ("yue", "今日天氣好。", "今日天汽好", 5),
    ],
)
def test_unspaced_text_counts_letters(language: str, reference: str, hypothesis: str, words: int) -> None:
    found = word_errors(reference, hypothesis, language)
    assert found.words == words
    assert 0 < found.errors < words
    assert found.characters == words, "the spaces that set the letters apart are no characters of the text"
    assert found.character_errors == found.errors
    assert found.normalizer.startswith("whisper-basic-by-letter/")


@pytest.mark.parametrize(
    ("language", "text", "usual", "kept"),
    [
        ("hi", "हिन्दी में", "ह न द म", "हिन्दी में"),
        ("bn", "বাংলায় গান।", "ব ল য গ ন", "বাংলায় গান"),
        ("yo", "ọ̀rọ̀", "ọ rọ", "ọ̀rọ̀"),
        ("th", "ที่ดี", "ท ด", "ที่ ดี"),
        ("km", "ខ្មែរ", "ខ ម រ", "ខ្មែ រ"),
        ("he", "שָׁלוֹם", "ש לו ם", "שָׁלוֹם"),
        ("de", "Grün, ja!", "grün ja", "grün ja"),
        ("zh", "今天。", "今 天", "今 天"),
        ("en", "It's colours!", "it is colors", "it is colors"),
    ],
)
def test_marks_are_kept_on_request(language: str, text: str, usual: str, kept: str) -> None:
    assert normalizer(language)(text) == unicodedata.normalize("NFKC", usual)
    assert normalizer(language, "marks")(text) == unicodedata.normalize("NFKC", kept)


def test_kept_vowel_mark_counts_as_error() -> None:
    assert word_errors("हिन्दी में", "हन्दी में", "hi").errors == 2, "one vowel sign is two pieces"
    found = word_errors("हिन्दी में", "हन्दी में", "hi", "marks")
    assert (found.errors, found.words, found.character_errors, found.characters) == (1, 2, 1, 10)
    assert word_errors("में", "मैं", "hi").errors == 0, "the usual normalizer compares no vowel sign"
    assert word_errors("में", "मैं", "hi", "marks").errors == 1


def test_mark_split_languages_are_listed() -> None:
    texts = {"hi": "में", "bn": "গান", "ta": "தமிழ்", "th": "ที่", "my": "မြန်မာ", "km": "ខ្មែរ", "yo": "ọ̀rọ̀", "bo": "བོད"}
    assert set(texts) <= MARKED
    assert all(normalizer(one)(text) != normalizer(one, "marks")(text) for one, text in texts.items())


def test_empty_hypothesis_only_deletes() -> None:
    found = word_errors("red blue", "", "en")
    assert (found.deletions, found.substitutions, found.insertions) == (2, 0, 0)
    assert found.character_errors == found.characters


@pytest.mark.parametrize("reference", ["…", "[noise]", "uh"])
def test_empty_transcript_is_refused(reference: str) -> None:
    with pytest.raises(EmptyReferenceError, match="no words left"):
        word_errors(reference, "hello", "en")
    with pytest.raises(EmptyReferenceError):
        step_errors(reference, ["hello"], "en")


def test_steps_score_like_hypotheses() -> None:
    texts = ["red blew", "red blue", None, "red blue", ""]
    expected = tuple(None if text is None else word_errors("red blue", text, "en").errors for text in texts)
    found = step_errors("red blue", texts, "en")
    assert tuple(edits and edits.errors for edits in found) == expected == (1, 0, None, 0, 2)
    assert found[4] == Edits(hits=0, substitutions=0, deletions=2, insertions=0)


@pytest.mark.parametrize("reference", ["", "   "])
def test_words_in_silence_are_insertions(reference: str) -> None:
    found = word_errors(reference, "Thanks for watching!", "en")
    assert (found.words, found.insertions, found.insertion_run, found.errors) == (0, 3, 3, 3)
    assert (found.characters, found.character_errors) == (0, len("thanks for watching"))
    assert word_errors(reference, "", "en").errors == 0


def test_longest_insertion_run_is_counted() -> None:
    assert word_errors("red blue", "red a b c blue d", "de").insertion_run == 3
    assert word_errors("red blue", "green yellow", "de").insertion_run == 0


def test_suite_chooses_normalizer() -> None:
    reference, hypothesis = "It's twenty-five colours!", "it is 25 colors"
    assert [word_errors(reference, hypothesis, "en", rule).errors for rule in ("whisper", "basic", "none")] == [0, 4, 4]
    assert word_errors("It is 25", "It is 25", "en", "none").errors == 0
    assert word_errors("It is 25", "it is 25", "en", "none").errors == 1
    assert [edits and edits.errors for edits in step_errors(reference, [hypothesis, reference], "en", "none")] == [4, 0]


@pytest.mark.parametrize(
    ("language", "reference", "cleaned", "hypothesis"),
    [
        (
            "en",
            "Mr. Smith isn't well-known, e.g. here.",
            "Mister Smith isnt well known for example here",
            "Mr. Smith isn't well-known",
        ),
        ("en", "THERE'S IRON THEY SAY", "THERE'S IRON THEY SAY", "There's iron, they say."),
        ("en", "He won 25 café prizes", "HE WON CAF PRIZES", "he won 25 cafe prizes"),
        ("fr", "l'homme <unk> d'aujourd'hui", "l'homme <unk> d'aujourd'hui", "L'homme d’aujourd’hui!"),
    ],
)
def test_jiwer_rule_matches_authors(language: str, reference: str, cleaned: str, hypothesis: str) -> None:
    texts = [jiwer.RemovePunctuation()(text) for text in (cleaned, hypothesis)]
    standard = {"reference_transform": jiwer.wer_standardize, "hypothesis_transform": jiwer.wer_standardize}
    found = word_errors(reference, hypothesis, language, "jiwer")
    assert found.errors / found.words == jiwer.wer(*texts, **standard)
    assert [edits and edits.errors for edits in step_errors(reference, [hypothesis], language, "jiwer")] == [
        found.errors
    ]
    assert found.normalizer == f"jiwer{'-english' * (language == 'en')}/{version('jiwer')}"


def test_jiwer_rule_removes_punctuation() -> None:
    found = word_errors("Mrs. Hale's well-known", "Mrs. Hale's well-known", "en", "jiwer")
    assert (found.reference_normalized, found.hypothesis_normalized) == (
        "mistress hales well known",
        "mrs hales wellknown",
    )


SAME_TEXTS = {
    "Latin, composed": ("fr", "cafe\u0301 déjà", "café déjà"),
    "Latin, Turkish": ("tr", "İstanbul İzmir ISPARTA", "istanbul izmir ısparta"),
    "Latin, Turkish lower-cased by machine": ("tr", "i̇stanbul", "İstanbul"),
    "Latin, Azerbaijani": ("az", "İlham IŞIQ", "ilham ışıq"),
    "Latin, Turkish name in German": ("de", "nach İzmir", "nach izmir"),
    "Latin, English apostrophes": ("en", "I don’t think it’s John’s", "I don't think it's John's"),
    "Latin, French apostrophes": ("fr", "l’homme qu’on aime", "l'homme qu'on aime"),
    "Latin, accent for apostrophe": ("en", "don´t can`t", "don't can't"),
    "Latin, Uzbek": ("uz", "oʻzbek gʻoza", "o‘zbek g'oza"),
    "Latin, soft hyphen": ("de", "Donau\u00addampf\u200bschiff", "Donaudampfschiff"),
    "Cyrillic": ("uk", "м’яч мʼяч и\u0306од", "м'яч м'яч йод"),
    "Greek": ("el", "ΟΔΟΣ ε\u0301να", "οδος ένα"),
    "Armenian": ("hy", "ԲԱՐԵՒ", "բարեւ"),
    "Georgian": ("ka", "ᲒᲐᲛᲐᲠᲯᲝᲑᲐ", "გამარჯობა"),
    "Arabic": ("ar", "\u200fا\u0654نا\u200e", "أنا"),
    "Hebrew": ("he", "\u2067שלום\u2069", "שלום"),
    "Devanagari": ("hi", "\u0958लम", "\u0915\u093cलम"),
    "Bengali": ("bn", "\u09dfার", "\u09af\u09bcার"),
    "Tamil": ("ta", "க\u0bc6\u0bbe", "க\u0bca"),
    "Thai": ("th", "\u200bบ้าน\ufeff", "บ้าน"),
    "Hangul": ("ko", "\u1112\u1161\u11ab\u1100\u1173\u11af", "한글"),
    "Kana": ("ja", "か\u3099く", "がく"),
    "Han": ("zh", "今\ufe00天", "今天"),
}


@pytest.mark.parametrize("rule", ["whisper", "marks"])
@pytest.mark.parametrize("script", SAME_TEXTS)
def test_equivalent_encodings_match(script: str, rule: Rule) -> None:
    language, one, other = SAME_TEXTS[script]
    for reference, hypothesis in ((one, other), (other, one)):
        found = word_errors(reference, hypothesis, language, rule)
        assert (found.errors, found.character_errors) == (0, 0), found


@pytest.mark.parametrize("rule", ["whisper", "marks"])
def test_dotted_capital_i_splits_no_word(rule: Rule) -> None:
    assert word_errors("İstanbul İzmir", "istanbul izmir", "tr", rule).words == 2


def test_distinct_letters_stay_distinct() -> None:
    assert word_errors("ısı", "isi", "tr").errors == 1
    assert word_errors("ISI", "isi", "de").errors == 0
    assert word_errors("می\u200cروم", "میروم", "fa").errors == 1, "the joiner of Persian is left"


@given(st.text(max_size=30))
def test_unification_is_idempotent(text: str) -> None:
    for dotless in (False, True):
        assert unified(unified(text, dotless=dotless), dotless=dotless) == unified(text, dotless=dotless)


def test_unification_is_in_score_name() -> None:
    for language, rule in (("en", "whisper"), ("tr", "whisper"), ("tr", "marks"), ("zh", "basic")):
        assert normalizer(language, rule).name.endswith("+unicode-1")
    assert normalizer("tr", "none").name == "none"
    assert normalizer("tr", "none")("İ ’") == "İ ’"
