"""The flow for each night: evaluate a suite afresh, compact its run, compare it with the last; and its schedule."""

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
    """The time zone called `name`, as in `Europe/Berlin`; UsageError naming those that are like it."""
    known = available_timezones()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or ["UTC", "Europe/Berlin", "America/New_York"]
        raise UsageError(f"unknown time zone {name!r}; the names are those of the IANA database, as {', '.join(near)}")
    return ZoneInfo(name)


FIELDS = "minute hour day-of-month month day-of-week"
"""What a cron expression says, in this order."""


def next_runs(cron: str, timezone: str, count: int, after: datetime | None = None) -> list[datetime]:
    """When the next runs of a schedule are due, in its time zone.

    Args:
        cron: as in `0 4 * * *`.
        timezone: as in `Europe/Berlin`; the hour is kept where its clocks change.
        count: how many.
        after: none before this; now by default.

    Raises:
        UsageError: no cron expression, one that never comes, or no such time zone.
    """
    zone = timezone_of(timezone)
    if len(cron.split()) != len(FIELDS.split()) and not cron.startswith("@"):
        raise UsageError(
            f"the cron expression {cron!r} has {len(cron.split())} fields and not 5: {FIELDS}; as in '0 4 * * *', "
            "each night at four"
        )
    try:
        schedule = CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"the cron expression {cron!r} does not hold: {reason}; its fields are {FIELDS}, as in '0 4 * * *'"
        ) from error
    try:
        dates = asyncio.run(schedule.get_dates(count, start=after))
    except ValueError as error:
        raise UsageError(f"the cron expression {cron!r} never comes: {error}") from error
    return [date.astimezone(zone) for date in dates]


REGRESSED = "Regressed"
"""The name of the state in which a night ends whose results are there, and worse."""

EVENT = "emtta.wer.regressed"
"""What an automation listens for."""

REGRESSIONS_NAMED = 50
"""How many figures the event and the state's message name; the comparison has all."""


def _flow_run_name() -> str:
    parameters = flow_run.get_parameters()
    suite = str(parameters["suite"])
    try:
        return f"{load_suite(suite).name}-{_date(str(parameters['timezone']))}"
    except EmttaError:  # which the flow itself will say
        return Path(suite).stem


class _Ended(logging.Filter):
    """Has Prefect log in one line an end that the flow has chosen, which is nothing unexpected and has no traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], FailedRun):
            first = str(record.exc_info[1]).partition("\n")[0]
            record.msg, record.args, record.exc_info = "the night did not end as Completed: %s", (first,), None
        return True


_ENDED = _Ended()


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
        timezone: of the run's date, as in `Europe/Berlin`.
        baseline: the run to compare with; left out, the last complete one that heard the same speech.
        alpha: a change is significant with a p of at most this.
        min_effect: and only where it is larger than this, points of WER, or a share of the baseline's, as in `2%`.
        trend_nights: a trend is sought over at most so many nights.
        trend_threshold: the least z of a trend.
        devices: where cells run; left out, as the suite says.
        isolation: whether cells run in processes of their own; left out, as the suite says.
        runner: processes of this machine, or the machines of a Ray cluster, which must see the store.
        ray_address: of that cluster, as in `HOST:6379`; left out, the one that this machine belongs to.

    Raises:
        UsageError: no such suite, time zone or baseline, a mistake in the suite, a threshold out of range, or an
            option that the runner has no use for.
        StoreError: the store cannot be written, or another process works on the run.

    Returns:
        Completed; Failed where cells failed or a given baseline cannot be compared with; or a state of the type FAILED
        and the name `Regressed`, where all is there and a figure is significantly worse, or tonight has the first alarm
        of a trend, or `Interrupted`, where the night was asked to stop.
    """
    check_runner(runner, ray_address, devices, isolation)
    date = _date(timezone)
    check_thresholds(alpha, min_effect)
    check_trend(trend_nights, trend_threshold, min_effect)
    opened = Store.open(store, create=True)
    if baseline is not None:
        opened.run(baseline)  # a night that cannot be compared with it is not begun
    loaded = load_suite(suite).measured_anew()
    night = plan_night(loaded, digest_of(loaded.model), opened, date)
    for remark in night.plan.remarks:
        get_run_logger().warning(remark)
    record(night, opened)
    logging.getLogger("prefect.engine").addFilter(_ENDED)
    with also_logging_to(opened, night.run_id):
        now = {"runtime": night.suite.runtime, "model": night.suite.model}
        where = {"devices": devices, "isolation": isolation, "runner": runner, "ray_address": ray_address}
        ended: State[Any] = evaluate(night.run_id, store, **now, **where, return_state=True)
        thresholds = _Thresholds(alpha, min_effect, trend_nights, trend_threshold)
        return _concluded(ended, night, opened, baseline, thresholds, {"suite": suite, "store": store})


@dataclass(frozen=True, slots=True)
class _Thresholds:
    alpha: float
    min_effect: float | str
    trend_nights: int
    trend_threshold: float


