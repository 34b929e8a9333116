"""`emtta run` evaluates, resumes, does nothing if nothing is missing, and its exit code shows the outcome."""

import importlib
import logging
import os
import re
import shlex
import shutil
import signal
from pathlib import Path

import pytest
from conftest import CLEAN, Command, Speech, SuiteFile
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling
from whisper_factory import make_checkpoint

from emtta_core.pipeline.events import Event, Started, UtterancesDone, channel
from emtta_core.store import Catalogue, Store
from emtta_core.store.lease import holder
from emtta_core.suite.file import suite_names

UNKNOWN_LANGUAGE = CLEAN.replace('"clean"', '"polish"', 1).replace("speech", 'speech", language = "pl')


def test_finished_run_suggests_report(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str
) -> None:
    importlib.import_module("prefect.main")  # Prefect adds its own log handlers once per process
    store, handlers = tmp_path / "my store", list(logging.getLogger().handlers)
    first = emtta("run", suite_file(), "--store", store)
    (run_id,) = Store.open(store).runs()
    assert first.code == 0, first.err
    assert f"run {run_id}: 2 cells to do, 6 utterances" in first.err
    assert "[  1/2] clean/" in first.err
    assert re.search(r"\[  [12]/2\] clean/em-tok-b: WER ", first.err), first.err  # either cell may finish first
    assert "em-tok-b" in first.out
    (command,) = re.findall("^next: emtta (.*)$", first.err, re.MULTILINE)
    assert "em-tok-b" in emtta(*shlex.split(command)).out
    assert "synthetic" not in first.err
    log = (store / "logs" / f"{run_id}.log").read_text()
    assert "clean/em-tok-b: Finished in state Completed()" in log
    assert logging.getLogger().handlers == handlers

    second = emtta("run", suite_file(), "--store", store)
    assert second.code == 0
    assert f"run {run_id}: nothing to do, all of its 2 cells are complete" in second.err
    assert second.out == first.out

    for form, words in (("csv", "method,group"), ("json", '"method": "em-tok-b"'), ("markdown", "| method |")):
        assert words in emtta("report", "leaderboard", "--format", form, "--store", store).out
    assert emtta("status", run_id, "--store", store).code == 0
    assert run_id in emtta("list", "--store", store).out
    answer = emtta("sql", "SELECT count(*) AS n FROM utterances", "--format", "csv", "--store", store)
    assert answer.out == "n\n6\n"


def test_cut_hypotheses_are_counted(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str
) -> None:
    path = suite_file()
    endless = make_checkpoint(tmp_path / "endless", end_bias=-1000.0)
    path.write_text(re.sub(r'model = \{ name = "[^"]*"', f'model = {{ name = "{endless}"', path.read_text()))
    done = emtta("run", path, "--store", tmp_path / "store", "--only", "method=source")
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("hypotheses cut at the token limit")]
    whose = emtta(*shlex.split(line.partition("emtta ")[2]), "--format", "csv")
    assert whose.out.splitlines()[1].split(",")[:4] == ["en", "source", "3", "3"]
    assert ": 3; list them with: emtta report flags" in line


def test_failure_suggests_rerun(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str
) -> None:
    path, store = suite_file(CLEAN + UNKNOWN_LANGUAGE, ("source",)), tmp_path / "store"
    outcome = emtta("run", path, "--run-id", "mine", "--store", store, "--only", "domain=polish")
    assert outcome.code == 3
    assert "polish/source: failed: " in outcome.err
    assert f"finish them with: emtta rerun mine --store {store} --domain polish" in outcome.err
    assert "Traceback" not in outcome.err
    status = emtta("status", "mine", "--store", store)
    assert status.code == 3
    assert "0 of 2 complete; 1 failed, 1 missing" in status.out


def test_shared_reason_is_printed_once(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str
) -> None:
    path, store = suite_file(CLEAN, ("source", "greedy-em")), tmp_path / "store"
    for recording in speech.path.glob("*.wav"):
        recording.unlink()
    outcome = emtta("run", path, "--run-id", "mine", "--store", store)
    assert outcome.code == 3
    (message,) = [line for line in outcome.err.splitlines() if line.startswith("incomplete: ")]
    assert message.startswith("incomplete: clean/source, clean/greedy-em: ")


