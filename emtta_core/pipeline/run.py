"""A run: a suite planned under an id and recorded in a store; resuming runs, and nightly runs of a suite."""

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
from emtta_core.pipeline.plan import INPUT_SETTINGS, Cell, Plan, cells_of, plan, plan_audio, plan_id_of, recipe_of
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
"""The packages whose versions a run records, besides Python's."""

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
    """Plan a suite without writing anything.

    The run's suite is the given one with each corpus located. The plan's `remarks` list what is not available. Without
    a `run_id`, the same suite and model always give the same id.

    Raises:
        EmttaError: the audio of no domain is available.
    """
    suite = locate(suite)
    planned = plan(suite, model_digest)
    return Run(run_id or default_id(suite, planned), suite, planned)


def default_id(suite: Suite, planned: Plan) -> str:
    """The id of a run for which the user chose none."""
    return f"{suite.name}-{planned.plan_id[:8]}"


def is_recorded(run: Run, store: Store) -> bool:
    """Whether the store has the run; domains without audio when it was recorded may have some in `run`.

    Raises:
        UsageError: it has a run of this id with a different plan; the message names the fields that differ.
    """
    stored = store.find_run(run.run_id)
    if stored is None:
        return False
    if stored.plan_id != run.plan.plan_id and _continued(load_run(store, run.run_id), run) is None:
        raise UsageError(_difference(run, stored))
    return True


def record(run: Run, store: Store) -> None:
    """Record a run and its plan; to an existing run, add audio that its domains lacked, and update its scorers.

    Raises:
        UsageError: a run of this id exists with a different plan (the message names the fields that differ), or a
            scorer of the suite is not available.
        StoreError: another process is working on a run of this id, or its record cannot be read.
    """
    for name in run.suite.scorers:
        scorer(name)  # refused before anything is recorded
    if is_recorded(run, store):
        recorded = load_run(store, run.run_id)
        continued = _continued(recorded, run)
        if continued is not None and continued.cells != recorded.cells:
            replace_plan(continued, store)
        if recorded.suite.scored_as(run.suite) != recorded.suite:
            change_scoring(run, store)
        return
    with lease(store, run.run_id):  # of two suites with one run id, the second is refused, so they never mix
        if not is_recorded(run, store):
            store.write_plan(run.run_id, _plan_rows(run.cells, run.suite))
            store.write_run(run.run_id, _run_row(run))


def change_scoring(run: Run, store: Store) -> None:
    """Record that a run is to be scored as its suite says now; raises StoreError if a process is working on it."""
    with lease(store, run.run_id):
        suite = load_run(store, run.run_id).suite.scored_as(run.suite)
        store.write_plan(run.run_id, _plan_rows(planned_cells(store, run.run_id), suite))  # first: see `replace_plan`
        row = store.run(run.run_id)
        store.write_run(run.run_id, replace(row, suite_toml=suite.to_toml(), scorers=suite.scorers))


def replace_plan(run: Run, store: Store) -> None:
    """Write the plan of a recorded run after replanning domains; raises StoreError if a process is working on it."""
    with lease(store, run.run_id):
        row = replace(store.run(run.run_id), plan_id=run.plan.plan_id, suite_toml=run.suite.to_toml())
        store.write_run(run.run_id, row)  # first: a process killed here leaves a plan that lacks audio, to be replaced
        store.write_plan(run.run_id, _plan_rows(run.cells, run.suite))


def load_run(store: Store, run_id: str) -> Run:
    """Load a run from the store.

    Raises:
        UsageError: there is no such run; the message lists the existing runs.
    """
    row = store.run(run_id)
    suite = parse_suite(row.suite_toml, origin=f"the suite of run {run_id}")
    return Run(run_id, suite, Plan(row.plan_id, row.model_digest, planned_cells(store, run_id)))


def find_started(run: Run, store: Store) -> Run:
    """Give a run without a chosen id the id under which it was begun while some of its audio was missing.

    The earlier plan differed, and so did its id. If there is no such run, the run is returned unchanged.
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
                log.warning("the run %s cannot be read, so it is not resumed: %s", run_id, error)
    return run


def replan(run: Run, domains: Collection[str]) -> Run:
    """Replan domains of a recorded run with the audio and transcripts available now.

    A domain whose audio is not available keeps its plan. If a stream goes through several domains, either all domains
    are replanned or none.
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


def _continued(recorded: Run, run: Run) -> Run | None:
    # A recorded run with the audio that it lacked and `run` has; None if `run` differs in more than that. The plan id
    # is derived from its cells, or is already that of `run` if `replace_plan` was interrupted.
    if recorded.plan.plan_id not in (plan_id_of(recorded.cells), run.plan.plan_id):
        return None
    missing = {cell.domain for cell in recorded.cells if not cell.available}
    found = _with_cells(recorded, run.suite, [cell for cell in run.cells if cell.domain in missing and cell.available])
    return found if found.plan.plan_id == run.plan.plan_id else None


