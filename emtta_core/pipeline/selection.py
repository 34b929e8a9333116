"""Selection of the cells of a plan or the domains of a suite, and of the utterances to evaluate again."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypeVar

from emtta_core.errors import UsageError, unknown
from emtta_core.pipeline.plan import Cell
from emtta_core.suite import Domain, Suite

Redo = Literal["missing", "errors", "all"]
"""Which utterances of a cell to evaluate: those not done yet, also those in error, or all of them again."""


CELL_FIELDS = {"domain": "domain", "method": "method", "group": "group", "seed": "seed_name"}
DOMAIN_FIELDS = {"domain": "name", "group": "group"}
"""The keys by which cells and domains are selected, and the field of each."""

_Item = TypeVar("_Item", Cell, Domain)


def select(cells: Sequence[Cell], only: Sequence[str]) -> tuple[Cell, ...]:
    """The cells that match one of the values of each key in `only`; all if it is empty.

    For example, `only` is `["domain=GS", "domain=BA", "method=em-tok"]`.

    Raises:
        UsageError: not `key=value`, an unknown key, a value that no cell has (the message lists the valid ones), or
            values that no cell has together.
    """
    return select_by_key(cells, _parse(only, CELL_FIELDS))


def select_by_key(cells: Sequence[Cell], criteria: Mapping[str, Sequence[str]]) -> tuple[Cell, ...]:
    """The cells that have one of the values of each key that has any; raises UsageError as `select` does."""
    return tuple(_matching("cell", cells, criteria, CELL_FIELDS))


def choose_domains(suite: Suite, only: Sequence[str]) -> list[Domain]:
    """The domains that `domain=…` and `group=…` name; all if nothing is named.

    Raises:
        UsageError: an unknown key, a value that no domain has, or values that no domain has together.
    """
    return _matching("domain", suite.domains, _parse(only, DOMAIN_FIELDS), DOMAIN_FIELDS)


def _parse(only: Sequence[str], fields: Mapping[str, str]) -> dict[str, list[str]]:
    criteria: dict[str, list[str]] = {}
    for text in only:
        key, sign, value = text.partition("=")
        if not sign or key not in fields:
            raise UsageError(f"--only {text!r} is not of the form {' | '.join(f'{name}=…' for name in fields)}")
        criteria.setdefault(key, []).append(value)
    return criteria


def _matching(
    what: str, items: Sequence[_Item], criteria: Mapping[str, Sequence[str]], fields: Mapping[str, str]
) -> list[_Item]:
    found = list(items)
    for key, values in criteria.items():
        known = sorted({str(getattr(item, fields[key])) for item in items})
        for value in values:
            if value not in known:
                raise unknown(key, value, known)
        found = [item for item in found if not values or getattr(item, fields[key]) in values]
    if not found:
        named = ", ".join(f"{key}={value}" for key, values in criteria.items() for value in values)
        raise UsageError(
            f"no {what} matches all of {named}; values of one key are alternatives, different keys must all match"
        )
    return found


def work_units_of(suite: Suite, cells: Sequence[Cell]) -> list[tuple[Cell, ...]]:
    """The units of work: each cell by itself, or all cells of a stream through several domains, in order."""
    units: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        stream = suite.stream_of(suite.method(cell.method))
        own_domain = () if stream is not None and stream.crosses else (cell.domain,)
        units.setdefault((cell.method, cell.seed_name, *own_domain), []).append(cell)
    for (method, *_), together in units.items():
        stream = suite.stream_of(suite.method(method))
        if stream is not None and len(together) > 1:
            order = {domain.name: index for index, domain in enumerate(stream.arranged(suite.domains))}
            together.sort(key=lambda cell: order[cell.domain])
    return [tuple(together) for together in units.values()]


def expand_to_streams(suite: Suite, cells: Sequence[Cell], chosen: Collection[Cell]) -> set[Cell]:
    """The chosen cells of a plan, and all other cells of their streams."""
    return {cell for work in work_units_of(suite, cells) if not set(work).isdisjoint(chosen) for cell in work}


def resume_command(run_id: str, store: str, cells: Sequence[Cell], incomplete: Sequence[Cell]) -> str:
    """The command that finishes these cells of a run and few others: it selects whole domains, methods and seeds.

    Args:
        run_id: the run.
        store: the store's location.
        cells: the cells to finish.
        incomplete: all incomplete cells of the run; the selection may include complete ones.
    """
    words = ["emtta", "rerun", run_id, "--store", store]
    several = any(cell.seeds > 1 for cell in incomplete)
    for key in ("domain", "method", *(["seed"] if several else [])):
        values = dict.fromkeys(str(getattr(cell, CELL_FIELDS[key])) for cell in cells)
        if set(values) != {str(getattr(cell, CELL_FIELDS[key])) for cell in incomplete}:
            for value in values:
                words += [f"--{key}", value]
    return shlex.join(words)
