"""A run: a suite planned into a store under an id, what of it is still to do, and the nights of a suite."""

import itertools
import json
import logging
import os
import platform
import re
import subprocess
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from emtta_core.adaptation import ALGORITHM_VERSION
from emtta_core.errors import EmttaError, UsageError
from emtta_core.pipeline.inventory import locate
from emtta_core.pipeline.plan import FED, Cell, Plan, cells_of, plan, plan_audio, plan_id_of, recipe_of
from emtta_core.pipeline.state import cell_states, planned_cells
from emtta_core.scoring import scorer
from emtta_core.store import COMPLETE, PlanRow, RunRow, Store
from emtta_core.store.lease import lease
from emtta_core.store.run_list import RunList
from emtta_core.suite import ModelChoice, Runtime, Suite, parse_suite
from emtta_core.suite.messages import differences

PACKAGES = (
    *("emtta", "torch", "transformers", "numpy", "soundfile", "soxr"),
    *("prefect", "pyarrow", "duckdb", "jiwer", "whisper-normalizer"),
)
"""Whose releases a run records, besides Python's."""

log = logging.getLogger("emtta.pipeline")


@dataclass(frozen=True, slots=True)
class Run:
    """A suite planned under an id."""

    run_id: str
    suite: Suite
    plan: Plan

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Its planned cells, in order."""
        return self.plan.cells


def plan_run(suite: Suite, model_digest: str, run_id: str | None = None) -> Run:
    """Plan a suite, and write nothing yet.

    The run's suite is the one given with each corpus located. What cannot be had is in the plan's `remarks`. Without a
    chosen `run_id`, the same suite and model find their run again.

    Raises:
        EmttaError: no domain's audio can be had.
    """
    suite = locate(suite)
    planned = plan(suite, model_digest)
    return Run(run_id or default_id(suite, planned), suite, planned)


def default_id(suite: Suite, planned: Plan) -> str:
    """The id of a run for which none was chosen."""
    return f"{suite.name}-{planned.plan_id[:8]}"


def is_recorded(run: Run, store: Store) -> bool:
    """Whether the store has the run; domains that had no audio when it was recorded may have some in `run`.

    Raises:
        UsageError: it has a run of this id with another plan; names the fields that differ.
    """
    stored = store.find_run(run.run_id)
    if stored is None:
        return False
    if stored.plan_id != run.plan.plan_id and _continued(load_run(store, run.run_id), run) is None:
        raise UsageError(_difference(run, stored))
    return True


def record(run: Run, store: Store) -> None:
    """Record a run and its plan; to a run that is there, add the audio that its domains lacked, and how it is scored.

    Raises:
        UsageError: a run of this id is there with another plan; names the fields that differ. Or a scorer of the suite
            cannot be had.
        StoreError: another process works on a run of this id, or the record there cannot be read.
    """
    for name in run.suite.scorers:
        scorer(name)  # refused before anything is recorded
    if is_recorded(run, store):
        begun = load_run(store, run.run_id)
        continued = _continued(begun, run)
        if continued is not None and continued.cells != begun.cells:
            replace_plan(continued, store)
        if begun.suite.scored_as(run.suite) != begun.suite:
            change_scoring(run, store)
        return
    with lease(store, run.run_id):  # of two suites with one run id, the second is refused: they never mix
        if not is_recorded(run, store):
            store.write_plan(run.run_id, _plan_rows(run.cells, run.suite))
            store.write_run(run.run_id, _run_row(run))


def change_scoring(run: Run, store: Store) -> None:
    """Record that a run is to be scored as its suite says now; StoreError where a process works on it."""
    with lease(store, run.run_id):
        suite = load_run(store, run.run_id).suite.scored_as(run.suite)
        store.write_plan(run.run_id, _plan_rows(planned_cells(store, run.run_id), suite))  # first: see `replace_plan`
        row = store.run(run.run_id)
        store.write_run(run.run_id, replace(row, suite_toml=suite.to_toml(), scorers=suite.scorers))


def replace_plan(run: Run, store: Store) -> None:
    """Write the plan of a recorded run of which domains were planned anew; StoreError where a process works on it."""
    with lease(store, run.run_id):
        row = replace(store.run(run.run_id), plan_id=run.plan.plan_id, suite_toml=run.suite.to_toml())
        store.write_run(run.run_id, row)  # first: a process killed here leaves a plan that lacks audio, to be replaced
        store.write_plan(run.run_id, _plan_rows(run.cells, run.suite))


def load_run(store: Store, run_id: str) -> Run:
    """A run as the store has it.

    Raises:
        UsageError: there is no such run; lists those there are.
    """
    row = store.run(run_id)
    suite = parse_suite(row.suite_toml, origin=f"the suite of run {run_id}")
    return Run(run_id, suite, Plan(row.plan_id, row.model_digest, planned_cells(store, run_id)))


def find_begun(run: Run, store: Store) -> Run:
    """A run without a chosen id, under the id of the one as which it was begun while some of its audio was lacking.

    That one had another plan, and so another id. Where there is none, the run is returned as it is.
    """
    if run.run_id != default_id(run.suite, run.plan) or store.find_run(run.run_id) is not None:
        return run
    named = re.compile(rf"{re.escape(run.suite.name)}-[0-9a-f]{{8}}")
    for run_id, row in store.runs().items():
        if named.fullmatch(run_id) and row.model_digest == run.plan.model_digest:
            try:
                if _continued(load_run(store, run_id), run) is not None:
                    return replace(run, run_id=run_id)
            except EmttaError as error:
                log.warning("the run %s cannot be read, so it is not continued: %s", run_id, error)
    return run


def plan_anew(run: Run, domains: Collection[str]) -> Run:
    """Plan domains of a recorded run anew, with the audio and transcripts that are there now.

    A domain whose audio cannot be had stays as it was planned. Where a stream goes through several domains, all are
    planned anew, or none.
    """
    if not domains:
        return run
    suite = locate(run.suite)
    if not suite.crosses_domains:
        suite = suite.model_copy(update={"domains": tuple(d for d in suite.domains if d.name in domains)})
    audio = {name: found for name, found in plan_audio(suite).items() if found.error is None}
    if suite.crosses_domains and len(audio) < len(suite.domains):
        return run
    cells = [cell for name in audio for cell in cells_of(suite.domain(name), suite, run.plan.model_digest, audio)]
    return _with_cells(run, suite, cells)


def _continued(begun: Run, run: Run) -> Run | None:
    # A recorded run with the audio that it lacked and that `run` has; None where `run` has another plan than that.
    # The id of the plan is that of its cells, or already that of `run` where `replace_plan` was cut short.
    if begun.plan.plan_id not in (plan_id_of(begun.cells), run.plan.plan_id):
        return None
    lacking = {cell.domain for cell in begun.cells if not cell.available}
    found = _with_cells(begun, run.suite, [cell for cell in run.cells if cell.domain in lacking and cell.available])
    return found if found.plan.plan_id == run.plan.plan_id else None


def _with_cells(run: Run, suite: Suite, cells: Sequence[Cell]) -> Run:
    # A run with these cells in the place of its own of the same names, and their domains as `suite` has them.
    new = {(cell.domain, cell.method, cell.seed): cell for cell in cells}
    merged = tuple(new.get((cell.domain, cell.method, cell.seed), cell) for cell in run.cells)
    names = {cell.domain for cell in cells}
    domains = tuple(suite.domain(old.name) if old.name in names else old for old in run.suite.domains)
    changed = run.suite.model_copy(update={"domains": domains})
    return Run(run.run_id, changed, replace(run.plan, plan_id=plan_id_of(merged), cells=merged))


def check_unchanged(store: Store, run: Run) -> None:
    """Check that cells of a recorded run would be what they were when it was planned, as far as its record tells.

    And that its scorers are to be had: else each hypothesis would be made in vain.

    Its corpora are not looked at: their audio is checked when it is prepared.

    Raises:
        UsageError: this release adapts differently; names what differs. Or a scorer cannot be had.
    """
    for name in run.suite.scorers:
        scorer(name)
    stored = store.run(run.run_id)
    lines = _other_code(stored) + [f"the plug-in of the method {name}" for name in _changed_plugins(run)]
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        raise UsageError(
            f"the run {run.run_id!r} was planned by other code, and cannot go on with this; differences:\n{listed}\n"
            "begin a new run of its suite, or install the release that it was planned with"
        )


def as_now(run: Run, runtime: Runtime, model: ModelChoice) -> Run:
    """A recorded run with the runtime, the device and the model's folder that its suite names now; the plan stays."""
    planned = run.suite.model
    kept = ("precision", *FED, *(("revision",) if model.name == planned.name else ()))
    model = model.model_copy(update={name: getattr(planned, name) for name in kept})
    runtime = runtime.model_copy(update={"reuse": run.suite.runtime.reuse})
    return replace(run, suite=run.suite.model_copy(update={"runtime": runtime, "model": model}))


