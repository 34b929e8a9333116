"""A family adds a kind of model that emtta does not know: named in the suite, or from an installed package."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Command, Speech, SuiteFile

from emtta_core.errors import ModelError, UsageError
from emtta_core.model import load_model
from emtta_core.pipeline import models
from emtta_core.store import Store
from emtta_core.store.catalogue import Catalogue

OUTSIDE = '''
from dataclasses import replace

from emtta_core.model.policy import Prompt
from emtta_core.model.whisper import Whisper


class Murmur(Whisper):
    """A Whisper under another name that transcribes only English."""

    model_type = "{kind}"

    def make(self, name, parts, *, device, precision):
        made = super().make(name, parts, device=device, precision=precision)
        prompt = Prompt({{"en": made.prompt.tokens["en"]}})
        return replace(made, prompt=prompt, settings=made.settings | {{"prompt": prompt.tokens}})


FAMILY = Murmur()
NOT_ONE = "a text"
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on Python's import path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    models._loaded.clear()
    yield folder
    models._loaded.clear()


def test_suite_names_custom_family(
    site: Path,
    tiny_model: Path,
    emtta: Command,
    suite_file: SuiteFile,
    speech: Speech,
    tmp_path: Path,
    prefect_server: str,
) -> None:
    (site / "own_murmur.py").write_text(OUTSIDE.format(kind="whisper"))
    path = suite_file(methods=("source",))
    path.write_text(path.read_text().replace("model = {", 'model = { family = "own_murmur:FAMILY",'))
    outcome = emtta("run", path, "--store", tmp_path / "store")
    assert outcome.code == 0, outcome.err
    opened = Store.open(tmp_path / "store")
    ((_, row),) = opened.runs().items()
    assert row.model_digest == load_model(tiny_model, device="cpu", family="own_murmur:FAMILY").digest
    assert row.model_digest != load_model(tiny_model, device="cpu").digest
    with Catalogue(opened) as catalogue:
        assert catalogue.query("SELECT count(*) FROM utterances WHERE error IS NULL").rows == [(3,)]


def test_installed_package_adds_kind(site: Path, tiny_model: Path, tmp_path: Path) -> None:
    (site / "packaged_murmur.py").write_text(OUTSIDE.format(kind="murmur"))
    about = site / "packaged_murmur-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: packaged-murmur\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[emtta.models]\nmurmur = packaged_murmur:FAMILY\n")
    folder = Path(shutil.copytree(tiny_model, tmp_path / "murmur"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "murmur"}))
    assert load_model(folder, device="cpu").languages == ("en",)


def test_invalid_family_is_refused(site: Path, tiny_model: Path) -> None:
    (site / "refused_murmur.py").write_text(OUTSIDE.format(kind="murmur"))
    for family, words in {
        "no_such_module:FAMILY": "there is no family 'no_such_module:FAMILY'.*module:object",
        "refused_murmur:NOTHING": "there is no family 'refused_murmur:NOTHING'",
        "refused_murmur:NOT_ONE": "is a str, not a family: it needs model_type, read and make",
        "refused_murmur:FAMILY": "is of the kind 'whisper', and the family .* reads 'murmur'",
    }.items():
        with pytest.raises(UsageError, match=words):
            load_model(tiny_model, device="cpu", family=family)


def test_unknown_kind_lists_known(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "bert"))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match=r"'bert'.*'speech_to_text', 'whisper'; and.*AutoModelForCTC.*docs/models\.md"):
        load_model(folder, device="cpu")
