"""Scorers: options added to a normalizer, other packages' normalizers, and agreement with other tools' counts."""

import random
from collections.abc import Iterator
from pathlib import Path

import kaldialign
import pytest

from emtta_core.errors import UsageError
from emtta_core.scoring import ScorerError, check_scorer, scorer, word_errors

WORDS = ["a", "b", "ab", "ice", "cream", "icecream", "red", "Red", "green", "river"]


def random_pairs(count: int) -> Iterator[tuple[str, str]]:
    numbers = random.Random(0)
    for _ in range(count):
        yield (
            " ".join(numbers.choices(WORDS, k=numbers.randint(1, 12))),
            " ".join(numbers.choices(WORDS, k=numbers.randint(0, 12))),
        )


def test_kaldialign_agrees_on_random_pairs() -> None:
    for reference, hypothesis in random_pairs(10_000):
        found = word_errors(reference, hypothesis, "de", "none")
        theirs = kaldialign.edit_distance(reference.split(), hypothesis.split())
        assert found.errors == theirs["total"]
        assert found.insertions - found.deletions == theirs["ins"] - theirs["del"]


def test_compounds_match_kaldialign() -> None:
    for reference, hypothesis in random_pairs(10_000):
        found = word_errors(reference, hypothesis, "de", "none+compounds")
        theirs = kaldialign.edit_distance(reference.split(), hypothesis.split(), merge_compounds=True)
        counts = (found.substitutions, found.deletions, found.insertions, found.words)
        assert counts == (theirs["sub"], theirs["del"], theirs["ins"], theirs["ref_len"])


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        ("I like icecream", "I like ice cream", 0),
        ("I like ice cream", "I like icecream", 0),
        ("ice cream", "I scream", 2),
        ("white paper", "white", 1),
    ],
)
def test_split_compounds_are_equal(reference: str, hypothesis: str, errors: int) -> None:
    assert word_errors(reference, hypothesis, "en", "whisper+compounds").errors == errors
    assert word_errors(reference, hypothesis, "en").errors == (errors or 2)


@pytest.mark.parametrize(
    ("language", "digits", "words"),
    [
        ("de", "Es sind 25 Boote", "es sind fünfundzwanzig boote"),
        ("fr", "80 bateaux", "quatre-vingts bateaux"),
        ("pt", "3,5 barcos", "três vírgula cinco barcos"),
        ("de", "1.000 Boote", "eintausend boote"),
        ("de", "1,000 Boote", "eintausend boote"),
    ],
)
def test_numbers_are_spelled_out(language: str, digits: str, words: str) -> None:
    assert word_errors(words, digits, language, "whisper+numbers").errors == 0
    assert word_errors(words, digits, language).errors > 0


def test_unsupported_numbers_are_kept() -> None:
    assert word_errors("version 1.2.3", "version 1.2.3", "de", "none+numbers").hypothesis_normalized == "version 1.2.3"
    name = scorer("whisper+numbers").normalizer("xh").name
    assert "numbers" not in name, "num2words does not speak it, and the name says so"
    assert scorer("whisper+numbers").normalizer("en").name == scorer("whisper").normalizer("en").name


def test_name_contains_options() -> None:
    assert "+numbers-" in scorer("basic+numbers").normalizer("de").name
    assert "+compounds-" in scorer("jiwer+compounds").normalizer("en").name


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kaldialign", None)
    scorer.cache_clear()
    with pytest.raises(UsageError, match=r"needs the package kaldialign; install it: pip install 'emtta\[scoring\]'"):
        scorer("basic+compounds")


@pytest.mark.parametrize("name", ["", "whisper+", "whisper+numbers+numbers", "whisper numbers", "a:b:c"])
def test_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="the scorer"):
        check_scorer(name)


def test_normalizer_plugin_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_rules.py").write_text(
        "class Lower:\n    def __call__(self, text):\n        return text.lower()\n"
    )
    about = tmp_path / "their_rules-2.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-rules\nVersion: 2.1\n")
    (about / "top_level.txt").write_text("their_rules\n")
    (about / "entry_points.txt").write_text("[emtta.normalizers]\ntheirs = their_rules:Lower\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("their_rules:Lower", "theirs"):
        found = word_errors("Red Blue", "red blue", "en", name)
        assert found.errors == 0
        assert found.normalizer.startswith(f"{name}/2.1+source-")


def test_failing_plugin_names_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad_rules.py").write_text("def normalize(text, language):\n    raise KeyError(language)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ScorerError, match="raised KeyError: 'en', on the text 'red'"):
        word_errors("red", "red", "en", "bad_rules:normalize")