@pytest.mark.slow
def test_vanished_model_is_named(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tiny_model: Path, tmp_path: Path, prefect_server: str
) -> None:
    folder, store = Path(shutil.copytree(tiny_model, tmp_path / "model")), tmp_path / "store"
    path = suite_file(methods=("source", "em-tok-b"))
    path.write_text(path.read_text().replace(str(tiny_model), str(folder)))
    assert emtta("run", path, "--run-id", "mine", "--store", store, "--only", "method=source").code == 0
    (folder / "model.safetensors").unlink()
    outcome = emtta("rerun", "mine", "--store", store, "--isolation", "process")
    assert outcome.code == 3
    reason = f"the model folder {folder} lacks model.safetensors"
    assert f"[  1/1] clean/em-tok-b: failed: {reason}" in outcome.err
    assert f"incomplete: clean/em-tok-b: {reason}" in outcome.err
    status = emtta("status", "mine", "--store", store).out
    assert "1 of 2 complete; 1 failed" in status
    assert f"{'failed:':<16}clean/em-tok-b: {reason}" in status
    assert reason in emtta("report", "failures", "--store", store, "--format", "json").out


def test_suggested_rerun_keeps_limit(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str
) -> None:
    path, store = suite_file(UNKNOWN_LANGUAGE, ("source",)), tmp_path / "store"
    outcome = emtta("run", path, "--store", store, "--limit", 1)
    assert outcome.code == 3
    typed = shlex.split(outcome.err.split("finish them with: emtta ")[1])
    assert typed[0] == "rerun"
    again = emtta(*typed)
    assert again.code == 3
    assert "1 cell to do, 1 utterance" in again.err
    assert f"finish them with: {shlex.join(['emtta', *typed])}" in (store / "logs" / f"{typed[1]}.log").read_text()


def test_sigterm_keeps_work_and_exits_143(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str
) -> None:
    path, store = suite_file(), tmp_path / "store"

    def send_sigterm(event: Event) -> None:
        if isinstance(event, UtterancesDone):
            os.kill(os.getpid(), signal.SIGTERM)
            channel._listeners.remove(send_sigterm)

    channel._listeners.append(send_sigterm)
    outcome = emtta("run", path, "--run-id", "mine", "--store", store)
    assert outcome.code == 143
    assert "stopping after the current shards; SIGTERM again to stop immediately" in outcome.err
    assert f"finish them with: emtta rerun mine --store {store}" in outcome.err
    assert holder(Store.open(store), "mine") is None
    with Catalogue(Store.open(store)) as catalogue:
        ((kept,),) = catalogue.query("SELECT sum(done) FROM cells").rows
    assert 0 < kept < 6
    again = emtta("rerun", "mine", "--store", store)
    assert again.code == 0
    assert f"it would reuse {kept} finished utterances" in again.err


def test_utterance_errors_are_shown(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str
) -> None:
    speech.add("broken", b"RIFF this is no sound", "lost")
    outcome = emtta("run", suite_file(methods=("source",)), "--run-id", "mine", "--store", tmp_path / "store")
    assert outcome.code == 0
    assert "utterances in error: 1, excluded from every WER; see: emtta report failures --run mine" in outcome.err


