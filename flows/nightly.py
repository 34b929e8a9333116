"""The nightly flow: evaluate a suite as a new run, compact it, compare it with the last one; and its schedule."""

import asyncio
import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from prefect import flow, get_client, get_run_logger
from prefect import serve as serve_deployments
from prefect.client.schemas.objects import State, StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.events import emit_event
from prefect.exceptions import FailedRun, ObjectNotFound
from prefect.runtime import flow_run
from prefect.schedules import Cron
from prefect.server.schemas.schedules import CronSchedule
from prefect.states import Completed, Failed
from pydantic import ValidationError

from emtta_core.compare import Change, Comparison, compare
from emtta_core.errors import EmttaError, UsageError
from emtta_core.pipeline.models import digest_of
from emtta_core.pipeline.run import Run, baselines, plan_night, record
from emtta_core.report import make_page
from emtta_core.scoring.paired import ALPHA
from emtta_core.scoring.significance import MIN_EFFECT, check_thresholds
from emtta_core.store import Store
from emtta_core.store.compaction import compact
from emtta_core.suite import Isolation, load_suite
from emtta_core.trend import NIGHTS, THRESHOLD, Watch, check_trend, watch
from flows.artifacts import also_logging_to, publish, publish_comparison
from flows.evaluate import INTERRUPTED, evaluate
from flows.prefect_server import reach
from flows.runner import Runner, check_runner
from tasks.cells import hide_passwords


def timezone_of(name: str) -> ZoneInfo:
    """The time zone `name`, such as `Europe/Berlin`; raises a UsageError that suggests similar names."""
    known = available_timezones()
    if name not in known:
        close_matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or [
            "UTC",
            "Europe/Berlin",
            "America/New_York",
        ]
        raise UsageError(
            f"unknown time zone {name!r}; use a name of the IANA database, such as {', '.join(close_matches)}"
        )
    return ZoneInfo(name)


FIELDS = "minute hour day-of-month month day-of-week"
"""The fields of a cron expression, in order."""


def next_runs(cron: str, timezone: str, count: int, after: datetime | None = None) -> list[datetime]:
    """When the next runs of a schedule are due, in its time zone.

    Args:
        cron: a cron expression such as `0 4 * * *`.
        timezone: a time zone such as `Europe/Berlin`; the hour stays the same across daylight-saving changes.
        count: the number of runs.
        after: only runs after this time; now by default.

    Raises:
        UsageError: the cron expression is invalid or never due, or there is no such time zone.
    """
    zone = timezone_of(timezone)
    if len(cron.split()) != len(FIELDS.split()) and not cron.startswith("@"):
        raise UsageError(
            f"the cron expression {cron!r} has {len(cron.split())} fields, not 5: {FIELDS}; an example is '0 4 * * *', "
            "every night at four"
        )
    try:
        schedule = CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"the cron expression {cron!r} is invalid: {reason}; its fields are {FIELDS}, as in '0 4 * * *'"
        ) from error
    try:
        dates = asyncio.run(schedule.get_dates(count, start=after))
    except ValueError as error:
        raise UsageError(f"the cron expression {cron!r} is never due: {error}") from error
    return [date.astimezone(zone) for date in dates]


REGRESSED = "Regressed"
"""The name of the final state of a complete night with worse results."""

EVENT = "emtta.wer.regressed"
"""The event to which an automation reacts."""

MAX_LISTED_REGRESSIONS = 50
"""The most figures that the event and the state's message name; the comparison has all."""


def _flow_run_name() -> str:
    parameters = flow_run.get_parameters()
    suite = str(parameters["suite"])
    try:
        return f"{load_suite(suite).name}-{_date(str(parameters['timezone']))}"
    except EmttaError:  # the flow itself reports the error
        return Path(suite).stem


