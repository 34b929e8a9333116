"""What a result is flagged with, and whether a text is one piece said over and over."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Flag = Literal["truncated", "collapsed", "gated", "reverted", "reset"]

LAWFUL = 3
"""How often in a row anything may be said: "no no no"."""

EXCESS = 15
"""A text loops by what a piece is said beyond that, if it is at least so many characters: "no no no no no no no no",
or eighteen times one letter, or four times a phrase of fifteen."""

SHARE = 0.5
"""A text is a loop if at least this share of its characters is in pieces said over and over."""


def flags_of(text: str, *, ended: bool, gated: bool = False, reverted: bool = False) -> tuple[Flag, ...]:
    """The flags of a hypothesis.

    Args:
        text: the hypothesis.
        ended: whether it ended by itself; else it is "truncated".
        gated: whether the utterance was not adapted to, its entropy being low.
        reverted: whether it is the source's, adapting having made it worse.
    """
    flags: dict[Flag, bool] = {
        "truncated": not ended,
        "collapsed": collapsed(text),
        "gated": gated,
        "reverted": reverted,
    }
    return tuple(flag for flag, raised in flags.items() if raised)


def collapsed(text: str) -> bool:
    """Whether a hypothesis is empty, or one piece said over and over for half of it or more.

    It is judged by characters, not by tokens or words: the tokens of many scripts are single bytes, of which few are
    distinct in any text, and many languages write no spaces. Case and the width of white space do not count. What is
    said up to three times in a row is no loop, nor what is longer by a few characters alone (`EXCESS`).
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
    # The stretches in which a piece of some length is repeated at once, over `LAWFUL` times by `EXCESS` characters:
    # there each character equals the one a piece earlier.
    for piece in range(1, (len(codes) - EXCESS) // LAWFUL + 1):
        equal = codes[piece:] == codes[:-piece]
        wanted = (LAWFUL - 1) * piece + EXCESS  # the first saying equals nothing
        if equal.sum() < wanted:
            continue
        edges = np.flatnonzero(np.diff(equal, prepend=False, append=False))
        for begin, end in edges.reshape(-1, 2):
            if end - begin >= wanted:
                yield begin, end + piece
