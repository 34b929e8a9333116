"""The folders of this machine in which published recordings are looked for before a network is asked.

`EMTTA_CORPORA=/data` says that `/data` holds what others publish, each under its usual name: `LibriSpeech/`,
`mls_german/`, `l2arctic/`, `MS-SNSD/`. So a suite needs no path of any machine in it.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

CORPORA = "EMTTA_CORPORA"
"""The environment variable that names the folders, several of them joined as in `PATH`."""


def corpus_dirs() -> tuple[Path, ...]:
    """The folders that `EMTTA_CORPORA` names."""
    return tuple(Path(name).expanduser() for name in os.environ.get(CORPORA, "").split(os.pathsep) if name)


def candidates(path: str | None, names: Sequence[str]) -> Iterator[Path]:
    """Yield the folders in which something published may lie.

    Args:
        path: the folder that a suite names; None for those of `EMTTA_CORPORA`.
        names: what its folder is usually called.
    """
    for folder in corpus_dirs() if path is None else (Path(path).expanduser(),):
        yield folder
        yield from (folder / name for name in names)


def searched(path: str | None) -> str:
    """The folders of `candidates`, for a message."""
    if path is not None:
        return repr(path)
    return ", ".join(map(str, corpus_dirs())) or f"any folder ({CORPORA} names none)"
