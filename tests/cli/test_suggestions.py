"""Each command that a message suggests works where it is suggested."""

import html
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Command, Outcome, Speech, SuiteFile, tone
from prefect import get_client
from store_factory import begin_run, one_run

from emtta_core.audio.effects import opus
from emtta_core.demo.card import CARD_FILE, SHIPPED
from emtta_core.errors import EmttaError, UsageError
from emtta_core.pipeline.models import digest_of
from emtta_core.pipeline.run import plan_run, record
from emtta_core.report.view_server import Viewer
from emtta_core.store import Catalogue, CellKey, Store
from emtta_core.store.queries import Limits
from emtta_core.suite import load_suite
from flows.nightly import _refuse_taken

SUGGESTED = re.compile(r"(?<![\w'/])emtta [a-z][^;`\n]*?(?= and emtta |[;`\n]|$)")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to a folder where a command finds only what it names, as in another shell."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def follow(emtta: Command, found: Outcome, *more: str, codes: tuple[int, ...] = (0,)) -> list[str]:
    """Run the commands that an output suggests, with more arguments, and return them."""
    commands = [text.strip() for text in SUGGESTED.findall(found.out + found.err)]
    assert commands, (found.out, found.err)
    for command in commands:
        done = emtta(*shlex.split(command)[1:], *more)
        assert done.code in codes, (command, done.err)
    return commands


