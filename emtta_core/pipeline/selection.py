"""Which cells of a plan, or domains of a suite, are meant, and what of them is done again."""

import shlex
from collections.abc import Sequence
from typing import Literal

from emtta_core.errors import UsageError, unknown
from emtta_core.pipeline.plan import Cell
from emtta_core.suite import Domain, Suite

Redo = Literal["missing", "errors", "all"]
"""Which utterances of a cell are done: those that are not yet, those in error too, or all of them again."""


KEYS = ("domain", "method", "group", "name")

_DOMAIN_KEYS = {"domain": "name", "group": "group"}
"""What a domain is chosen by, and the field."""


def select(cells: Sequence[Cell], only: Sequence[str]) -> tuple[Cell, ...]:
    """Return the cells that match: one of the values of each key that is named; all where none is.

    Args:
        cells: of a plan.
        only: as in `["domain=GS", "domain=BA", "method=em-tok"]`.

    Raises:
        UsageError: no `key=value`, another key, a value that no cell has (lists those there are), or values that no
            cell has together.
    """
    wanted: dict[str, set[str]] = {}
    for text in only:
        key, separator, value = text.partition("=")
        if not separator or key not in KEYS:
            raise UsageError(f"--only {text!r} is not of the form {' | '.join(f'{name}=…' for name in KEYS)}")
        there = sorted({str(getattr(cell, key)) for cell in cells})
        if value not in there:
            raise unknown(key, value, there)
        wanted.setdefault(key, set()).add(value)
    found = tuple(cell for cell in cells if all(getattr(cell, key) in values for key, values in wanted.items()))
    if not found:
        raise UsageError(
            f"no cell is all of {', '.join(only)}; values of one key are alternatives, different keys must all hold"
        )
    return found


def choose_domains(suite: Suite, only: Sequence[str]) -> list[Domain]:
    """Return the domains that `domain=…` and `group=…` name; all where nothing is named.

    Raises:
        UsageError: another key, a value that no domain has, or values that no domain has together.
    """
    wanted: dict[str, set[str]] = {}
    for text in only:
        key, sign, value = text.partition("=")
        if not sign or key not in _DOMAIN_KEYS:
            raise UsageError(f"--only {text!r} is not of the form domain=… | group=…")
        there = sorted({str(getattr(domain, _DOMAIN_KEYS[key])) for domain in suite.domains})
        if value not in there:
            raise unknown(key, value, there)
        wanted.setdefault(_DOMAIN_KEYS[key], set()).add(value)
    found = [domain for domain in suite.domains if all(getattr(domain, key) in wanted[key] for key in wanted)]
    if not found:
        raise UsageError(f"no domain is all of {', '.join(only)}")
    return found


def resume_command(run_id: str, store: str, cells: Sequence[Cell], incomplete: Sequence[Cell]) -> str:
    """Return the command that finishes these cells of a run, and few others: it selects whole domains and methods.

    Args:
        run_id: the run.
        store: the store's location.
        cells: which to finish.
        incomplete: all cells of the run that are not complete; what is complete need not be left out.
    """
    words = ["emtta", "rerun", run_id, "--store", store]
    for key in ("domain", "method"):
        values = dict.fromkeys(str(getattr(cell, key)) for cell in cells)
        if set(values) != {getattr(cell, key) for cell in incomplete}:
            for value in values:
                words += [f"--{key}", value]
    return shlex.join(words)