def test_dry_run_writes_nothing(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    outcome = emtta("run", suite_file(), "--store", tmp_path / "store", "--dry-run", "--limit", 2)
    assert outcome.code == 0
    assert "would do 2 of 2 cells, 4 utterances" in outcome.err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("option", "value", "code", "reason"),
    [
        ("--run-id", "a/b", 2, "run id 'a/b'"),
        ("--run-id", "null", 2, "run id 'null'"),
        ("--devices", "cuda:9", 2, "'cuda:9'"),
        ("--devices", "gpu", 2, "'gpu'"),
        ("--store", "/dev/null/x", 1, "/dev/null/x"),
        ("--store", "a=b", 1, "'a=b'"),
        ("--only", "method=none", 2, "'none'"),
        ("--ray-address", "somewhere:1", 2, "somewhere:1"),
    ],
)
def test_dry_run_refuses_like_run(
    emtta: Command,
    suite_file: SuiteFile,
    speech: Speech,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    value: str,
    code: int,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path, store_option = suite_file(), ["--store", tmp_path / "store"] if option != "--store" else []
    for dry in (["--dry-run"], []):
        outcome = emtta("run", path, *store_option, option, value, *dry)
        assert (outcome.code, reason in outcome.err) == (code, True), outcome.err
    found = Store.find(tmp_path / "store")
    assert found is None or not found.runs()


def test_dry_run_skips_missing_audio(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    gone = CLEAN.replace('"clean"', '"gone"', 1).replace('"speech"', '"nowhere"')
    outcome = emtta("run", suite_file(CLEAN + gone), "--store", tmp_path / "store", "--dry-run")
    assert "would do 2 of 4 cells, 6 utterances" in outcome.err
    assert "2 cells cannot be done without audio, which is not available for: gone" in outcome.err


def test_complete_run_starts_nothing(
    emtta: Command,
    suite_file: SuiteFile,
    speech: Speech,
    tmp_path: Path,
    prefect_server: str,
) -> None:
    path, store = suite_file(methods=("source",)), tmp_path / "store"
    assert emtta("run", path, "--store", store).code == 0
    shutil.rmtree(store / "logs")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):  # nothing listens there
        outcome = emtta("run", path, "--store", store)
    assert outcome.code == 0, outcome.err
    assert "nothing to do" in outcome.err
    (made,) = (store / "logs").iterdir()
    assert made.name.endswith(".results.json"), "which was missing"


def test_unresponsive_server_is_named(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str
) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        outcome = emtta("run", suite_file(), "--store", tmp_path / "store")
        examined = emtta("doctor", "--store", tmp_path / "store")
    assert outcome.code == 1
    assert "Prefect's server http://127.0.0.1:9/api does not answer" in outcome.err
    assert "unset PREFECT_API_URL" in outcome.err
    assert examined.code == 1
    assert "does not answer" in examined.out


MISTAKES = {
    "an unknown suite": (["dmeo"], 2, f"(did you mean 'demo'?); choose from: {', '.join(suite_names())}"),
    "a missing suite file": (["no.toml"], 2, "no suite file 'no.toml'"),
    "an unknown domain": (["SUITE", "--only", "domain=AB"], 2, "unknown domain 'AB'; choose from: clean"),
    "an unknown method": (
        ["SUITE", "--only", "method=EM-tokb"],
        2,
        "unknown method 'EM-tokb' (did you mean 'em-tok-b'?)",
    ),
    "an unknown key": (["SUITE", "--only", "speaker=x"], 2, "not of the form"),
    "a limit of nothing": (["SUITE", "--limit", "0"], 2, "greater than or equal to 1"),
    "a bad run id": (["SUITE", "--run-id", "../x"], 2, "run id"),
    "an unknown option": (["SUITE", "--speed"], 2, "--speed"),
    "a store that is a file": (["SUITE", "--store", "FILE"], 1, "cannot open the store"),
}


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_prints_only_message(
    arguments: list[str], code: int, words: str, emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    names = {"SUITE": str(suite_file()), "FILE": str(file)}
    store = [] if "--store" in arguments else ["--store", str(tmp_path / "store")]
    outcome = emtta("run", *(names.get(word, word) for word in arguments), *store)
    assert outcome.code == code
    assert words in outcome.err
    assert "Traceback" not in outcome.err


def test_suite_mistake_names_field(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    path = suite_file()
    path.write_text(path.read_text().replace("steps = 1", 'steps = "many"'))
    outcome = emtta("run", path, "--store", tmp_path / "store")
    assert outcome.code == 2
    assert "adaptation.steps is 'many'; it should be a valid integer" in outcome.err
    assert not (tmp_path / "store").exists()


def test_cancellation_says_how_to_resume(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path, prefect_server: str
) -> None:
    def cancel(event: Event) -> None:
        if isinstance(event, Started):
            running = FlowRunFilter(name=FlowRunFilterName(any_=["cancelled-one"]))
            with SyncPrefectClient(prefect_server) as client:
                (found,) = client.read_flow_runs(flow_run_filter=running)
                client.set_flow_run_state(found.id, Cancelling(), force=True)

    with channel.listening(cancel):
        words = ("run", suite_file(methods=("source",)), "--run-id", "cancelled-one", "--store", tmp_path / "store")
        done = emtta(*words)
    assert "this flow run was cancelled in Prefect, where it is Cancelling" in done.err
    assert "bug" not in done.err
    assert done.code in (0, 3)
    assert ("finish them with: emtta rerun cancelled-one" in done.err) == (done.code == 3)