def test_suggestion_for_incomplete_run(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    suite, store = load_suite(str(suite_file())), Store.open(tmp_path / "a store", create=True)
    record(plan_run(suite, digest_of(suite.model), "mine"), store)
    (command,) = follow(emtta, emtta("status", "mine", "--store", store.location), "--dry-run")
    assert command == f"emtta rerun mine --store '{store.location}'"


@pytest.mark.parametrize("words", [("list",), ("report", "leaderboard"), ("report", "html")])
def test_suggestion_for_store_without_runs(words: tuple[str, ...], emtta: Command, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    (command,) = follow(emtta, emtta(*words, "--store", store.location), "--dry-run")
    assert command == f"emtta run smoke --store {store.location}"


def test_suggestion_for_runs_without_overlap(emtta: Command, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    for run in ("a", "b"):
        begin_run(store, run, [("noise", "BA", "source")])
    found = emtta("compare", "a", "b", "--store", store.location)
    assert "no utterance is scored in both" in found.err
    assert len(follow(emtta, found, codes=(3,))) == 2


def test_suggestion_for_page_requested_as_table(emtta: Command, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    one_run(store, "a")
    found = emtta("report", "leaderboard", "--store", store.location, "--out", "page.html")
    assert found.code == 2
    follow(emtta, found, "--store", store.location)
    assert Path("page.html").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_suggestion_for_finished_run(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
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
    speech.add("repaired", tone(0.5), "nobody knows")
    assert follow(emtta, failed, codes=(0, 3))


def test_suggestion_for_report_requested_as_view(emtta: Command, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "a store", create=True)
    one_run(store, "a")
    found = emtta("sql", "FROM leaderboard", "--store", store.location)
    assert found.code == 1
    assert follow(emtta, found) == [f"emtta report leaderboard --store '{store.location}'"]


def test_suggestion_for_recordings_in_table(emtta: Command, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    one_run(store, "a")
    found = emtta("report", "leaderboard", "--audio", 1, "--store", store.location)
    assert found.code == 2
    follow(emtta, found, "--store", store.location, "--out", "page.html")
    assert Path("page.html").is_file()


def test_suggestion_for_missing_store(emtta: Command, tmp_path: Path) -> None:
    found = emtta("list", "--store", tmp_path / "a store")
    assert found.code == 1
    (command,) = SUGGESTED.findall(found.err)
    assert emtta(*shlex.split(command.replace("SUITE", "smoke"))[1:], "--dry-run").code == 0


def test_suggestion_for_run_pages(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    suite, store = load_suite(str(suite_file())), Store.open(tmp_path / "a store", create=True)

    def shown(path: str) -> Outcome:
        page = re.sub("</?code>", "`", viewer.answer(path).content.decode())
        return Outcome(0, html.unescape(re.sub("<[^>]*>", "\n", page)), "")

    viewer = Viewer(store)
    assert follow(emtta, shown("/"), "--dry-run") == [f"emtta run smoke --store '{store.location}'"]
    run = plan_run(suite, digest_of(suite.model), "mine")
    record(run, store)
    assert f"emtta rerun mine --store '{store.location}'" in follow(emtta, shown("/run/mine"), "--dry-run")
    (corpus,) = {cell.corpus_id for cell in run.cells}
    assert follow(emtta, shown(f"/run/mine/audio/{corpus}/gone"))


@pytest.mark.parametrize("verb", [("list",), ("report", "runs"), ("sql", "FROM runs"), ("compare", "a", "b")])
def test_suggestion_for_stopped_query(verb: tuple[str, ...], emtta: Command, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    for run in ("a", "b"):
        one_run(store, run)
    stopped = emtta(*verb, "--timeout", "0.000001", "--store", store.location)
    assert stopped.code == 1
    assert "allow more with --timeout SECONDS" in stopped.err
    assert emtta(*verb, "--timeout", "600", "--memory", "4GB", "--store", store.location).code == 0


def test_suggestion_for_query_limits(tmp_path: Path) -> None:
    with (
        Catalogue(Store.open(tmp_path / "store", create=True), limits=Limits(seconds=1e-6)) as catalogue,
        pytest.raises(
            EmttaError, match=r"allow more with Limits\(seconds=…\), or compact the store's runs: emtta compact"
        ),
    ):
        catalogue.query("FROM runs")


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_suggestion_for_damaged_files(emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path) -> None:
    store, path = tmp_path / "a store", suite_file(methods=("source",))
    words = ("run", path, "--run-id", "mine", "--store", store)
    assert emtta(*words).code == 0

    def attempts() -> list[int]:
        return [row.attempt for row in Store.open(store).cells(CellKey("mine", "clean", "source"))]

    for table in ("statistics", "scores", "hypotheses", "plans"):
        (damaged, *_) = sorted((store / table).rglob("*.parquet"))
        damaged.write_bytes(damaged.read_bytes()[:-30])
        found = emtta("check", store, "--format", "json")
        assert found.code == 1
        (remedy,) = [fault["remedy"] for fault in json.loads(found.out) if fault["file"] == str(damaged)]
        damaged.unlink()
        if table == "plans":
            assert "run the suite again with --run-id mine: finished work is kept" in remedy
            (store / "runs/run_id=mine/run.parquet").unlink()
            before = attempts()
            assert emtta(*words).code == 0
            assert attempts() == before
        else:
            assert follow(emtta, Outcome(1, remedy, "")) == [f"emtta rerun mine --store '{store}'"]
        assert emtta("check", store).code == 0, table
    (damaged, *_) = sorted((store / "scores").rglob("*.parquet"))
    damaged.write_bytes(b"")
    refused = emtta("compact", "mine", "--store", store)
    damaged.unlink()
    assert follow(emtta, refused)
    assert emtta("compact", "mine", "--store", store).code == 0


@pytest.mark.slow
def test_suggestion_for_demo_model_without_card(emtta: Command, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "a model"))
    (folder / CARD_FILE).unlink()
    found = emtta("demo", "card", "--model", folder)
    assert found.code == 1
    follow(emtta, found, "--utterances", "1")
    assert (folder / CARD_FILE).is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "packages", ["emtta[corruptions]", "emtta[ray]", "emtta[s3]", "pandas", "polars", "soundfile soxr"]
)
def test_suggestion_for_missing_package(packages: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", *packages.split()]
    subprocess.run(command, check=True, capture_output=True)


def test_suggestion_for_missing_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip's parser accepts the command, and the package is an installed one; no package index is contacted."""
    from pip._internal.commands import create_command

    monkeypatch.setattr(soundfile, "available_subtypes", lambda _: {})
    with pytest.raises(UsageError) as refused:
        opus(tone(0.5), 16.0, np.random.default_rng(0), None)
    (words,) = re.findall(r"\(pip (.*?)\)", str(refused.value))
    options, packages = create_command("install").parse_args(words.removeprefix("install ").split())
    assert (words.split()[0], options.force_reinstall) == ("install", True)
    assert [importlib.metadata.version(package) for package in packages] == [soundfile.__version__]


BROKEN = "\n\ndef available_subtypes(*_):\n    return {}\n"
CODED = """
import numpy
from emtta_core.audio.effects import opus
from emtta_core.errors import UsageError
try:
    opus(numpy.zeros(16_000, numpy.float32), 16.0, None, None)
except UsageError as error:
    raise SystemExit(str(error))
"""


@pytest.mark.slow
def test_suggestion_for_codec_of_broken_soundfile(tmp_path: Path) -> None:
    """Use an environment whose soundfile has no codec; it takes all other packages from this one."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    (own,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    others = filter(None, [*sys.path, str(Path(__file__).parents[2])])  # emtta may be installed by an import hook
    (own / "others.pth").write_text("\n".join(others), encoding="utf-8")
    for file in importlib.metadata.files("soundfile") or []:
        (own / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file.locate(), own / file)
    with (own / "soundfile.py").open("a") as module:
        module.write(BROKEN)

    def run(program: str, *words: str) -> "subprocess.CompletedProcess[str]":
        command = [tmp_path / "venv" / "bin" / program, *words]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)

    refused = run("python", "-c", CODED)
    (words,) = re.findall(r"\(pip (.*?)\)", refused.stderr)
    found = run("pip", "download", "--no-deps", "soundfile")
    if found.returncode:
        pytest.skip(f"no package index can be reached: {found.stderr.strip().splitlines()[-1]}")
    installed = run("pip", *words.split())
    assert installed.returncode == 0, installed.stderr
    retried = run("python", "-c", CODED)
    assert retried.returncode == 0, retried.stderr


@pytest.mark.slow
def test_suggestion_for_taken_deployment(prefect_server: str) -> None:
    wanted = {"suite": "smoke", "store": "/here"}
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name("nightly")
        client.create_deployment(flow_id, name="taken", parameters=wanted | {"store": "/elsewhere"})
    with pytest.raises(UsageError) as refused:
        _refuse_taken("taken", wanted)
    (command,) = re.findall("or delete it: (prefect .*)", str(refused.value))
    (other,) = re.findall("for example: --name (.*?),", str(refused.value))
    _refuse_taken(other, wanted)
    environment = os.environ | {"PREFECT_API_URL": prefect_server}
    subprocess.run([sys.executable, "-m", *shlex.split(command)], env=environment, check=True, capture_output=True)
    _refuse_taken("taken", wanted)
