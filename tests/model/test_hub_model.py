"""A model on the hub: described before its download, pinned to a commit, and read offline from then on."""

import json
import os
import re
import shutil
import subprocess
import sys
import termios
from pathlib import Path

import huggingface_hub
import pytest
from conftest import Command, Speech, SuiteFile
from hub_server import TOKEN, Hub
from whisper_factory import make_checkpoint

from emtta_core.errors import ModelError, UsageError
from emtta_core.hub import UnreachableHubError
from emtta_core.model import hub_model as model_hub
from emtta_core.model import load_model
from emtta_core.pipeline import models
from emtta_core.pipeline.models import digest_of
from emtta_core.store import Catalogue, Store
from emtta_core.suite import ModelChoice, parse_suite

NAME = "someone/tiny-whisper"


@pytest.fixture(autouse=True)
def _forget() -> None:
    models._loaded.clear()


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def publish(hub: Hub, folder: Path, **more: object) -> str:
    extra = {"pytorch_model.bin": b"pickled", "modeling.py": b"raise SystemExit", "flax_model.msgpack": b"other"}
    return hub.commit(NAME, files_of(folder) | extra, model=True, **more)


def fetched(hub: Hub) -> list[str]:
    return sorted({line.rsplit("/", 1)[1] for line in hub.asked if line.startswith("GET") and "/resolve" in line})


def test_needed_files_are_fetched_once(hub: Hub, tiny_model: Path) -> None:
    publish(hub, tiny_model)
    model = load_model(NAME, device="cpu")
    assert model.name == NAME
    assert model.digest == load_model(tiny_model, device="cpu").digest
    assert fetched(hub) == sorted(name for name in files_of(tiny_model) if name != "README.md")
    hub.asked.clear()
    load_model(NAME, device="cpu")
    assert fetched(hub) == []


