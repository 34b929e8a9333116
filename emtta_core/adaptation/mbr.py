"""The choice of a hypothesis among transcripts; by minimum Bayes risk, the one that differs least from all of them.

The samples represent the model's distribution, so a transcript's mean distance from them estimates its expected word
errors; the transcript with the fewest is chosen. Source: Goel and Byrne, "Minimum Bayes-risk automatic speech
recognition", 2000; with samples instead of a lattice, Jinnai, arXiv:2510.19471. Here the samples are the policy's own,
at temperature 1, and the risk is the number of word errors.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emtta_core.adaptation.parts import calling, load, refuse_result
from emtta_core.plugins import is_plugin


def choose(decision: str, texts: Sequence[str]) -> int:
    """Choose which of an utterance's texts is its hypothesis, by the name of a decision or a plug-in.

    Raises:
        PluginError: the plug-in failed, or returned an invalid index.
    """
    if not is_plugin(decision):
        return least_risk(texts) if decision == "mbr" else 0  # the first beam is the best
    with calling("decision", decision):
        chosen = load("decision", decision)(texts)
    if isinstance(chosen, bool) or not isinstance(chosen, int | np.integer) or not 0 <= chosen < len(texts):
        raise refuse_result("decision", decision, repr(chosen), f"a whole number from 0 to {len(texts) - 1}")
    return int(chosen)


def least_risk(texts: Sequence[str]) -> int:
    """Choose the text with the fewest expected word errors; ties go to the first.

    Case and punctuation are ignored. If no text has a space, characters are compared instead of words.
    """
    distances = edit_distances(units(texts))
    return int(distances.sum(1).argmin())


def units(texts: Sequence[str]) -> list[list[str]]:
    """Split texts into the units compared: words, or characters if no text has two words."""
    words = ["".join(" " if _separates(mark) else mark for mark in text.casefold()).split() for text in texts]
    return words if any(len(row) > 1 for row in words) else [list("".join(row)) for row in words]


def _separates(mark: str) -> bool:
    # Whether a character is punctuation or a symbol; combining marks, such as Hindi's vowel signs, are neither.
    return unicodedata.category(mark)[0] in "PS"


def edit_distances(sequences: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """The Levenshtein distances between all pairs of G sequences, `(G, G)`.

    All pairs are computed at once, one unit of the first sequences at a time (Wagner and Fischer, 1974). A row's
    insertions run from left to right, d[j] = min(d[j], d[j - 1] + 1), which is a running minimum of d[j] - j.
    """
    number = {unit: index for index, unit in enumerate(sorted({unit for row in sequences for unit in row}))}
    lengths = np.array([len(row) for row in sequences])
    longest = int(lengths.max(initial=0))
    codes = np.full((len(sequences), longest), -1)
    for row, sequence in zip(codes, sequences, strict=True):
        row[: len(sequence)] = [number[unit] for unit in sequence]
    columns = np.arange(longest + 1)
    count = len(sequences)
    distance = np.broadcast_to(
        columns, (count, count, longest + 1)
    ).copy()  # from the empty prefix to the second's first j units
    table = np.where(lengths[:, None] == 0, lengths[None, :], 0)
    for step in range(longest):
        unequal = codes[:, None, step, None] != codes[None, :, :]
        best = distance + 1
        best[..., 1:] = np.minimum(best[..., 1:], distance[..., :-1] + unequal)
        distance = np.minimum.accumulate(best - columns, axis=-1) + columns
        ends = lengths == step + 1
        table[ends] = np.take_along_axis(distance[ends], np.broadcast_to(lengths, (count, count))[ends][..., None], 2)[
            ..., 0
        ]
    return table
