"""Each night is a new run, compared with the last complete one; a regression becomes a state, an event, an artifact.

One long file, because the ways in which a night can end share a suite, a store and a server.
"""

import json
import logging
import os
import re
import shlex
import signal
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from conftest import CLEAN, Command, Speech, SuiteFile
from prefect import flow, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact, State
from prefect.engine import handle_engine_signals
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import FailedRun
from prefect.flow_engine import run_flow_sync
from prefect.flows import load_flow_from_entrypoint
from prefect.states import Cancelled, Cancelling, Scheduled
from s3_server import S3Server
from store_factory import begin_run, write_shard

from emtta_core.errors import StoreError, UsageError
from emtta_core.pipeline.events import Event, Listener, UtterancesDone, channel, ignore
from emtta_core.pipeline.run import Run, plan_night, record
from emtta_core.pipeline.state import cell_states
from emtta_core.scoring import word_errors
from emtta_core.store import CellKey, Store
from emtta_core.store.lease import lease
from emtta_core.suite import load_suite
from flows.artifacts import MAX_ROWS, key, publish
from flows.evaluate import INTERRUPTED
from flows.nightly import _FINAL_STATE_FILTER, EVENT, _conclude, _refuse_taken, _Thresholds, next_runs, nightly

ROOT = Path(__file__).parents[2]
FAR = {"alpha": 0.5}
"""With three utterances, no p-value is below 1/4."""


def night(path: Path, store: Path | str, **parameters: Any) -> State[Any]:
    with channel.listening(lambda _: None):
        return nightly(str(path), str(store), return_state=True, **parameters)


def artifacts(state: State[Any]) -> dict[str, Artifact]:
    """Return the artifacts of a flow run, by key."""
    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        return {str(found.key): found for found in client.read_artifacts(artifact_filter=chosen)}


def events(suite: str) -> list[dict[str, Any]]:
    """Return the server's events for a suite, after waiting for the first."""
    chosen = {"filter": {"event": {"name": [EVENT]}, "resource": {"id": [f"emtta.suite.{suite}"]}}}
    with get_client(sync_client=True) as client:
        for _ in range(100):
            found: list[dict[str, Any]] = client._client.post("/events/filter", json=chosen).json()["events"]
            if found:
                return found
            time.sleep(0.1)
    return []


def heard_all(store: Store, run_id: str, like: str) -> None:
    """Write a complete run after the run `like`, with the same plan, in which each hypothesis is the reference."""
    store.write_plan(run_id, store.plan(like))
    row = store.run(like)
    store.write_run(run_id, replace(row, created_at=row.created_at + timedelta(milliseconds=1)))
    for cell in store.plan(like):
        made, new = (CellKey(run, cell.domain, cell.method, cell.seed) for run in (like, run_id))
        done = store.done(made, cell.cell_id)
        hypotheses, scores = [], []
        for found in done.values():
            reference = found.hypothesis.reference
            hypotheses.append(replace(found.hypothesis, hypothesis=reference))
            assert found.score is not None
            count = word_errors(reference, reference, found.hypothesis.language)
            scores.append(replace(found.score, hits=count.hits, substitutions=0, deletions=0, insertions=0))
        store.write_hypotheses(new, 1, 0, hypotheses)
        store.write_scores(new, 1, 0, scores)


