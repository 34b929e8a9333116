"""The flags of a result, and the detection of repetition loops in text."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Flag = Literal["truncated", "collapsed", "gated", "reverted", "reset"]

ALLOWED_REPEATS = 3
"""How many times in a row anything may be repeated: "no no no"."""

EXCESS = 15
"""Repetitions beyond that are a loop if they amount to at least this many characters: "no no no no no no no no", one
letter eighteen times, or a phrase of fifteen characters four times."""

SHARE = 0.5
"""A text has collapsed if at least this share of its characters is in loops."""


def flags_of(text: str, *, ended: bool, gated: bool = False, reverted: bool = False) -> tuple[Flag, ...]:
    """The flags of a hypothesis.

    Args:
        text: the hypothesis.
        ended: whether it ended with an end token; if not, it is "truncated".
        gated: whether the utterance was not adapted to because its entropy was low.
        reverted: whether it is the source's, because adapting made it worse.
    """
    flags: dict[Flag, bool] = {
        "truncated": not ended,
        "collapsed": collapsed(text),
        "gated": gated,
        "reverted": reverted,
    }
    return tuple(flag for flag, raised in flags.items() if raised)


def collapsed(text: str) -> bool:
    """Whether a hypothesis is empty, or at least half of it is a piece of text repeated over and over.

    Characters are compared, not tokens or words: the tokens of many scripts are single bytes, few of which are distinct
    in any text, and many languages are written without spaces. Case and the amount of white space are ignored. Up to
    three repetitions in a row are not a loop, nor are a few characters more (`EXCESS`).
    """
    plain = " ".join(text.casefold().split())
    if not plain:
        return True
    codes = np.frombuffer(plain.encode("utf-32-le"), dtype=np.uint32)
    looping = np.zeros(len(codes), dtype=bool)
    for begin, end in _loops(codes):
        looping[begin:end] = True
    return bool(looping.mean() >= SHARE)


def _loops(codes: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    # The spans in which a piece of some length is repeated back to back, `EXCESS` characters beyond `ALLOWED_REPEATS`:
    # there each character equals the one a piece earlier.
    for piece in range(1, (len(codes) - EXCESS) // ALLOWED_REPEATS + 1):
        equal = codes[piece:] == codes[:-piece]
        required = (ALLOWED_REPEATS - 1) * piece + EXCESS  # the first occurrence matches nothing before it
        if equal.sum() < required:
            continue
        edges = np.flatnonzero(np.diff(equal, prepend=False, append=False))
        for begin, end in edges.reshape(-1, 2):
            if end - begin >= required:
                yield begin, end + piece
