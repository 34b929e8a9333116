"""Audio files that serve many utterances: read once, and again when they have changed."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from emtta_core.audio.files import read_audio
from emtta_core.audio.waveform import Waveform


def remembering(files: int) -> Callable[[Path], Waveform]:
    """Return a `read_audio` that keeps the last so many files in memory, each until it changes.

    What it returns is shared: nobody may write into it. It raises `AudioError` as `read_audio` does.
    """

    @lru_cache(maxsize=files)
    def kept(path: Path, _stamp: tuple[int, int] | None) -> Waveform:
        return read_audio(path)

    return lambda path: kept(path, _stamp(path))


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file does; None where it cannot be told, which reading it will say."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
