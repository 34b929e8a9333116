"""The folders of this machine in which published recordings are looked for before a network is asked.

`EMTTA_CORPORA=/data` says that `/data` holds what others publish, each under its usual name: `LibriSpeech/`,
`mls_german/`, `l2arctic/`, `MS-SNSD/`. So a suite needs no path of any machine in it.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

CORPORA = "EMTTA_CORPORA"
"""The environment variable that names the folders, several of them joined as in `PATH`."""


def shelves() -> tuple[Path, ...]:
    """Return the folders that `EMTTA_CORPORA` names."""
    return tuple(Path(name).expanduser() for name in os.environ.get(CORPORA, "").split(os.pathsep) if name)


def places(path: str | None, names: Sequence[str]) -> Iterator[Path]:
    """Yield the folders where something published may lie.

    Args:
        path: the folder that a suite names; None to look on the shelves.
        names: what its folder is usually called.
    """
    for folder in shelves() if path is None else (Path(path).expanduser(),):
        yield folder
        for name in names:
            yield folder / name


def looked_in(path: str | None) -> str:
    """Return in words where `places` are."""
    if path is not None:
        return repr(path)
    return ", ".join(map(str, shelves())) or f"any folder ({CORPORA} names none)"
