"""The command starts fast, shows help with examples, and reports errors in plain words."""

import io
import json
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from conftest import Command
from rich.console import Console
from store_factory import begin_run, with_errors, write_shard

from emtta_core.audio.mix import SnrConvention
from emtta_core.errors import EmttaError
from emtta_core.pipeline.events import CellFinished, Channel, DomainPrepared, Started, UtterancesDone
from emtta_core.store import CellKey, Store
from flows.cli import report as report_verb
from flows.cli._options import SnrConventionOption
from flows.cli._progress import Progress, clock, line, picture, watching

ENTRY = "from flows.cli.main import main; main()"


def light(*arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run the command in a new process; also return which heavy modules it imported."""
    script = f"import atexit, sys; atexit.register(lambda: print('\\n', *sys.modules, file=sys.stderr)); {ENTRY}"
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120)
    return done, {"torch", "prefect", "transformers", "duckdb", "datasets"} & set(done.stderr.split())


def test_help_imports_nothing_heavy() -> None:
    for arguments in (["--help"], ["run", "--help"], ["suites"]):
        done, heavy = light(*arguments)
        assert done.returncode == 0
        assert not heavy


def test_completion_imports_nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    completions = {"emtta re": {"rerun", "report"}, "emtta list --format ": {"table", "json"}, "emtta run s": {"smoke"}}
    for words, expected in completions.items():
        monkeypatch.setenv("_EMTTA_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        done, heavy = light()
        assert (done.returncode, heavy) == (0, set()), done.stderr
        assert expected <= set(done.stdout.split())


def test_completion_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    command = [sys.executable, "-m", "emtta_core", "--install-completion", "bash"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert script.name == "emtta.sh"
    assert "_EMTTA_COMPLETE=complete_bash" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()


def test_every_result_verb_prints_json(emtta: Command, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    begin_run(store, "r", [("g", "d", "source")])
    write_shard(store, CellKey("r", "d", "source"), {"a": [with_errors(1)], "b": [with_errors(0)]})
    begin_run(store, "older", [("g", "d", "source")], created_at=datetime(2026, 11, 1, tzinfo=UTC))

    def shown(*words: object) -> Any:
        return json.loads(emtta(*words, "--format", "json").out)

    where = ("--store", tmp_path / "store")
    assert {row["suite"] for row in shown("suites")} >= {"demo", "smoke"}
    assert {row["group"] for row in shown("suites", "smoke")} >= {"noise"}
    assert shown("status", "r", *where)["cells"]["planned"] == 1
    assert shown("status", "r", *where) == json.loads(emtta("status", "r", *where, "--json").out)
    needs = shown("prepare", "smoke", "--dry-run", *where)
    assert {need["kind"] for need in needs} == {"corpus", "model"}
    assert {need["state"] for need in needs} == {"here"}
    doctor = shown("doctor", "smoke", *where)
    assert {check["what"] for check in doctor["checks"]} >= {"versions", "store"}
    assert doctor["needs"] == needs
    pruning = shown("prune", "--keep", "1", "--dry-run", *where)
    assert set(pruning) == {"runs", "corpora", "spared"}
    assert [(row["name"], row["created_at"], row["size"] > 0) for row in pruning["runs"]] == [
        ("older", "2026-11-01T00:00:00+00:00", True)
    ]
    for words in (("list",), ("report", "runs"), ("report",), ("sql", "FROM runs"), ("check",)):
        assert isinstance(shown(*words, *where), list), words
    assert shown("compare", "r", "r", *where)["run_a"] == "r"


def test_store_queries_need_no_torch(tmp_path: Path) -> None:
    Store.open(tmp_path, create=True)
    for arguments in (["list"], ["report", "leaderboard"], ["sql", "FROM runs"]):
        done, heavy = light(*arguments, "--store", str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert heavy == {"duckdb"}
        assert (f"emtta run smoke --store {tmp_path}" in done.stderr) == (arguments[0] != "sql")


@pytest.mark.parametrize(
    ("imported", "not_loaded"),
    [
        ("emtta_core.adaptation.adapter, emtta_core.model.load, emtta_core.model.hub_model", {"duckdb", "prefect"}),
        ("flows.evaluate, flows.nightly", {"torch", "transformers"}),
    ],
    ids=["the engine needs no store and no Prefect", "a flow starts without the engine"],
)
def test_imports_load_only_what_is_needed(imported: str, not_loaded: set[str]) -> None:
    script = f"import sys, {imported}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert not not_loaded & set(done.stdout.split())


@pytest.mark.parametrize(
    "verb", ["run", "status", "list", "report", "sql", "suites", "doctor", "demo train", "demo card"]
)
def test_help_has_examples(verb: str, emtta: Command) -> None:
    outcome = emtta(*verb.split(), "--help")
    assert outcome.code == 0
    assert f"emtta {verb}" in outcome.out.split("Example")[1]


@pytest.mark.parametrize("verb", ["prepare", "compare", "catalog export"])
def test_help_wraps_at_terminal_width(verb: str, emtta: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = [line.strip() for line in emtta(*verb.split(), "--help").out.split("Example")[0].splitlines()]
    wrapped = [(line, after) for line, after in pairwise(lines) if line and after]
    assert len(wrapped) >= 2
    assert all(len(line) + len(" ") + len(after.split()[0]) > 78 for line, after in wrapped)


def test_version_is_package_version(emtta: Command) -> None:
    outcome = emtta("--version")
    assert (outcome.code, outcome.out.strip()) == (0, f"emtta {version('emtta')}")


def test_doctor_creates_no_store(emtta: Command, tmp_path: Path) -> None:
    outcome = emtta("doctor", "--store", tmp_path / "far" / "away")
    assert f"{tmp_path / 'far' / 'away'} can be created" in outcome.out
    assert not any(tmp_path.iterdir())


def test_doctor_reports_uncreatable_store(emtta: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    store = tmp_path / "file" / "store"
    outcome = emtta("doctor", "--store", store)
    assert outcome.code == 1
    message = f"cannot open the store {store}: Not a directory; name another folder"
    assert re.search(rf"^ no +store +{re.escape(message)} *$", outcome.out, re.MULTILINE), outcome.out


def test_suites_lists_shipped(emtta: Command) -> None:
    out = emtta("suites").out
    assert "demo" in out
    assert "smoke" in out


MISTAKES = {
    "an unknown report": (
        ["report", "leaderbord"],
        2,
        "unknown report 'leaderbord' (did you mean 'leaderboard'?); choose from: ",
    ),
    "a report on an unknown run": (["report", "leaderboard", "--run", "x"], 2, "unknown run 'x'"),
    "a parameter without a value": (["report", "domains", "--param", "group"], 2, "--param 'group' is not a parameter"),
    "a parameter that the report lacks": (["report", "domains", "--param", "colour=red"], 2, "choose from: group"),
    "the status of an unknown run": (["status", "x"], 2, "unknown run 'x'"),
    "an unknown format": (["report", "leaderboard", "--format", "xml"], 2, "xml"),
    "SQL that is none": (["sql", "SELEKT 1"], 1, "SELEKT"),
    "SQL that would write": (["sql", "CREATE TABLE x AS SELECT 1"], 2, "SELECT"),
    "a run without a name": (["report", "leaderboard", "--run", ""], 2, "the value of --run is empty"),
    "a folder without a name": (["doctor", "--corpus-dir", " "], 2, "the value of --corpus-dir is empty"),
    "a run's id without a letter": (["run", "smoke", "--dry-run", "--run-id="], 2, "the value of --run-id is empty"),
    "a suite without a name": (["run", ""], 2, "the value of run is empty"),
    "an unknown verb": (["fly"], 2, "fly"),
}


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_prints_only_message(
    arguments: list[str], code: int, words: str, emtta: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(tmp_path, create=True)
    monkeypatch.setenv("EMTTA_STORE", str(tmp_path))
    outcome = emtta(*arguments)
    assert outcome.code == code
    assert words in outcome.err
    assert "Traceback" not in outcome.err


def test_missing_store_says_how_to_create(emtta: Command, tmp_path: Path) -> None:
    outcome = emtta("list", "--store", tmp_path / "no where")
    assert outcome.code == 1
    assert "there is no store at" in outcome.err
    assert f"`emtta run SUITE --store '{tmp_path}/no where'` creates one" in outcome.err


def test_bug_prints_traceback_path(emtta: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(tmp_path, create=True)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(report_verb, "show", broken)
    outcome = emtta("report", "runs", "--store", tmp_path)
    assert outcome.code == 1
    assert "unexpected error: ZeroDivisionError: a bug" in outcome.err
    assert "Traceback" not in outcome.err
    details = Path(outcome.err.split("the details are in ")[1].strip())
    assert "ZeroDivisionError" in details.read_text()
    details.unlink()


def test_own_error_is_printed_as_is(emtta: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(tmp_path, create=True)

    def refuse(*_: object, **__: object) -> None:
        raise EmttaError("mend [this] and try again")

    monkeypatch.setattr(report_verb, "show", refuse)
    outcome = emtta("report", "runs", "--store", tmp_path)
    assert (outcome.code, outcome.err.strip()) == (1, "error: mend [this] and try again")


def test_progress_shows_cells_and_eta() -> None:
    progress = Progress()
    progress.update(Started("demo-1", domains=2, cells=4, utterances={"source": 20, "em-tok": 20}, workers=1))
    progress.update(DomainPrepared("BA", 10, reused=False, seconds=0.1))
    progress.update(UtterancesDone("source", 10, errors=1, word_errors=20, words=80, seconds=5.0))
    progress.update(CellFinished("BA/source", 10, 1, 25.0, 5.0))
    progress.update(CellFinished("BA/em-tok", 0, 0, None, 1.0, error="out of memory"))
    assert progress.seconds_left == 15.0  # 10 utterances of source at 0.5 s each, 20 of em-tok at the slowest pace
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(picture(progress))
    shown = console.export_text()
    for words in (
        "demo-1",
        "1/4 cells",
        "1/2 domains prepared",
        "utterances/s",
        "0:15 left",
        "1 failed",
        "10/20",
        "25.0",
    ):
        assert words in shown


def test_retried_cell_is_counted_once() -> None:
    progress = Progress()
    progress.update(Started("demo-1", domains=1, cells=1, utterances={"source": 1}, workers=1))
    for error in ("busy", None):
        progress.update(CellFinished("BA/source", 1, 0, 25.0, 5.0, error=error))
    assert (len(progress.finished), len(progress.failed)) == (1, 0)


def test_line_per_cell_reports_outcome() -> None:
    progress = Progress(cells=115)
    event = CellFinished("BA/em-tok-b", 12, 2, 43.94, 3.21)
    progress.update(event)
    assert line(event, progress) == "[  1/115] BA/em-tok-b: WER 43.9 %, 12 utterances, 2 in error, 3.2 s"


@pytest.mark.parametrize(
    ("terminal", "number", "again"), [(True, signal.SIGINT, "Ctrl-C"), (False, signal.SIGTERM, "SIGTERM")]
)
def test_stop_request_is_explained(
    terminal: bool, number: signal.Signals, again: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, written = Channel(), io.StringIO()
    monkeypatch.setattr("flows.cli._progress.channel", channel)
    with watching(Console(file=written, width=200, force_terminal=terminal)):
        channel.ask_to_stop(number)
    assert f"stopping after the current shards; {again} again" in written.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (75, "1:15"), (3725, "1:02:05")])
def test_durations_read_like_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_snr_conventions_are_complete() -> None:
    choices, _nothing = get_args(get_args(SnrConventionOption)[0])
    assert get_args(choices) == get_args(SnrConvention)