def _difference(run: Run, stored: RunRow) -> str:
    then = parse_suite(stored.suite_toml, origin=f"the suite of run {run.run_id}").identity()
    found = differences(then, run.suite.identity())
    lines = [f"{path}: {there!r} there, {here!r} here" for path, there, here in found]
    if stored.model_digest != run.plan.model_digest:
        lines.append(f"the model's weights: {stored.model_digest} there, {run.plan.model_digest} here")
    lines += _other_code(stored)
    listed = "\n".join(f"  {line}" for line in lines) or "  the content of a corpus, or a plug-in"
    return (
        f"the run {run.run_id!r} is there with another plan; differences:\n{listed}\n"
        "choose another --run-id, or leave it out to have one made from the plan"
    )


def _changed_plugins(run: Run) -> list[str]:
    # The methods of a run whose plug-ins are not those with which it was planned.
    suite, changed = run.suite, dict[str, None]()
    corpora = {cell.domain: cell.corpus_id for cell in run.cells}
    for cell in run.cells:
        choice, domain = suite.method(cell.method), suite.domain(cell.domain)
        if choice.method().plugins:
            recipe = recipe_of(suite, choice, cell.seed, domain, run.plan.model_digest, corpora)
            if recipe != cell.recipe_id:
                changed[cell.method] = None
    return list(changed)


