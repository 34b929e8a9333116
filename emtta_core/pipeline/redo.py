"""What of a run is done again."""

from typing import Literal

Redo = Literal["missing", "errors", "all"]
"""Which utterances of a cell are done: those that are not yet, those in error too, or all of them again."""