def test_sharded_model_is_fetched_whole(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    from transformers import WhisperForConditionalGeneration

    folder = Path(shutil.copytree(tiny_model, tmp_path / "sharded"))
    (folder / "model.safetensors").unlink()
    WhisperForConditionalGeneration.from_pretrained(tiny_model).save_pretrained(folder, max_shard_size="100KB")
    shards = sorted(file.name for file in folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    commit = publish(hub, folder)
    assert load_model(NAME, device="cpu").digest == load_model(tiny_model, device="cpu").digest
    assert set(shards) < set(fetched(hub))
    found = model_hub.folder_of_commit(NAME, "main")
    assert found is not None and found.name == commit
    (found / shards[0]).unlink()
    assert model_hub.folder_of_commit(NAME, "main") is None


def test_branch_moves_but_commit_stays(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    first = publish(hub, tiny_model)
    digest = load_model(NAME, device="cpu").digest
    changed = Path(shutil.copytree(tiny_model, tmp_path / "changed"))
    settings = json.loads((changed / "generation_config.json").read_text())
    (changed / "generation_config.json").write_text(json.dumps(settings | {"suppress_tokens": [3]}))
    publish(hub, changed)
    assert load_model(NAME, device="cpu").digest != digest
    hub.asked.clear()
    assert load_model(NAME, device="cpu", revision=first).digest == digest
    assert hub.asked == []  # a commit is not looked up


@pytest.mark.parametrize(
    "missing", [["preprocessor_config.json"], ["merges.txt", "tokenizer.json", "vocab.json"]], ids=["features", "text"]
)
def test_partial_download_is_completed(hub: Hub, tiny_model: Path, missing: list[str]) -> None:
    commit = publish(hub, tiny_model)
    for name in files_of(tiny_model):
        if name not in missing:
            huggingface_hub.hf_hub_download(NAME, name, revision=commit, endpoint=hub.url)
    assert model_hub.folder_of_commit(NAME, commit) is None
    hub.asked.clear()
    assert load_model(NAME, device="cpu", revision=commit).digest == load_model(tiny_model, device="cpu").digest
    assert fetched(hub) == missing
    assert model_hub.is_cached(NAME, commit)


def test_any_tokenizer_form_works(hub: Hub, tiny_model: Path) -> None:
    texts = ("tokenizer.json", "vocab.json", "merges.txt")
    files = {name: content for name, content in files_of(tiny_model).items() if name not in texts}
    for others in ({"vocab.json": b"{}", "merges.txt": b""}, {"sentencepiece.bpe.model": b""}):
        commit = hub.commit(NAME, files | others, model=True)
        assert model_hub.fetch(NAME, None).name == commit
        assert model_hub.is_cached(NAME, commit)


def test_read_only_cache_works(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    commit = publish(hub, tiny_model)
    model_hub.fetch(NAME, None)
    (reference,) = (tmp_path / "hub").glob("*/refs/main")
    assert reference.read_text() == commit
    before = reference.stat()
    model_hub.fetch(NAME, None)
    after = reference.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    shutil.rmtree(reference.parent)
    reference.parent.write_text("no folder")
    assert model_hub.fetch(NAME, None).name == commit


def test_offline_reads_cache(hub: Hub, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(hub, tiny_model)
    digest = digest_of(ModelChoice(name=NAME))
    models._loaded.clear()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert digest_of(ModelChoice(name=NAME)) == digest
    assert load_model(NAME, device="cpu").digest == digest
    with pytest.raises(UnreachableHubError, match=r"'someone/else' cannot be downloaded.*download it elsewhere"):
        load_model("someone/else", device="cpu")


@pytest.mark.parametrize("multilingual", [True, False], ids=["multilingual", "English"])
def test_offline_generation_config_is_optional(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, multilingual: bool
) -> None:
    folder = make_checkpoint(tmp_path / "model", multilingual=multilingual)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").unlink()
    bare = files_of(folder)
    lists = {name: settings[name] for name in ("suppress_tokens", "begin_suppress_tokens")}
    listed = bare | {"config.json": json.dumps(json.loads(bare["config.json"]) | lists).encode()}
    commits = {kind: hub.commit(NAME, files, model=True) for kind, files in (("listed", listed), ("bare", bare))}
    digest = load_model(NAME, revision=commits["listed"], device="cpu").digest
    with pytest.raises(ModelError, match=r"lacks generation_config\.json; copy what training does not write"):
        load_model(NAME, device="cpu")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load_model(NAME, revision=commits["listed"], device="cpu").digest == digest
    for revision in (None, commits["bare"]):
        with pytest.raises(UnreachableHubError, match=rf"OFFLINE is set.*{commits['bare']} exists but lacks gen"):
            load_model(NAME, revision=revision, device="cpu")


def test_missing_name_is_reported(hub: Hub, tiny_model: Path) -> None:
    publish(hub, tiny_model)
    with pytest.raises(ModelError, match="there is no model 'someone/nothing'"):
        load_model("someone/nothing", device="cpu")
    with pytest.raises(UsageError, match="no revision 'v9'; give a branch"):
        load_model(NAME, device="cpu", revision="v9")


@pytest.mark.parametrize("name", ["openai/whisper base", "openai--whisper-base"])
@pytest.mark.parametrize("revision", [None, "0" * 40])
def test_invalid_name_shows_format(hub: Hub, name: str, revision: str | None) -> None:
    with pytest.raises(
        UsageError, match=f"model '{name}' has an invalid name; a name on the hub is OWNER/NAME, of letters"
    ):
        load_model(name, device="cpu", revision=revision)
    assert hub.asked == []


def test_gated_model_says_how_to_get_it(hub: Hub, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(hub, tiny_model, gated=True)
    with pytest.raises(ModelError, match=r"gated, and no token is set; accept its terms at"):
        load_model(NAME, device="cpu")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load_model(NAME, device="cpu").sample_rate == 16_000


def test_pickle_is_refused_before_fetch(hub: Hub, tiny_model: Path) -> None:
    files = files_of(tiny_model)
    del files["model.safetensors"]
    hub.commit(NAME, files | {"pytorch_model.bin": b"pickled"}, model=True)
    with pytest.raises(ModelError, match=r"no weights in safetensors.*save_pretrained"):
        load_model(NAME, device="cpu")
    assert fetched(hub) == []


def test_low_disk_is_refused_before_fetch(hub: Hub, tiny_model: Path) -> None:
    publish(hub, tiny_model, declared={"model.safetensors": 10**15})
    with pytest.raises(ModelError, match=r"takes 1000000\.00 GB, but only .* GB are free.*HF_HUB_CACHE"):
        load_model(NAME, device="cpu")
    assert fetched(hub) == []


def use(path: Path, tiny_model: Path) -> Path:
    path.write_text(path.read_text().replace(str(tiny_model), NAME))
    return path


def test_doctor_shows_licence_and_size(
    hub: Hub, tiny_model: Path, emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path
) -> None:
    publish(hub, tiny_model)
    path = use(suite_file(), tiny_model)
    shown = " ".join(emtta("doctor", path, "--store", tmp_path / "store").out.split())
    assert "apache-2.0" in shown
    assert "to fetch" in shown
    hub.models[NAME].declared["model.safetensors"] = 10**15
    outcome = emtta("doctor", path, "--store", tmp_path / "store")
    assert outcome.code == 1
    assert "GB are free" in " ".join((outcome.out + outcome.err).split())


def test_dry_run_fetches_nothing(
    hub: Hub, tiny_model: Path, emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path
) -> None:
    publish(hub, tiny_model)
    path = use(suite_file(methods=("source",)), tiny_model)
    outcome = emtta("run", path, "--store", tmp_path / "store", "--dry-run")
    assert outcome.code == 0, outcome.err
    output = " ".join(outcome.err.split())
    assert "licence apache-2.0" in output
    assert "a dry run does not fetch it" in output
    assert "would do 1 of 1 cell" in output
    assert fetched(hub) == []
    assert not (tmp_path / "store").exists()


def test_prepare_fetches_model(
    hub: Hub, tiny_model: Path, emtta: Command, suite_file: SuiteFile, speech: Speech, tmp_path: Path
) -> None:
    publish(hub, tiny_model)
    path = use(suite_file(methods=("source",)), tiny_model)
    outcome = emtta("prepare", path, "--store", tmp_path / "store")
    assert outcome.code == 0, outcome.err
    assert f"model {NAME}: digest {load_model(tiny_model, device='cpu').digest}" in outcome.err
    assert "model.safetensors" in fetched(hub)
    hub.models.clear()
    gone = emtta("prepare", use(suite_file(methods=("em-tok",)), tiny_model), "--store", tmp_path / "store")
    assert gone.code == 3
    assert f"there is no model '{NAME}'" in " ".join(gone.err.split())


def test_terminal_shows_download_progress(
    hub: Hub, tiny_model: Path, suite_file: SuiteFile, speech: Speech, tmp_path: Path
) -> None:
    publish(hub, tiny_model)
    path = use(suite_file(methods=("source",)), tiny_model)
    arguments = ["prepare", str(path), "--store", str(tmp_path / "store")]
    command = [sys.executable, "-c", "from flows.cli.main import main; main()", *arguments]
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub")}
    environment.pop("HF_HUB_DISABLE_PROGRESS_BARS", None)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment) as process:
        os.close(theirs)
        output = b""
        while not re.search(rb"model\.safetensors: .*100%", output):
            more = _read(ours)
            assert more, output.decode()
            output += more
        process.kill()  # the rest of the command takes ten seconds and does not matter here


def _read(terminal: int) -> bytes:
    """Read from a terminal until its other end is closed, which Linux reports as an error."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


def test_run_records_fetched_commit(
    hub: Hub,
    tiny_model: Path,
    emtta: Command,
    suite_file: SuiteFile,
    speech: Speech,
    tmp_path: Path,
    prefect_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit = publish(hub, tiny_model)
    path = use(suite_file(methods=("source",)), tiny_model)
    outcome = emtta("run", path, "--store", tmp_path / "store")
    assert outcome.code == 0, outcome.err
    size = sum(len(content) for name, content in files_of(tiny_model).items()) / 1e6
    output = " ".join(outcome.err.split())
    assert f"model {NAME} at commit {commit[:12]}, licence apache-2.0: {size:,.1f} MB to fetch" in output
    ((run_id, row),) = Store.open(tmp_path / "store").runs().items()
    recorded = parse_suite(row.suite_toml).model
    assert (recorded.name, recorded.revision) == (NAME, commit)
    assert row.model_digest == load_model(tiny_model, device="cpu").digest
    with Catalogue(Store.open(tmp_path / "store")) as catalogue:
        assert catalogue.query("SELECT model, model_revision FROM runs").rows == [(NAME, commit)]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    models._loaded.clear()
    again = emtta("rerun", run_id, "--force", "--store", tmp_path / "store")
    assert again.code == 0, again.err