def _other_code(stored: RunRow) -> list[str]:
    # The versions in which this release adapts differently from the one that recorded a run.
    if stored.algorithm_version == ALGORITHM_VERSION:
        return []
    return [f"the algorithm's version: {stored.algorithm_version} there, {ALGORITHM_VERSION} here"]


def _plan_rows(cells: Sequence[Cell], suite: Suite) -> list[PlanRow]:
    return [
        PlanRow(
            domain=cell.domain,
            group=cell.group,
            method=cell.method,
            seed=cell.seed,
            cell_id=cell.cell_id,
            corpus_id=cell.corpus_id,
            recipe_id=cell.recipe_id,
            utterances=cell.utterances,
            sample=cell.sample,
            scorer=suite.scorers[0],
            counts_errors=suite.errors == "delete",
        )
        for cell in cells
    ]


def _run_row(run: Run) -> RunRow:
    suite = run.suite
    return RunRow(
        suite=suite.name,
        suite_toml=suite.to_toml(),
        plan_id=run.plan.plan_id,
        created_at=datetime.now(UTC),
        model=suite.model.name,
        model_digest=run.plan.model_digest,
        algorithm_version=ALGORITHM_VERSION,
        versions=json.dumps(versions()),
        git_commit=_git_commit(),
        host=platform.node(),
        scorers=suite.scorers,
    )


def versions() -> dict[str, str]:
    """The releases of Python and of the packages that matter, and by which instructions this processor adds.

    A package that is not installed is left out.
    """
    return {"python": platform.python_version(), "processor": _processor(), **_releases()}


@cache
def _releases() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _processor() -> str:
    # This processor's kind and vector instructions, by which float32 sums differ in their last digits.
    extensions = np.show_config(mode="dicts").get("SIMD Extensions", {})  # numpy leaves out what is empty
    vectors = [*extensions.get("baseline", []), *extensions.get("found", [])]
    held_to = os.environ.get("ATEN_CPU_CAPABILITY")  # torch's own switch
    return " ".join([platform.machine(), *vectors, *([f"as {held_to}"] if held_to else [])])


def _git_commit() -> str | None:
    # The commit of the code, with `+` behind it where files were changed; none outside a checkout.
    here = Path(__file__).parent
    try:
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)  # the checkout may be of something else
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def plan_night(suite: Suite, model_digest: str, store: Store, date: str) -> Run:
    """Plan the run of a date: `<suite>-<date>`, or that with `-2`, `-3`, … behind it.

    A run of the date that has the same plan and is not complete is the one that goes on. One that is complete, or has
    another plan (the suite, the model or the algorithm changed during the day), is left as it is.

    Raises:
        StoreError: a run of that date is there and cannot be read.
    """
    night = plan_run(suite, model_digest, f"{suite.name}-{date}")
    for number in itertools.count(2):
        row = store.find_run(night.run_id)
        if row is None:
            return night
        if row.plan_id == night.plan.plan_id and not all(cell.complete for cell in cell_states(store, night.run_id)):
            return night
        night = Run(f"{suite.name}-{date}-{number}", suite, night.plan)
    raise AssertionError("numbers do not end")


def baselines(store: Store, run_id: str) -> list[str]:
    """The complete runs of the same suite and model that were begun before a run, the newest first."""
    this, there = store.run(run_id), RunList(store).refresh().records
    same = [row for row in there if (row["suite"], row["model"]) == (this.suite, this.model)]
    earlier = [row for row in same if row["created_at"] <= this.created_at and row["run_id"] != run_id]
    return [str(row["run_id"]) for row in earlier if row["state"] == COMPLETE]
