"""A model's digest is cached until one of its files changes, and checked again before adaptation."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from conftest import Command, Speech, SuiteFile

from emtta_core.errors import ModelError
from emtta_core.pipeline import models
from emtta_core.pipeline.job import Job
from emtta_core.pipeline.models import digest_of, model_for
from emtta_core.pipeline.run import plan_run
from emtta_core.suite import ModelChoice, load_suite


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model with files that are an hour old."""
    copy = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    for file in copy.iterdir():
        before = time.time() - 3600
        os.utime(file, (before, before))
    return copy


def choice(folder: Path) -> ModelChoice:
    return ModelChoice(name=str(folder))


def test_cache_avoids_model_reload(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = digest_of(choice(folder))
    assert models.cached_digest(folder) == digest
    monkeypatch.setattr(models, "_model_of", None)
    assert digest_of(choice(folder)) == digest


def test_changed_file_invalidates(folder: Path) -> None:
    digest = digest_of(choice(folder))
    config = folder / "generation_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"suppress_tokens": [1]}))
    assert models.cached_digest(folder) is None
    models._loaded.clear()  # as in another process
    assert digest_of(choice(folder)) != digest


def test_new_family_invalidates(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = digest_of(choice(folder))
    monkeypatch.setattr(models, "BUILT_IN", {**models.BUILT_IN, "murmur": "own_murmur:FAMILY"})
    assert models.cached_digest(folder) is None
    assert digest_of(choice(folder)) == digest


def test_just_written_file_is_not_trusted(folder: Path) -> None:
    (folder / "config.json").touch()
    digest_of(choice(folder))
    assert models.cached_digest(folder) is None


def test_broken_cache_is_harmless(folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = digest_of(choice(folder))
    for file in (cache / "digests").iterdir():
        file.write_text("{")
    assert models.cached_digest(folder) is None
    (tmp_path / "no-folder").write_text("")
    monkeypatch.setenv("EMTTA_CACHE", str(tmp_path / "no-folder"))
    assert digest_of(choice(folder)) == digest


def test_unplanned_model_is_refused(suite_file: SuiteFile, speech: Speech) -> None:
    suite = load_suite(str(suite_file()))
    run = plan_run(suite, "0123456789abcdef")
    with pytest.raises(ModelError, match=r"the run was planned with 0123456789abcdef; restore the model"):
        model_for(Job.of(run, run.cells[0], "store"))


def test_suite_settings_reach_adaptation(suite_file: SuiteFile, speech: Speech) -> None:
    suite = load_suite(str(suite_file()))
    asked = suite.model.model_copy(update={"tokens_per_second": 20.0, "precision": "float64"})
    run = plan_run(suite.model_copy(update={"model": asked}), digest_of(asked))
    model = model_for(Job.of(run, run.cells[0], "store"))
    assert (model.policy.tokens_per_second, model.precision.name) == (20.0, "float64")


def test_complete_run_loads_nothing(
    emtta: Command,
    suite_file: SuiteFile,
    speech: Speech,
    folder: Path,
    tiny_model: Path,
    tmp_path: Path,
    prefect_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = suite_file()
    path.write_text(path.read_text().replace(str(tiny_model), str(folder)))
    assert emtta("run", path, "--store", tmp_path / "store").code == 0
    monkeypatch.setattr(models, "_model_of", None)
    outcome = emtta("run", path, "--store", tmp_path / "store")
    assert outcome.code == 0
    assert "nothing to do" in outcome.err
