"""Each command that a message suggests works where it is suggested."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command, Outcome, Speech, SuiteFile, tone
from store_factory import begin_run, one_run

from emtta_core.pipeline.models import digest_of
from emtta_core.pipeline.run import plan_run, record
from emtta_core.store import Store
from emtta_core.suite import load_suite

SUGGESTED = re.compile(r"(?<![\w'/])emtta [a-z][^;`\n]*?(?= and emtta |[;`\n]|$)")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in which a command finds nothing that it does not name, as in another shell."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def follow(emtta: Command, found: Outcome, *more: str, codes: tuple[int, ...] = (0,)) -> list[str]:
    """Run what a command suggests, with `more` words, and return it."""
    commands = [text.strip() for text in SUGGESTED.findall(found.out + found.err)]
    for command in commands:
        done = emtta(*shlex.split(command)[1:], *more)
        assert done.code in codes, (command, done.err)
    return commands


def test_of_a_run_that_was_left_incomplete(
    emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path
) -> None:
    suite, store = load_suite(str(suite_file())), Store.open(tmp_path / "a store", create=True)
    record(plan_run(suite, digest_of(suite.model), "mine"), store)
    (command,) = follow(emtta, emtta("status", "mine", "--store", store.location), "--dry-run")
    assert command == f"emtta rerun mine --store '{store.location}'"


@pytest.mark.parametrize("words", [("list",), ("report", "leaderboard"), ("report", "html")])
def test_of_a_store_without_a_run(words: tuple[str, ...], emtta: Command, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    (command,) = follow(emtta, emtta(*words, "--store", store.location), "--dry-run")
    assert command == f"emtta run smoke --store {store.location}"


def test_of_two_runs_that_have_nothing_in_common(emtta: Command, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    for run in ("a", "b"):
        begin_run(store, run, [("noise", "BA", "source")])
    found = emtta("compare", "a", "b", "--store", store.location)
    assert "no utterance is scored in both" in found.err
    assert len(follow(emtta, found, codes=(3,))) == 2


def test_of_a_page_that_was_asked_for_as_a_table(emtta: Command, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    one_run(store, "a")
    found = emtta("report", "leaderboard", "--store", store.location, "--out", "page.html")
    assert found.code == 2
    follow(emtta, found, "--store", store.location)
    assert Path("page.html").is_file()


@pytest.mark.usefixtures("prefect_server")
def test_of_a_run_that_has_ended(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    speech.add("broken", b"no sound", "seven small boats")
    where = ("--store", str(tmp_path / "store"))
    path = suite_file(methods=("source",))
    done = emtta("run", path, "--run-id", "mine", *where)
    commands = follow(emtta, done)
    assert {shlex.split(command)[2] for command in commands} == {"leaderboard", "failures"}
    path.write_text(path.read_text().replace("batch_size = 2", "batch_size = 2, fail_on_error = 0"))
    failed = emtta("run", path, "--run-id", "strict", *where)
    assert failed.code == 3
    (tmp_path / "speech" / "broken.wav").unlink()
    speech.add("mended", tone(0.5), "nobody knows")
    assert follow(emtta, failed, codes=(0, 3))


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["corruptions", "ray", "s3"])
def test_of_a_package_that_is_missing(extra: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", f"emtta[{extra}]"]
    subprocess.run(command, check=True, capture_output=True)