@pytest.mark.usefixtures("prefect_server")
def test_nights_compare_until_regression(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    path, location = suite_file(), tmp_path / "store"
    first = night(path, location)
    assert first.is_completed(), first.message
    assert "not compared: there is no earlier complete run of this suite and model" in str(first.message)
    store = Store.open(location)
    (earlier,) = store.runs()

    second = night(path, location)
    assert second.is_completed(), second.message
    later = f"{earlier}-2"
    assert list(store.runs()) == [later, earlier]
    assert f"{later} against {earlier}: 0 worse and 0 better of 4 figures" in str(second.message)
    for cell in store.plan(later):
        (attempt,) = store.cells(CellKey(later, cell.domain, cell.method, cell.seed))
        assert (attempt.done, attempt.reused) == (3, 0)
    assert len(store.backend.list("prepared")) == 2  # one corpus and its mark: the audio was prepared once

    heard_all(store, "perfect", later)
    third = night(path, location, **FAR)
    assert (third.name, third.is_failed()) == ("Regressed", True)
    assert f"{earlier}-3 against perfect: 4 worse and 0 better of 4 figures" in str(third.message)
    assert "clean/em-tok-b: 0.00 → " in str(third.message)
    (event,) = events("tiny")
    assert event["resource"]["emtta.baseline"] == "last"
    payload = event["payload"]
    assert (payload["run"], payload["baseline"], payload["model"]) == (f"{earlier}-3", "perfect", payload["model"])
    assert emtta(*shlex.split(payload["command"])[1:], "--fail-on-regression").code == 3
    assert payload["parameters"] == {"suite": str(path), "store": str(location)}
    assert [item["domain"] for item in payload["regressions"]] == ["clean", "all"] * 2
    assert any(item["prefect.resource.role"] == "flow-run" for item in event["related"])

    found = artifacts(third)
    assert set(found) == {
        *("nightly-leaderboard-tiny", "nightly-failures-tiny", "nightly-report-tiny", "comparison-tiny")
    }
    board = json.loads(str(found["nightly-leaderboard-tiny"].data))
    assert {(row["method"], row["group"]) for row in board} >= {("source", "clean"), ("em-tok-b", "all")}
    assert all(row["wer"] == round(row["wer"], 2) for row in board)
    assert f"emtta report leaderboard --run {earlier}-3" in str(found["nightly-report-tiny"].data)
    commands = re.findall("^emtta (.*)$", str(found["nightly-report-tiny"].data), re.MULTILINE)
    assert commands
    for command in commands:
        # `view` serves until it is stopped; with --help, its other arguments are still parsed.
        serves = ["--help"] if command.startswith("view ") else []
        assert emtta(*shlex.split(command), *serves).code == 0, command
    page = location / "logs" / f"{earlier}-3.html"
    assert f"[{page}]({page.as_uri()})" in str(found["nightly-leaderboard-tiny"].description)
    assert f"{earlier}-3" in page.read_text()
    log = (location / "logs" / f"{earlier}-3.log").read_text()
    assert f"ERROR   prefect.flow_runs {earlier}: run {earlier}-3" in log
    assert "4 worse and 0 better of 4 figures" in log
    assert "| em-tok-b | clean | worse | +100.00 | 0.50 |" in str(found["comparison-tiny"].data)

    again = night(path, location, baseline=earlier, **FAR)  # as an automation would rerun it
    assert again.is_completed(), again.message
    assert f"{earlier}-4 against {earlier}: 0 worse" in str(again.message)


def test_expected_failure_logs_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prefect.engine.engine_outcome_is_handled", lambda: False)  # as in a separate process
    logger, records = logging.getLogger("prefect.engine"), list[logging.LogRecord]()
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.addFilter(_FINAL_STATE_FILTER)
    try:
        for error in (FailedRun("2 figures worse\nclean/em-tok-b"), OSError("gone")):
            with pytest.raises(SystemExit), handle_engine_signals(uuid4()):
                raise error
    finally:
        logger.removeFilter(_FINAL_STATE_FILTER)
        logger.removeHandler(handler)
    chosen, unexpected = records
    assert chosen.getMessage() == "the night did not end as Completed: 2 figures worse"
    assert not chosen.exc_info
    assert "unexpected exception" in unexpected.getMessage()
    assert unexpected.exc_info


@pytest.mark.usefixtures("prefect_server")
def test_foreign_deployment_is_kept() -> None:
    what = {"suite": "smoke", "store": "/store"}
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name("nightly")
        client.create_deployment(flow_id, name="mine", parameters=what)
        client.create_work_pool(WorkPoolCreate(name="pool", type="process"))
        client.create_deployment(flow_id, name="pooled", parameters=what, work_pool_name="pool")
    _refuse_taken("mine", what)  # the same suite and store; the hour may differ
    _refuse_taken("another", what)
    with pytest.raises(UsageError, match=r"nightly/mine already exists and evaluates smoke into /store; .*mine-2"):
        _refuse_taken("mine", what | {"store": "/elsewhere"})
    with pytest.raises(UsageError, match="nightly/pooled already exists and belongs to the work pool pool"):
        _refuse_taken("pooled", what)


@pytest.mark.parametrize("cancelled", [Cancelling(), Cancelled()])
def test_cancelled_night_is_resumable(cancelled: State[Any], tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    night = Run("tiny-2026-03-01", None, None)  # type: ignore[arg-type]
    ended = _conclude(cancelled, night, store, None, _Thresholds(0.05, 0.2, 30, 3.8), {})
    assert ended.name == INTERRUPTED
    assert str(ended.message).endswith(f"finish it with: emtta rerun tiny-2026-03-01 --store {store.location}")


def test_no_example_uses_dst_gap_hour() -> None:
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "prefect.yaml", ROOT / "flows/cli/schedule.py"]
    crons = re.findall(r'"([\d*]+) ([\d*]+) [\d*]+ [\d*]+ [\d*-]+"', "\n".join(path.read_text() for path in texts))
    assert len(crons) > 3
    assert not [cron for cron in crons if cron[1] in ("2", "*")]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_worker_nights_are_compared(suite_file: SuiteFile, speech: Speech, s3: S3Server) -> None:
    path, location = suite_file(), f"s3://{s3.bucket()}/nights"
    first, second = (night(path, location, isolation="process", devices="cpu") for _ in range(2))
    assert first.is_completed(), first.message
    assert second.is_completed(), second.message
    later, earlier = Store.open(location).runs()
    assert f"{later} against {earlier}: 0 worse and 0 better of 4 figures" in str(second.message)
    assert f"--store {location}" in artifacts(second)["nightly-report-tiny"].data


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_failed_night_is_still_compared(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    path, location = suite_file(), tmp_path / "store"
    assert night(path, location).is_completed()
    unknown = CLEAN.replace('"clean"', '"polish"', 1).replace("speech", 'speech", language = "pl')
    path = suite_file(CLEAN + unknown)
    state = night(path, location)
    assert (state.name, state.is_failed()) == ("Failed", True)
    assert "polish/source: " in str(state.message)
    assert "finish them with: emtta rerun " in str(state.message)
    assert "0 worse and 0 better of 4 figures" in str(state.message)


def scheduled(path: Path, store: Path, at: datetime, timezone: str, listener: Listener = ignore) -> State[Any]:
    """Run a night scheduled for a given time."""
    parameters = {"suite": str(path), "store": str(store), "timezone": timezone}
    with get_client(sync_client=True) as client, channel.listening(listener):
        due = client.create_flow_run(nightly, parameters=parameters, state=Scheduled(scheduled_time=at))
        state: State[Any] = run_flow_sync(nightly, flow_run=due, parameters=parameters, return_type="state")
    return state


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_failed_compaction_is_harmless(
    suite_file: SuiteFile, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, location = suite_file(methods=("source",)), tmp_path / "store"
    assert night(path, location).is_completed()
    store = Store.open(location)
    assert not [*store.backend.list("hypotheses"), *store.backend.list("scores"), *store.backend.list("cells")]
    assert {entry.name.split("/")[1] for entry in store.backend.list("packs")} == {"cells", "steps", "utterances"}

    def refuse(*_: object) -> None:
        raise StoreError("a file cannot be read")

    monkeypatch.setattr("flows.nightly.compact", refuse)
    second = night(path, location)
    assert second.is_completed(), second.message
    assert "0 worse and 0 better of 2 figures" in str(second.message)
    assert len(store.backend.list("scores")) == 2  # shards


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_sigterm_night_resumes_same_date(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    path, location, at = suite_file(), tmp_path / "store", datetime(2026, 3, 1, tzinfo=UTC)

    def send_sigterm(event: Event) -> None:
        if isinstance(event, UtterancesDone) and not channel.stopping():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)  # so that the other cell also sees the stop request before it ends

    state = scheduled(path, location, at, "UTC", send_sigterm)
    assert (state.name, state.is_failed()) == ("Interrupted", True)
    assert "are not complete, as it was asked to stop by SIGTERM\n" in str(state.message)
    assert "finish them with: emtta rerun tiny-2026-03-01 " in str(state.message)
    assert "compared" not in str(state.message)
    store = Store.open(location)
    kept = sum(cell.done for cell in cell_states(store, "tiny-2026-03-01"))
    assert 0 < kept < 6
    assert scheduled(path, location, at, "UTC").is_completed()
    ends = [store.cells(CellKey("tiny-2026-03-01", "clean", method))[-1] for method in ("source", "em-tok-b")]
    assert sum(end.reused for end in ends) == kept


@pytest.mark.usefixtures("prefect_server")
def test_date_follows_schedule_time_zone(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    path, location, at = suite_file(methods=("source",)), tmp_path / "store", datetime(2026, 3, 1, 18, 30, tzinfo=UTC)
    assert scheduled(path, location, at, "Asia/Tokyo").is_completed()
    assert scheduled(path, location, at, "America/New_York").is_completed()
    assert set(Store.open(location).runs()) == {"tiny-2026-03-02", "tiny-2026-03-01"}
    state = scheduled(path, location, at, "Asia/Tokio")
    assert state.is_failed()
    assert "unknown time zone 'Asia/Tokio'; use a name of the IANA database, such as Asia/Tokyo" in str(state.message)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_busy_run_is_refused(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    path, location, at = suite_file(methods=("source",)), tmp_path / "store", datetime(2026, 3, 1, tzinfo=UTC)
    with lease(Store.open(location, create=True), "tiny-2026-03-01"):
        state = scheduled(path, location, at, "UTC")
    assert (state.name, state.is_failed()) == ("Failed", True)
    assert f"process {os.getpid()} on " in str(state.message)
    assert "compared" not in str(state.message)
    assert scheduled(path, location, at, "UTC").is_completed()
    assert set(Store.open(location).runs()) == {"tiny-2026-03-01"}


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"baseline": "gone"}, "unknown run 'gone'"),
        ({"alpha": 5.0}, "alpha is 5; it must be between 0 and 1"),
        ({"min_effect": -1.0}, "the minimum effect is -1"),
        ({"min_effect": "2 %%"}, "the minimum effect is 2 %%; it must be a number"),
        ({"trend_nights": 1}, "the trend is sought over 1 nights; give a number from 3 to 1000"),
    ],
)
def test_bad_parameters_are_refused(
    suite_file: SuiteFile, speech: Speech, tmp_path: Path, mistake: dict[str, Any], message: str
) -> None:
    state = night(suite_file(), tmp_path / "store", **mistake)
    assert state.is_failed()
    assert message in str(state.message)
    assert not Store.open(tmp_path / "store", create=True).runs()


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_incomparable_baseline_fails(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    path, location = suite_file(methods=("source",)), tmp_path / "store"
    assert night(path, location).is_completed()
    (first,) = Store.open(location).runs()
    path.write_text(f"limit = 2\n{path.read_text()}")
    state = night(path, location, baseline=first)
    assert (state.name, state.is_failed()) == ("Failed", True)
    assert "not compared: " in str(state.message)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_baseline_has_same_speech(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    path, location = suite_file(methods=("source",)), tmp_path / "store"
    assert night(path, location).is_completed()
    text = path.read_text()
    path.write_text(f"limit = 2\n{text}")
    limited = night(path, location)
    assert limited.is_completed()
    assert "not compared: " in str(limited.message)
    assert "limit: nothing in A, 2 in B" in str(limited.message)
    path.write_text(text)
    assert "-3 against tiny-" in str(night(path, location).message)  # the first run, not the limited one


def test_same_night_keeps_run_id(suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    suite = load_suite(str(suite_file()))
    first = plan_night(suite, "digest", store, "2026-03-01")
    assert first.run_id == "tiny-2026-03-01"
    record(first, store)
    assert plan_night(suite, "digest", store, "2026-03-01").run_id == "tiny-2026-03-01"
    assert plan_night(suite, "digest", store, "2026-03-02").run_id == "tiny-2026-03-02"
    other = plan_night(suite, "another digest", store, "2026-03-01")
    assert other.run_id == "tiny-2026-03-01-2"
    record(other, store)
    assert plan_night(suite, "digest", store, "2026-03-01").run_id == "tiny-2026-03-01"
    assert plan_night(suite, "another digest", store, "2026-03-01").run_id == "tiny-2026-03-01-2"


@pytest.mark.usefixtures("prefect_server")
def test_page_table_has_at_most_1000_rows(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    begin_run(store, "run", [("noise", "vacuum", "source")], utterances=MAX_ROWS + 7)
    write_shard(store, CellKey("run", "vacuum", "source"), {f"u{index}": None for index in range(MAX_ROWS + 7)})

    @flow
    def page() -> None:
        publish(store, "run")

    found = artifacts(page(return_state=True))["failures-test"]
    assert len(json.loads(str(found.data))) == MAX_ROWS
    assert str(found.description).endswith("the first 1,000 of 1,008 rows")


@pytest.mark.usefixtures("prefect_server")
def test_unwritable_page_is_harmless(tmp_path: Path) -> None:
    @flow
    def page() -> str:
        publish(Store.open(tmp_path / "store", create=True), "no-such-run")
        return "went on"

    assert page() == "went on"


def test_key_is_lowercase_digits_dashes() -> None:
    assert key("leaderboard", "My.Suite_v2+x") == "leaderboard-my-suite-v2-x"
    assert key(" leaderboard", "demo") == "leaderboard-demo"


def test_next_runs_keep_hour_across_dst() -> None:
    october = next_runs("0 4 * * *", "Europe/Berlin", 1)[0].replace(year=2026, month=10, day=24, hour=0)
    found = next_runs("0 4 * * *", "Europe/Berlin", 2, after=october)
    assert [f"{date:%d %H:%M %z}" for date in found] == ["24 04:00 +0200", "25 04:00 +0100"]


@pytest.mark.parametrize(
    ("cron", "timezone", "message"),
    [
        ("2 o'clock", "UTC", "has 2 fields, not 5: minute hour day-of-month month day-of-week"),
        ("0 25 * * *", "UTC", "'0 25 * * *' is invalid"),
        ("0 0 30 2 *", "UTC", "'0 0 30 2 *' is never due"),
        ("0 2 * * *", "Europe/Brelin", "unknown time zone 'Europe/Brelin'; use a name of the IANA database"),
    ],
)
def test_invalid_schedule_is_refused(cron: str, timezone: str, message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        next_runs(cron, timezone, 1)
    assert message in str(refusal.value)


def test_command_lists_next_runs(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    path, where = suite_file(), ("--store", tmp_path / "store")
    outcome = emtta("schedule", path, "--cron", "30 2 * * 1", "--timezone", "Europe/Berlin", "--dry-run", *where)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("tiny: Mon ") and " 02:30 CE" in line for line in lines)
    assert not (tmp_path / "store").exists()
    assert emtta("schedule", path, "--cron", "0 2 * *", "--dry-run", *where).code == 2
    assert emtta("schedule", "no-such-suite", "--dry-run", *where).code == 2
    assert emtta("schedule", path, "--alpha", "5", "--dry-run", *where).code == 2
    assert emtta("schedule", path, "--min-effect", "-1", "--dry-run", *where).code == 2
    Store.open(tmp_path / "store", create=True)
    gone = emtta("schedule", path, "--baseline", "gone", "--dry-run", *where)
    assert gone.code == 2
    assert "unknown run 'gone'" in gone.err


def test_deployment_and_automations_exist() -> None:
    (deployment,) = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    entrypoint, name = deployment["entrypoint"].split(":")
    loaded = load_flow_from_entrypoint(f"{ROOT / entrypoint}:{name}")
    assert loaded.name == "nightly"
    parameters = loaded.validate_parameters(deployment["parameters"])
    assert load_suite(parameters["suite"]).name == deployment["name"]
    assert deployment["concurrency_limit"] == 1
    (schedule,) = deployment["schedules"]
    assert next_runs(schedule["cron"], schedule["timezone"], 1)
    assert schedule["timezone"] == parameters["timezone"]
    expected = {"crashed": f"prefect.flow-run.{INTERRUPTED}", "message": EVENT, "rerun": EVENT}
    for path in sorted((ROOT / "automations").glob("*.yaml")):
        text = path.read_text().replace("BLOCK_ID", "053114d6-36b3-4271-ba4e-92d701272cfe")
        assert expected.pop(path.stem) in AutomationCore.model_validate(yaml.safe_load(text)).trigger.expect
    assert not expected