class _FinalStateFilter(logging.Filter):
    """Reduces Prefect's log record of a final state chosen by the flow to one line without a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], FailedRun):
            first = str(record.exc_info[1]).partition("\n")[0]
            record.msg, record.args, record.exc_info = "the night did not end as Completed: %s", (first,), None
        return True


_FINAL_STATE_FILTER = _FinalStateFilter()


@flow(name="nightly", flow_run_name=_flow_run_name, persist_result=False, validate_parameters=True)
@hide_passwords()
def nightly(
    suite: str,
    store: str,
    timezone: str = "UTC",
    baseline: str | None = None,
    alpha: float = ALPHA,
    min_effect: float | str = MIN_EFFECT,
    trend_nights: int = NIGHTS,
    trend_threshold: float = THRESHOLD,
    devices: str | None = None,
    isolation: Isolation | None = None,
    runner: Runner = "threads",
    ray_address: str | None = None,
) -> State[Any]:
    """Evaluate a suite as tonight's run, and compare it with the last complete run of the same suite and model.

    Args:
        suite: the name of a shipped suite, or the path of a suite file.
        store: the store's location.
        timezone: the time zone of the run's date, such as `Europe/Berlin`.
        baseline: the run to compare with; by default, the last complete one with the same speech.
        alpha: the largest p of a significant change.
        min_effect: the size that a change must exceed: points of WER, or a share of the baseline's, such as `2%`.
        trend_nights: the most nights over which to look for a trend.
        trend_threshold: the least z of a trend.
        devices: where cells run; by default as the suite says.
        isolation: whether cells run in separate processes; by default as the suite says.
        runner: processes on this machine, or the machines of a Ray cluster, which must all reach the store.
        ray_address: the address of that cluster, such as `HOST:6379`; by default the one this machine belongs to.

    Raises:
        UsageError: no such suite, time zone or baseline, a mistake in the suite, a threshold out of range, or an
            option that does not apply to the runner.
        StoreError: the store cannot be written, or another process is working on the run.

    Returns:
        Completed; Failed if cells failed or the given baseline cannot be compared; or a state of the type FAILED named
        `Regressed` if the run is complete and a figure is significantly worse or a trend raises its first alarm, or
        named `Interrupted` if the night was asked to stop.
    """
    check_runner(runner, ray_address, devices, isolation)
    date = _date(timezone)
    check_thresholds(alpha, min_effect)
    check_trend(trend_nights, trend_threshold, min_effect)
    opened = Store.open(store, create=True)
    if baseline is not None:
        opened.run(baseline)  # raises, before anything begins, if there is no such run
    loaded = load_suite(suite).without_reuse()
    night = plan_night(loaded, digest_of(loaded.model), opened, date)
    for remark in night.plan.remarks:
        get_run_logger().warning(remark)
    record(night, opened)
    logging.getLogger("prefect.engine").addFilter(_FINAL_STATE_FILTER)
    with also_logging_to(opened, night.run_id):
        current = {"runtime": night.suite.runtime, "model": night.suite.model}
        executor = {"devices": devices, "isolation": isolation, "runner": runner, "ray_address": ray_address}
        evaluated: State[Any] = evaluate(night.run_id, store, **current, **executor, return_state=True)
        thresholds = _Thresholds(alpha, min_effect, trend_nights, trend_threshold)
        return _conclude(evaluated, night, opened, baseline, thresholds, {"suite": suite, "store": store})


@dataclass(frozen=True, slots=True)
class _Thresholds:
    alpha: float
    min_effect: float | str
    trend_nights: int
    trend_threshold: float


def _conclude(
    evaluated: State[Any],
    night: Run,
    store: Store,
    baseline: str | None,
    thresholds: _Thresholds,
    parameters: dict[str, str],
) -> State[Any]:
    # 1) a stopped evaluation is compared once it has been finished, as there may be no time now
    if evaluated.is_cancelled() or not evaluated.is_final():
        resume = store.command("rerun", night.run_id)
        return Failed(
            name=INTERRUPTED, message=f"the evaluation is {evaluated.name} in Prefect; finish it with: {resume}"
        )
    result = evaluated.result(raise_on_failure=False)
    if isinstance(result, BaseException):  # an error that stopped the flow, not one of a cell
        raise result
    if evaluated.name == INTERRUPTED:
        return Failed(name=INTERRUPTED, message=evaluated.message)
    # 2) compact the run, compare it with an earlier one, look for a trend, and publish the findings
    if evaluated.is_completed():
        _compact(store, night.run_id)
    comparison = _compare(store, night.run_id, baseline, thresholds)
    trends = _watch(store, night.run_id, thresholds)
    message = (
        f"{evaluated.message}\n{comparison if isinstance(comparison, str) else comparison.summary}\n{trends.summary}"
    )
    publish(store, night.run_id, "nightly", page=_page(store, night.run_id))
    compared = None if isinstance(comparison, str) else comparison
    publish_comparison(night.suite.name, night.run_id, compared, trends)
    regressions = compared.regressions if compared else ()
    message += "".join(f"\n{_describe(change)}" for change in regressions[:MAX_LISTED_REGRESSIONS])
    if regressions or trends.new:
        _emit(night, compared, trends, parameters, given=baseline is not None)
    # 3) the state of the night
    if not evaluated.is_completed():
        return Failed(message=message)
    if regressions or trends.new:
        get_run_logger().error(message)
        return State(type=StateType.FAILED, name=REGRESSED, message=message)
    if baseline is not None and compared is None:
        get_run_logger().error(message)
        return Failed(message=message)
    if trends.worse:  # reported as a regression on the night it began
        get_run_logger().warning(trends.summary)
    return Completed(message=message)


def _date(timezone: str) -> str:
    # The date for which this flow run was scheduled, even if it starts late.
    scheduled: datetime = flow_run.get_scheduled_start_time()
    return scheduled.astimezone(timezone_of(timezone)).date().isoformat()


def _page(store: Store, run_id: str) -> str | None:
    # Write the page of a night beside its log, and return its location; a failure is logged.
    try:
        return store.write_next_to_log(run_id, "html", make_page(store, run_id).html)
    except Exception:
        get_run_logger().warning("the page of %s could not be written", run_id, exc_info=True)
        return None


def _compact(store: Store, run_id: str) -> None:
    # Compact the run, which keeps a store of many nights fast; a failure is logged.
    try:
        compact(store, run_id)
    except EmttaError as error:
        get_run_logger().warning("run %s is complete, but was not compacted: %s", run_id, error)


def _compare(store: Store, run_id: str, baseline: str | None, thresholds: _Thresholds) -> Comparison | str:
    refusals = []
    for other in [baseline] if baseline else baselines(store, run_id):
        try:
            return compare(store, other, run_id, alpha=thresholds.alpha, min_effect=thresholds.min_effect)
        except UsageError as error:
            refusals.append(str(error))
    if refusals:
        return f"not compared: {refusals[0]}"
    return "not compared: there is no earlier complete run of this suite and model"


def _watch(store: Store, run_id: str, thresholds: _Thresholds) -> Watch:
    return watch(
        store,
        run_id,
        nights=thresholds.trend_nights,
        threshold=thresholds.trend_threshold,
        min_effect=thresholds.min_effect,
    )


def _emit(night: Run, comparison: Comparison | None, trends: Watch, parameters: dict[str, str], *, given: bool) -> None:
    # Emit the regression event for Prefect's automations; `parameters` name the suite and the store.
    opened, suite = Store.open(parameters["store"]), night.suite
    payload: dict[str, Any] = {"baseline": None, "regressions": [], "summary": trends.summary}
    command = opened.command("report", "history", "--run", night.run_id)
    if comparison is not None and comparison.regressions:
        thresholds = ("--alpha", str(comparison.alpha), "--min-effect", str(comparison.min_effect.value))
        command = opened.command("compare", comparison.run_a, comparison.run_b, *thresholds)
        payload = {
            "baseline": comparison.run_a,
            "alpha": comparison.alpha,
            "min_effect": comparison.min_effect.value,
            "regressions": comparison.as_dict()["regressions"][:MAX_LISTED_REGRESSIONS],
            "summary": comparison.summary,
        }
    emit_event(
        EVENT,
        resource={
            "prefect.resource.id": f"emtta.suite.{suite.name}",
            "prefect.resource.name": suite.name,
            "emtta.baseline": "given" if given else "none" if payload["baseline"] is None else "last",
        },
        payload={
            "suite": suite.name,
            "model": suite.model.name,
            "store": opened.location,
            "run": night.run_id,
            "trends": trends.as_dict(),
            "command": command,
            "parameters": parameters,
            **payload,
        },
    )


def _describe(change: Change) -> str:
    return (
        f"{change.domain}/{change.method}: {change.wer_a:.2f} → {change.wer_b:.2f} % "
        f"({change.difference:+.2f} points, p {change.p:.2g})"
    )


def serve(name: str, cron: str, timezone: str, parameters: Mapping[str, Any]) -> None:
    """Serve the deployment `nightly/<name>` until Ctrl-C, one run at a time, each in a separate process.

    Raises:
        UsageError: no server is configured (Prefect's temporary one schedules nothing), or the name is taken.
        EmttaError: the server does not answer.
    """
    reach()
    _refuse_taken(name, parameters)
    deployment = RunnerDeployment.from_flow(
        nightly, name, schedule=Cron(cron, timezone=timezone), parameters=dict(parameters), concurrency_limit=1
    )
    deployment.entrypoint = "emtta_core.entry.nightly"  # finds emtta's own packages before it imports the flow
    serve_deployments(deployment, name=name, limit=1)


def _refuse_taken(name: str, parameters: Mapping[str, Any]) -> None:
    # Refuse the name of a deployment that does something else, which serving would overwrite.
    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(f"{nightly.name}/{name}")
        except ObjectNotFound:
            return
    if found.work_pool_name is not None:
        what = f"belongs to the work pool {found.work_pool_name}"
    elif any(found.parameters.get(key) != parameters[key] for key in ("suite", "store")):
        what = f"evaluates {found.parameters.get('suite')} into {found.parameters.get('store')}"
    else:
        return
    raise UsageError(
        f"the deployment {nightly.name}/{name} already exists and {what}; choose another name, for example: "
        f"--name {name}-2, or delete it: prefect deployment delete {nightly.name}/{name}"
    )
