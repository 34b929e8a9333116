"""Shared fixtures: a tiny model, suites for it, folder corpora, servers (Prefect, S3, the hub) and the command."""

import math
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache as cached
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import typer
from hub_server import Hub
from hub_server import serving as serving_hub
from s3_server import S3Server, serving
from whisper_factory import make_checkpoint

from flows.cli._log import configure_environment

configure_environment()  # before anything imports Prefect
# Containers often disable bytecode files; then each process that a test starts would compile emtta again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job and its children ignore SIGINT
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start: parallel workers share the cores
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache for the tests only."""
    place = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMTTA_CACHE", str(place))
        yield place


RATE = 16_000


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """Start Prefect's test server with its own database, and yield its address."""
    from prefect.settings import (
        PREFECT_API_BLOCKS_REGISTER_ON_START,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    # Like `serving`: without heartbeats, whose thread delays the end of each flow by up to a second, and without
    # blocks, whose registration adds a second to the start with a new database.
    disabled = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_API_BLOCKS_REGISTER_ON_START: False}
    with temporary_settings(disabled), prefect_test_harness(server_startup_timeout=120):
        yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server; environment variables point all started processes to it."""
    with serving(tmp_path_factory.mktemp("s3") / "requests.log") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """The name of an empty bucket."""
    return s3.bucket()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub for one test, with its own caches."""
    import huggingface_hub

    with serving_hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("EMTTA_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("EMTTA_CORPORA", raising=False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield served


@pytest.fixture(params=["folder", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A location for a new store, once of each kind."""
    return new_location(request, tmp_path)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def usual_location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder for a new store; `-m slow` adds a bucket, which must behave the same."""
    return new_location(request, tmp_path)


def new_location(request: pytest.FixtureRequest, folder: Path) -> str:
    """Return a location for a new store, of the kind in the fixture's parameter."""
    if request.param == "folder":
        return str(folder / "store")
    return f"s3://{request.getfixturevalue('s3').bucket()}/some/store"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Whisper with a window of 4 s, for English, German and French."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


def tone(seconds: float, hertz: float = 220.0, peak: float = 0.3) -> np.ndarray:
    """Return a tone whose volume rises and falls, `(N,)`; it is never silent."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (peak * np.sin(2 * math.pi * hertz * time) * (0.6 + 0.4 * np.sin(6 * time))).astype(np.float32)


@dataclass(frozen=True)
class Speech:
    """A folder corpus under construction."""

    path: Path

    def add(self, name: str, samples: np.ndarray | bytes | None, text: str) -> None:
        """Add an utterance: its samples, the raw bytes of its file, or no file at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        manifest = self.path / "manifest.csv"
        if not manifest.exists():
            manifest.write_text("path,text\n")
        with manifest.open("a") as file:
            file.write(f"{name}.wav,{text}\n")
        place = self.path / f"{name}.wav"
        if isinstance(samples, bytes):
            place.write_bytes(samples)
        elif samples is not None:
            soundfile.write(place, samples, RATE, subtype="FLOAT")


@pytest.fixture
def speech(tmp_path: Path) -> Speech:
    """A folder corpus with three good utterances."""
    corpus = Speech(tmp_path / "speech")
    for index, text in enumerate(("seven small boats", "the quick brown fox", "nobody knows where")):
        corpus.add(f"good{index}", tone(0.6 + 0.2 * index, 200 + 40 * index), text)
    return corpus


@dataclass(frozen=True)
class Stage:
    """A folder that the tests of a module use in turn; the first test's files are copied for the others.

    A store and its corpora refer to each other by path, so the copies must be at the same path.
    """

    folder: Path
    kept: Path

    def clear(self) -> Path:
        """Delete what the previous test left, and return the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        return self.folder

    def restore(self, make: Callable[[], None]) -> None:
        """Restore the files that `make` creates, with their times; `make` runs only for the first test."""
        if not self.kept.exists():
            make()
            shutil.copytree(self.folder, self.kept, symlinks=True)
        shutil.copytree(self.kept, self.folder, symlinks=True, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The module's stage; a module that uses it defines a `tmp_path` that clears it."""
    place = tmp_path_factory.mktemp("stage")
    return Stage(place / "folder", place / "kept")


SuiteFile = Callable[..., Path]

HEAD = """\
name = "tiny"
methods = {methods}
model = {{ name = "{model}" }}
adaptation = {{ steps = 1, candidates = 2 }}
runtime = {{ batch_size = 2, retries = 1, retry_delay = 0.01, isolation = "none" }}
"""

CLEAN = '[[domains]]\nname = "clean"\ngroup = "clean"\ncorpus = { name = "folder", path = "speech" }\n'


@pytest.fixture
def suite_file(tmp_path: Path, tiny_model: Path) -> SuiteFile:
    """Write a suite for the tiny model next to the `speech` corpus; `domains` is TOML, by default one clean domain."""

    def write(domains: str = CLEAN, methods: tuple[str, ...] = ("source", "em-tok-b"), name: str = "tiny.toml") -> Path:
        path = tmp_path / name
        path.write_text(HEAD.format(methods=list(methods), model=tiny_model) + domains)
        return path

    return write


@dataclass(frozen=True)
class Outcome:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]

built = cached(typer.main.get_command)


@pytest.fixture
def emtta(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the `emtta` command in this process."""
    from flows.cli.main import main

    monkeypatch.setattr(typer.main, "get_command", built)  # a process builds its verbs once; a test session calls many

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["emtta", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        else:
            code = 0
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
