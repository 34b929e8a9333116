"""Minimum Bayes risk chooses the transcript with the fewest expected word errors against all samples."""

import numpy as np
import pytest
from jiwer import process_words
from rapidfuzz.distance import Levenshtein

from emtta_core.adaptation.mbr import edit_distances, least_risk, units


def test_distances_are_levenshtein() -> None:
    rng = np.random.default_rng(0)
    sequences = [[str(unit) for unit in rng.integers(4, size=rng.integers(0, 9))] for _ in range(24)]
    found = edit_distances(sequences)
    expected = [[Levenshtein.distance(one, other) for other in sequences] for one in sequences]
    assert found.tolist() == expected


def test_distance_counts_word_errors() -> None:
    texts = ["turn the red lamp on", "turn red lamps on now", "burn the lamp"]
    found = edit_distances(units(texts))
    for row, reference in enumerate(texts):
        for column, hypothesis in enumerate(texts):
            score = process_words(reference, hypothesis)
            assert found[row, column] == score.substitutions + score.deletions + score.insertions


def test_consensus_text_wins() -> None:
    assert least_risk(["a red bus", "the red bus stops", "the red bus", "the bread bus"]) == 2
    assert least_risk(["one", "two", "three"]) == 0  # the first of equals
    assert least_risk([""]) == 0
    assert least_risk(["", "", "noise"]) == 0


def test_case_and_punctuation_are_ignored() -> None:
    assert edit_distances(units(["Stop, now!", "stop now"])).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("texts", [["東京タワー", "東京ダワー", "京都"], ["yes", "yet", "nothing"]])
def test_unspaced_text_uses_characters(texts: list[str]) -> None:
    assert edit_distances(units(texts))[0, 1] == 1
    assert least_risk(texts) in (0, 1)


def test_combining_marks_do_not_split_words() -> None:
    assert units(["हिन्दी में बोलो!", "cafe\u0301 noir"]) == [["हिन्दी", "में", "बोलो"], ["cafe\u0301", "noir"]]