def _with_cells(run: Run, suite: Suite, cells: Sequence[Cell]) -> Run:
    # A run in which these cells replace those of the same names, with their domains as in `suite`.
    new = {(cell.domain, cell.method, cell.seed): cell for cell in cells}
    merged = tuple(new.get((cell.domain, cell.method, cell.seed), cell) for cell in run.cells)
    names = {cell.domain for cell in cells}
    domains = tuple(suite.domain(old.name) if old.name in names else old for old in run.suite.domains)
    changed = run.suite.model_copy(update={"domains": domains})
    return Run(run.run_id, changed, replace(run.plan, plan_id=plan_id_of(merged), cells=merged))


def check_unchanged(store: Store, run: Run) -> None:
    """Check that this release would evaluate a recorded run's cells as they were planned, judging by its record.

    Also check that its scorers are available, as hypotheses could not be scored otherwise.

    Its corpora are not checked here: their audio is checked when it is prepared.

    Raises:
        UsageError: this release adapts differently (the message says how), or a scorer is not available.
    """
    for name in run.suite.scorers:
        scorer(name)
    stored = store.run(run.run_id)
    lines = _other_code(stored) + [f"the plug-in of the method {name}" for name in _changed_plugins(run)]
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        raise UsageError(
            f"the run {run.run_id!r} was planned by different code and cannot be resumed; differences:\n{listed}\n"
            "start a new run of its suite, or install the release with which it was planned"
        )


def with_current_settings(run: Run, runtime: Runtime, model: ModelChoice) -> Run:
    """A recorded run with the runtime, device and model folder that its suite names now; the plan is unchanged."""
    planned = run.suite.model
    kept = ("precision", *INPUT_SETTINGS, *(("revision",) if model.name == planned.name else ()))
    model = model.model_copy(update={name: getattr(planned, name) for name in kept})
    runtime = runtime.model_copy(update={"reuse": run.suite.runtime.reuse})
    return replace(run, suite=run.suite.model_copy(update={"runtime": runtime, "model": model}))


def _difference(run: Run, stored: RunRow) -> str:
    recorded = parse_suite(stored.suite_toml, origin=f"the suite of run {run.run_id}").identity()
    found = differences(recorded, run.suite.identity())
    lines = [f"{path}: {old!r} there, {new!r} here" for path, old, new in found]
    if stored.model_digest != run.plan.model_digest:
        lines.append(f"the model's weights: {stored.model_digest} there, {run.plan.model_digest} here")
    lines += _other_code(stored)
    listed = "\n".join(f"  {line}" for line in lines) or "  the content of a corpus, or a plug-in"
    return (
        f"the run {run.run_id!r} exists with a different plan; differences:\n{listed}\n"
        "choose another --run-id, or leave it out to derive one from the plan"
    )


def _changed_plugins(run: Run) -> list[str]:
    # The methods of a run whose plug-ins have changed since it was planned.
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
    # The version changes that make this release adapt differently from the one that recorded a run.
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
    """The versions of Python and the relevant packages, and this processor's vector instructions.

    Packages that are not installed are left out.
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
    # This processor's architecture and vector instructions, on which the last digits of float32 sums depend.
    extensions = np.show_config(mode="dicts").get("SIMD Extensions", {})  # numpy leaves out empty entries
    vectors = [*extensions.get("baseline", []), *extensions.get("found", [])]
    capability = os.environ.get("ATEN_CPU_CAPABILITY")  # torch's own switch
    return " ".join([platform.machine(), *vectors, *([f"as {capability}"] if capability else [])])


def _git_commit() -> str | None:
    # The commit of the code, followed by `+` if files were changed; None outside a checkout.
    folder = Path(__file__).parent
    try:
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)  # the checkout may be of something else
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def plan_night(suite: Suite, model_digest: str, store: Store, date: str) -> Run:
    """Plan the run of a date: `<suite>-<date>`, or that followed by `-2`, `-3`, ….

    An incomplete run of the date with the same plan is resumed. One that is complete, or has a different plan (the
    suite, the model or the algorithm changed during the day), is left alone.

    Raises:
        StoreError: a run of that date exists but cannot be read.
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
    """The complete runs of the same suite and model begun before a run, newest first."""
    current, records = store.run(run_id), RunList(store).refresh().records
    same = [row for row in records if (row["suite"], row["model"]) == (current.suite, current.model)]
    earlier = [row for row in same if row["created_at"] <= current.created_at and row["run_id"] != run_id]
    return [str(row["run_id"]) for row in earlier if row["state"] == COMPLETE]