def _concluded(
    ended: State[Any],
    night: Run,
    store: Store,
    baseline: str | None,
    thresholds: _Thresholds,
    parameters: dict[str, str],
) -> State[Any]:
    # 1) an evaluation that was stopped is compared when it has gone on; now there may be no time
    if ended.is_cancelled() or not ended.is_final():
        resume = store.command("rerun", night.run_id)
        return Failed(name=INTERRUPTED, message=f"the evaluation is {ended.name} in Prefect; finish it with: {resume}")
    stopped = ended.result(raise_on_failure=False)
    if isinstance(stopped, BaseException):  # not what a cell met, but what stopped the flow
        raise stopped
    if ended.name == INTERRUPTED:
        return Failed(name=INTERRUPTED, message=ended.message)
    # 2) compact the run, compare it with one before and look for a trend over many, and publish all
    if ended.is_completed():
        _compact(store, night.run_id)
    found = _compare(store, night.run_id, baseline, thresholds)
    trends = _watch(store, night.run_id, thresholds)
    message = f"{ended.message}\n{found if isinstance(found, str) else found.summary}\n{trends.summary}"
    publish(store, night.run_id, "nightly", page=_page(store, night.run_id))
    compared = None if isinstance(found, str) else found
    publish_comparison(night.suite.name, night.run_id, compared, trends)
    regressions = compared.regressions if compared else ()
    message += "".join(f"\n{_describe(change)}" for change in regressions[:REGRESSIONS_NAMED])
    if regressions or trends.new:
        _emit(night, compared, trends, parameters, given=baseline is not None)
    # 3) the state of the night
    if not ended.is_completed():
        return Failed(message=message)
    if regressions or trends.new:
        get_run_logger().error(message)
        return State(type=StateType.FAILED, name=REGRESSED, message=message)
    if baseline is not None and compared is None:
        get_run_logger().error(message)
        return Failed(message=message)
    if trends.worse:  # told as a regression on the night that it began
        get_run_logger().warning(trends.summary)
    return Completed(message=message)


def _date(timezone: str) -> str:
    # The date for which this flow run was scheduled, which a late start does not change.
    scheduled: datetime = flow_run.get_scheduled_start_time()
    return scheduled.astimezone(timezone_of(timezone)).date().isoformat()


def _page(store: Store, run_id: str) -> str | None:
    # Write the page on a night beside its log, and return where it lies; one that cannot be made is logged.
    try:
        return store.write_beside_log(run_id, "html", make_page(store, run_id).html)
    except Exception:
        get_run_logger().warning("the page on %s could not be written", run_id, exc_info=True)
        return None


def _compact(store: Store, run_id: str) -> None:
    # Put the many small files of a run into few, by which a store of many nights stays fast; what fails is logged.
    try:
        compact(store, run_id)
    except EmttaError as error:
        get_run_logger().warning("run %s is complete, and was not compacted: %s", run_id, error)


def _compare(store: Store, run_id: str, baseline: str | None, thresholds: _Thresholds) -> Comparison | str:
    refusals = []
    for other in [baseline] if baseline else baselines(store, run_id):
        try:
            return compare(store, other, run_id, alpha=thresholds.alpha, min_effect=thresholds.min_effect)
        except UsageError as error:
            refusals.append(str(error))
    if refusals:
        return f"not compared: {refusals[0]}"
    return "not compared: there is no complete run of this suite and model before it"


def _watch(store: Store, run_id: str, thresholds: _Thresholds) -> Watch:
    return watch(
        store,
        run_id,
        nights=thresholds.trend_nights,
        threshold=thresholds.trend_threshold,
        min_effect=thresholds.min_effect,
    )


def _emit(night: Run, found: Comparison | None, trends: Watch, parameters: dict[str, str], *, given: bool) -> None:
    # Emit the event of a regression for Prefect's automations; `parameters` name the suite and the store.
    opened, suite = Store.open(parameters["store"]), night.suite
    payload: dict[str, Any] = {"baseline": None, "regressions": [], "summary": trends.summary}
    command = opened.command("report", "history", "--run", night.run_id)
    if found is not None and found.regressions:
        thresholds = ("--alpha", str(found.alpha), "--min-effect", str(found.min_effect.value))
        command = opened.command("compare", found.run_a, found.run_b, *thresholds)
        payload = {
            "baseline": found.run_a,
            "alpha": found.alpha,
            "min_effect": found.min_effect.value,
            "regressions": found.as_dict()["regressions"][:REGRESSIONS_NAMED],
            "summary": found.summary,
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
    """Serve the deployment `nightly/<name>` until Ctrl-C, one run at a time, each in a process of its own.

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
    # Refuse the name of a deployment that does something else: serving it would take it over.
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
        f"the deployment {nightly.name}/{name} is there already and {what}; choose another name, for example: "
        f"--name {name}-2, or delete it: prefect deployment delete {nightly.name}/{name}"
    )
