"""A run: a suite planned into a store under an id, and what of it is still to do.

The store, not the scheduler, is the truth about what is done: everything here is read from it.
"""

import json
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from emtta_core.adaptation import ALGORITHM_VERSION
from emtta_core.errors import UsageError
from emtta_core.pipeline.cell import Cell
from emtta_core.pipeline.plan import Plan, plan
from emtta_core.pipeline.state import planned_cells
from emtta_core.store import PlanRow, RunRow, Store
from emtta_core.suite import Suite, parse_suite

PACKAGES = ("emtta", "torch", "transformers", "numpy", "prefect", "pyarrow", "duckdb", "jiwer", "whisper-normalizer")
"""Whose releases a run records, besides Python's."""


@dataclass(frozen=True, slots=True)
class Run:
    """A suite planned under an id."""

    run_id: str
    suite: Suite
    cells: tuple[Cell, ...]


def run_id_of(suite: Suite, planned: Plan) -> str:
    """Return the id under which the same suite finds its run again."""
    return f"{suite.name}-{planned.plan_id[:8]}"


def begin(suite: Suite, store: Store, model_digest: str, run_id: str | None = None) -> Run:
    """Plan a suite and record the run in the store; a run that is there already is found again.

    Args:
        suite: what to evaluate.
        store: where to.
        model_digest: of the suite's model.
        run_id: another id than the default one.

    Raises:
        UsageError: the run is there with another plan; names the fields that differ.
    """
    planned = plan(suite, model_digest)
    name = run_id or run_id_of(suite, planned)
    if name in store.runs():
        _refuse_another(name, suite, planned, store.run(name))
    else:
        store.write_plan(name, [_plan_row(cell) for cell in planned.cells])
        store.write_run(name, _run_row(suite, planned))
    return Run(name, suite, planned.cells)


def load_run(store: Store, run_id: str) -> Run:
    """Return a run as the store has it.

    Raises:
        UsageError: there is no such run; lists those there are.
    """
    suite = parse_suite(store.run(run_id).suite_toml, origin=f"the suite of run {run_id}")
    return Run(run_id, suite, planned_cells(store, run_id))


def _refuse_another(run_id: str, suite: Suite, planned: Plan, stored: RunRow) -> None:
    """Raise a `UsageError` unless the stored run has the same plan."""
    if stored.plan_id == planned.plan_id:
        return
    then = parse_suite(stored.suite_toml, origin=f"the suite of run {run_id}").identity()
    differences = [
        f"{path}: {there!r} there, {here!r} here" for path, there, here in _differences(then, suite.identity())
    ]
    if stored.model_digest != planned.model_digest:
        differences.append(f"the model's weights: {stored.model_digest} there, {planned.model_digest} here")
    if stored.algorithm_version != ALGORITHM_VERSION:
        differences.append(f"the algorithm's version: {stored.algorithm_version} there, {ALGORITHM_VERSION} here")
    listed = "\n".join(f"  {line}" for line in differences) or "  the content of a corpus"
    raise UsageError(
        f"the run {run_id!r} is there with another plan; differences:\n{listed}\n"
        "choose another --run-id, or leave it out to have one made from the plan"
    )


def _differences(there: Any, here: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Return the places at which two plain values differ, each with both values."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [*there, *(key for key in here if key not in there)]
        found = [_differences(there.get(key), here.get(key), f"{path}.{key}" if path else key) for key in keys]
        return [item for items in found for item in items]
    if path == "domains" and isinstance(there, list) and isinstance(here, list):
        by_name = [{item["name"]: item for item in items} for items in (there, here)]
        return _differences(by_name[0], by_name[1], path)
    return [] if there == here else [(path, there, here)]


def _plan_row(cell: Cell) -> PlanRow:
    """Return the row of a planned cell."""
    return PlanRow(
        domain=cell.domain,
        group=cell.group,
        method=cell.method,
        cell_id=cell.cell_id,
        corpus_id=cell.corpus_id,
        utterances=cell.utterances,
    )


def _run_row(suite: Suite, planned: Plan) -> RunRow:
    """Return the record of a run that begins now."""
    return RunRow(
        suite=suite.name,
        suite_toml=suite.to_toml(),
        plan_id=planned.plan_id,
        created_at=datetime.now(UTC),
        model=suite.model.name,
        model_digest=planned.model_digest,
        algorithm_version=ALGORITHM_VERSION,
        versions=json.dumps(versions()),
        git_commit=_git_commit(),
        host=platform.node(),
    )


def versions() -> dict[str, str]:
    """Return the releases of Python and of the packages that matter; one that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git_commit() -> str | None:
    """Return the commit of the code, with `+` behind it where files were changed; none outside a checkout."""
    here = Path(__file__).parent
    try:
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)  # the checkout may be of something else
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    """Return what git says."""
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
